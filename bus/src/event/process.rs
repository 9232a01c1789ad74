//! The subject of an event: one process with the image it runs.

use std::sync::Arc;

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::container::{ContainerJson, NamespacesJson};
use super::{ContainerInfo, EventId, ExecId, ProcessNamespaces, shared};

/// One process at the time of an event. Field terms follow ECS where ECS has one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, JsonSchema)]
#[cbor(map)]
#[schemars(transform = with_tid)]
pub struct Process {
    /// Names this image for ever.
    #[n(0)]
    pub exec_id: ExecId,
    /// The parent's image when this process was made or first seen.
    #[n(1)]
    pub parent: Option<ExecId>,
    /// Thread-group id, initial pid namespace.
    #[n(2)]
    pub pid: u32,
    /// Thread-group id of the real parent.
    #[n(4)]
    pub ppid: Option<u32>,
    /// Start of the process, Unix time in nanoseconds.
    #[n(5)]
    pub start_wall_ns: Option<i64>,
    /// `comm`: at most 15 bytes, chosen by the program itself.
    #[n(6)]
    pub name: String,
    /// The file that is executed, as the kernel resolved it.
    #[n(7)]
    pub exe: Option<ExeFile>,
    /// Argument vector; bytes that are not UTF-8 are written `\xNN`.
    #[n(8)]
    pub argv: Vec<String>,
    /// The argument vector was longer than what is kept.
    #[n(9)]
    pub argv_truncated: bool,
    /// Working directory at exec.
    #[n(10)]
    pub cwd: Option<String>,
    /// Real user id.
    #[n(11)]
    pub uid: u32,
    /// Effective user id.
    #[n(12)]
    pub euid: u32,
    /// Real group id.
    #[n(13)]
    pub gid: Option<u32>,
    /// Name of `uid` in this host's user database.
    #[n(14)]
    pub user: Option<String>,
    /// Audit login uid; `None` when never set.
    #[n(15)]
    pub loginuid: Option<u32>,
    /// Audit session id; `None` when never set.
    #[n(16)]
    pub audit_session: Option<u32>,
    /// Controlling terminal, such as `pts/3`.
    #[n(17)]
    pub tty: Option<String>,
    /// POSIX session id (`setsid`).
    #[n(18)]
    pub sid: Option<u32>,
    /// Effective capabilities, the kernel's bit mask.
    #[n(19)]
    pub cap_effective: Option<u64>,
    /// Control group.
    #[n(20)]
    pub cgroup: Option<Cgroup>,
    /// Container id (64 hex digits or the runtime's own form), read from the control group. In JSON it is `container.id`.
    #[n(21)]
    #[schemars(skip)]
    pub container: Option<String>,
    /// Mount namespace inode. In JSON it is `namespaces.mnt`.
    #[n(22)]
    #[schemars(skip)]
    pub mnt_ns: Option<u32>,
    /// Pid namespace inode. In JSON it is `namespaces.pid`.
    #[n(23)]
    #[schemars(skip)]
    pub pid_ns: Option<u32>,
    /// A thread of the kernel: no exe, no argv.
    #[n(24)]
    pub kernel_thread: bool,
    /// Start time and image count come from `/proc` (10 ms ticks): `exec_id` is approximate.
    #[n(25)]
    pub approximate: bool,
    /// The login that this process belongs to: [`Auth::login`](super::Auth::login) of the innermost session that was opened at it or
    /// above it. `None` outside of every session that the sensor saw opening.
    #[n(26)]
    pub login: Option<EventId>,
    /// Namespaces besides these two; in JSON all of them.
    #[n(27)]
    #[schemars(with = "NamespacesJson")]
    pub namespaces: Option<ProcessNamespaces>,
    /// What is known of the container that it is in; shared by all events of the container. In JSON the id is in it.
    #[n(28)]
    #[cbor(with = "shared", has_nil)]
    #[schemars(rename = "container", with = "Option<ContainerJson<'static>>")]
    pub container_info: Option<Arc<ContainerInfo>>,
}

/// JSON of a process: what belongs together stands together, whatever the stored encoding has grown by.
#[derive(Serialize)]
struct ProcessJson<'a> {
    exec_id: ExecId,
    parent: Option<ExecId>,
    pid: u32,
    tid: u32,
    ppid: Option<u32>,
    start_wall_ns: Option<i64>,
    name: &'a str,
    exe: Option<&'a ExeFile>,
    argv: &'a [String],
    argv_truncated: bool,
    cwd: Option<&'a str>,
    uid: u32,
    euid: u32,
    gid: Option<u32>,
    user: Option<&'a str>,
    loginuid: Option<u32>,
    audit_session: Option<u32>,
    tty: Option<&'a str>,
    sid: Option<u32>,
    cap_effective: Option<u64>,
    cgroup: Option<&'a Cgroup>,
    container: Option<ContainerJson<'a>>,
    namespaces: NamespacesJson,
    kernel_thread: bool,
    approximate: bool,
    login: Option<EventId>,
}

/// The field of JSON that is the event's in the stored encoding.
fn with_tid(schema: &mut schemars::Schema) {
    let tid = schemars::json_schema!({
        "description": "Thread that acted, or that something was done to; the process's first thread where no other is meant.",
        "type": "integer",
        "format": "uint32",
        "minimum": 0,
    });
    if let Some(properties) = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
        properties.insert("tid".to_owned(), tid.into());
    }
    if let Some(required) = schema.get_mut("required").and_then(serde_json::Value::as_array_mut) {
        required.push("tid".into());
    }
}

/// A process with the thread of it that acted, or that something was done to; JSON has it as `tid`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Threaded<'a> {
    pub(super) process: &'a Process,
    /// `None` for the first thread.
    pub(super) tid: Option<u32>,
}

impl Serialize for Process {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Threaded { process: self, tid: None }.serialize(serializer)
    }
}

impl Serialize for Threaded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Process {
            exec_id,
            parent,
            pid,
            ppid,
            start_wall_ns,
            name,
            exe,
            argv,
            argv_truncated,
            cwd,
            uid,
            euid,
            gid,
            user,
            loginuid,
            audit_session,
            tty,
            sid,
            cap_effective,
            cgroup,
            container,
            mnt_ns,
            pid_ns,
            kernel_thread,
            approximate,
            login,
            namespaces,
            container_info,
        } = self.process;
        let json = ProcessJson {
            exec_id: *exec_id,
            parent: *parent,
            pid: *pid,
            tid: self.tid.unwrap_or(*pid),
            ppid: *ppid,
            start_wall_ns: *start_wall_ns,
            name,
            exe: exe.as_ref(),
            argv,
            argv_truncated: *argv_truncated,
            cwd: cwd.as_deref(),
            uid: *uid,
            euid: *euid,
            gid: *gid,
            user: user.as_deref(),
            loginuid: *loginuid,
            audit_session: *audit_session,
            tty: tty.as_deref(),
            sid: *sid,
            cap_effective: *cap_effective,
            cgroup: cgroup.as_ref(),
            container: container.as_deref().map(|id| ContainerJson::new(id, container_info.as_deref())),
            namespaces: NamespacesJson::new(*mnt_ns, *pid_ns, *namespaces),
            kernel_thread: *kernel_thread,
            approximate: *approximate,
            login: *login,
        };
        json.serialize(serializer)
    }
}

/// The executed file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct ExeFile {
    /// Resolved path in the process's mount tree. A deleted file keeps the path it had.
    #[n(0)]
    pub path: String,
    /// Inode number.
    #[n(1)]
    pub inode: Option<u64>,
    /// Device number, the kernel's `MKDEV` form.
    #[n(2)]
    pub device: Option<u32>,
    /// Mode bits, with file type and setuid/setgid.
    #[n(3)]
    pub mode: Option<u32>,
    /// Owner of the file.
    #[n(4)]
    pub owner: Option<u32>,
    /// No link was left at exec: deleted, or a memfd.
    #[n(5)]
    pub deleted: bool,
    /// `path` was longer than what is kept.
    #[n(6)]
    pub path_truncated: bool,
    /// SHA-256 of the contents, hex. `None` when it was not known yet: `process.hash` tells it later, and the events of the same image after
    /// that one have it. Children that were forked before keep `None` until they exec.
    #[n(7)]
    pub sha256: Option<String>,
    /// Kind of its file system, such as `ext4`, `overlay` or `tmpfs`; a number of include/uapi/linux/magic.h where it has no name here.
    #[n(8)]
    pub filesystem: Option<String>,
    /// It lives in memory alone and is in no folder (`memfd_create`).
    #[n(9)]
    #[cbor(default)]
    pub memfd: bool,
    /// It lies in the writable layer of an overlay: what a container runs and its image did not bring, or brought otherwise.
    #[n(10)]
    #[cbor(default)]
    pub upper: bool,
    /// Bytes of the file.
    #[n(11)]
    pub size: Option<u64>,
    /// Last change of the inode (contents, mode, owner or links), Unix time in nanoseconds.
    #[n(12)]
    pub changed_ns: Option<i64>,
}

/// The control group of a process.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Cgroup {
    /// cgroup v2 id (the kernfs inode of the unified hierarchy).
    #[n(0)]
    pub id: u64,
    /// Path from the hierarchy's root, at most its last eight components; the v1 path where v2 says only "root".
    #[n(1)]
    pub path: Option<String>,
}

impl Process {
    /// A process of which only the id is known.
    pub fn of(exec_id: ExecId) -> Self {
        Self {
            exec_id,
            parent: None,
            pid: exec_id.pid,
            ppid: None,
            start_wall_ns: None,
            name: String::new(),
            exe: None,
            argv: Vec::new(),
            argv_truncated: false,
            cwd: None,
            uid: 0,
            euid: 0,
            gid: None,
            user: None,
            loginuid: None,
            audit_session: None,
            tty: None,
            sid: None,
            cap_effective: None,
            cgroup: None,
            container: None,
            mnt_ns: None,
            pid_ns: None,
            kernel_thread: false,
            approximate: false,
            login: None,
            namespaces: None,
            container_info: None,
        }
    }

    /// Path of the executed file, if known.
    pub fn exe_path(&self) -> Option<&str> {
        self.exe.as_ref().map(|exe| exe.path.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{BootId, Pod};

    fn process() -> Process {
        Process::of(ExecId { boot: BootId(1), start_ns: 2, pid: 3, exec: 4 })
    }

    fn confined() -> Process {
        let info = ContainerInfo {
            runtime: Some("docker".into()),
            name: Some("web".into()),
            image: Some("nginx:1.27".into()),
            pod: Some(Pod { name: Some("shop".into()), ..Pod::default() }),
            labels: [("com.docker.compose.project".to_owned(), "shop".to_owned())].into(),
            ..ContainerInfo::default()
        };
        Process {
            container: Some("5eed".into()),
            mnt_ns: Some(10),
            pid_ns: Some(11),
            namespaces: Some(ProcessNamespaces { net: Some(12), ..ProcessNamespaces::default() }),
            container_info: Some(Arc::new(info)),
            ..process()
        }
    }

    #[test]
    fn a_container_is_one_object_in_json() {
        let json = serde_json::to_value(confined()).unwrap();
        let container = &json["container"];
        assert_eq!((&container["id"], &container["runtime"], &container["name"]), (&json!("5eed"), &json!("docker"), &json!("web")));
        assert_eq!((&container["image"], &container["pod"]["name"]), (&json!("nginx:1.27"), &json!("shop")));
        assert_eq!(container["labels"], json!({ "com.docker.compose.project": "shop" }));
        assert_eq!(
            (&json["namespaces"]["mnt"], &json["namespaces"]["pid"], &json["namespaces"]["net"]),
            (&json!(10), &json!(11), &json!(12))
        );
        assert_eq!(serde_json::to_value(process()).unwrap()["container"], json!(null));
    }

    #[test]
    fn it_is_stored_whole_and_older_records_are_read() {
        let bytes = minicbor::to_vec(confined()).unwrap();
        assert_eq!(minicbor::decode::<Process>(&bytes).unwrap(), confined());
        // As the last version wrote it: an id, and nothing behind number 26.
        let older = Process { namespaces: None, container_info: None, ..confined() };
        let bytes = minicbor::to_vec(&older).unwrap();
        assert_eq!(minicbor::decode::<Process>(&bytes).unwrap(), older);
        let json = serde_json::to_value(&older).unwrap();
        assert_eq!((&json["container"]["id"], &json["container"]["image"]), (&json!("5eed"), &json!(null)));
    }

    #[test]
    fn an_older_reader_finds_the_id_where_it_was() {
        #[derive(Decode)]
        #[cbor(map)]
        struct Older {
            #[n(2)]
            pid: u32,
            #[n(21)]
            container: Option<String>,
        }
        let bytes = minicbor::to_vec(confined()).unwrap();
        let Older { pid, container } = minicbor::decode(&bytes).unwrap();
        assert_eq!((pid, container.as_deref()), (3, Some("5eed")));
    }
}
