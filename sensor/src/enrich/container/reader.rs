//! The thread that reads the runtimes' files. The only part of this module that touches the file system.
//!
//! What may be read is decided here, not by names: a regular file without links on its way where users could put them, of root or of the
//! user in question, that nobody else can write, no larger than a bound. A user's folders may be anything (a FUSE file system that never
//! answers), so they are entered only within the home's own file system; and if a read hangs all the same, only later lookups wait.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use super::id::Runtime;
use super::known::{Answer, Request};
use super::runtime::{Metadata, ParseError, containerd, crio, docker, podman};

/// Largest file of one container, bytes. A bundle's environment and mounts are in it; a hundred KiB are many.
const FILE_MAX: u64 = 1 << 20;
/// Largest list of containers and largest `passwd`, bytes. podman's list has about 700 bytes for each container.
const LIST_MAX: u64 = 8 << 20;
/// Lookups between the capture thread and this one, and answers on their way back, at most.
const QUEUE: usize = 256;
/// Write permission of group and others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("{path}: it is no regular file")]
    NoFile { path: String },
    #[error("{path}: it belongs to uid {found}, and only uid {wanted} is believed")]
    Owner { path: String, found: u32, wanted: u32 },
    #[error("{path}: others than its owner may write it (mode {mode:o})")]
    Writable { path: String, mode: u32 },
    #[error("{path}: it has {len} bytes, and at most {max} are read")]
    Large { path: String, len: u64, max: u64 },
    #[error("{path}: {source}")]
    Parse { path: String, source: ParseError },
}

/// Both ends of the thread.
#[derive(Debug)]
pub struct Lookups {
    requests: SyncSender<Request>,
    answers: Receiver<(Request, Answer)>,
}

impl Lookups {
    /// Starts the thread. It reads below `root`, and ends when this is dropped and its last read has come back.
    ///
    /// # Errors
    /// The folder cannot be opened, or the thread not be started.
    pub fn start(root: &Path) -> io::Result<Self> {
        let root = Root::open(root, 0)?;
        let (requests, wanted) = sync_channel::<Request>(QUEUE);
        let (found, answers) = sync_channel(QUEUE);
        thread::Builder::new().name("containers".to_owned()).spawn(move || {
            for request in wanted {
                let answer = root.look_up(&request);
                if found.send((request, answer)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, answers })
    }

    /// The answers that there are. Never waits.
    pub fn answers(&self) -> impl Iterator<Item = (Request, Answer)> {
        self.answers.try_iter()
    }

    /// Hands over a request. Never waits.
    ///
    /// # Errors
    /// There is no room: the request.
    pub fn send(&self, request: Request) -> Result<(), Request> {
        self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(request) | TrySendError::Disconnected(request) => request,
        })
    }
}

/// How paths are followed.
#[derive(Clone, Copy)]
enum Follow {
    /// In root's folders: links may lead anywhere below the root, as administrators put `/var/lib/docker` on another disk.
    Links,
    /// In a user's, who may put there what he likes: no links, no other file system.
    Nothing,
}

impl Follow {
    fn resolve(self) -> ResolveFlag {
        match self {
            Self::Links => ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS,
            Self::Nothing => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV,
        }
    }
}

/// A folder, with what its paths are worth.
struct Folder<'a> {
    fd: &'a OwnedFd,
    follow: Follow,
    /// Whose files are believed.
    owner: u32,
    /// For errors.
    path: &'a str,
}

impl Folder<'_> {
    fn open(&self, path: &str, flags: OFlag) -> Result<Option<OwnedFd>, ReadError> {
        match openat2(self.fd.as_fd(), path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(self.follow.resolve())) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(ReadError::Io { path: self.name(path), source: error.into() }),
        }
    }

    /// The bytes of a file that is believed; `None` when there is none.
    fn read(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, ReadError> {
        // Whatever it is, opening it neither waits nor does anything.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let Some(fd) = self.open(path, flags)? else { return Ok(None) };
        let (file, path) = (File::from(fd), self.name(path));
        let io = |source| ReadError::Io { path: path.clone(), source };
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(ReadError::NoFile { path });
        }
        if metadata.uid() != self.owner {
            return Err(ReadError::Owner { path, found: metadata.uid(), wanted: self.owner });
        }
        if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(ReadError::Writable { path, mode: metadata.mode() & 0o7777 });
        }
        let mut bytes = Vec::new();
        // It may grow while it is read.
        file.take(max + 1).read_to_end(&mut bytes).map_err(io)?;
        let len = metadata.len().max(bytes.len() as u64);
        if len > max {
            return Err(ReadError::Large { path, len, max });
        }
        Ok(Some(bytes))
    }

    /// A file of one container, read by `parse`.
    fn parsed<T>(&self, path: &str, max: u64, parse: impl FnOnce(&[u8]) -> Result<T, ParseError>) -> Result<Option<T>, ReadError> {
        let Some(bytes) = self.read(path, max)? else { return Ok(None) };
        parse(&bytes).map(Some).map_err(|source| ReadError::Parse { path: self.name(path), source })
    }

    fn name(&self, path: &str) -> String {
        format!("{}/{path}", self.path)
    }
}

/// The first that is found. Without one, the first error.
fn first<T>(tries: impl IntoIterator<Item = Result<Option<T>, ReadError>>) -> Result<Option<T>, ReadError> {
    let mut error = None;
    for tried in tries {
        match tried {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {}
            Err(failed) => error = error.or(Some(failed)),
        }
    }
    error.map_or(Ok(None), Err)
}

/// The host's root, or what stands for it.
#[derive(Debug)]
struct Root {
    fd: OwnedFd,
    /// Uid of root.
    owner: u32,
}

impl Root {
    fn open(path: &Path, owner: u32) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { fd: nix::fcntl::open(path, flags, Mode::empty())?, owner })
    }

    /// Root's own folders.
    fn whole(&self) -> Folder<'_> {
        Folder { fd: &self.fd, follow: Follow::Links, owner: self.owner, path: "" }
    }

    fn look_up(&self, request: &Request) -> Answer {
        let runtimes: &[Runtime] = match &request.runtime {
            Some(runtime) => std::slice::from_ref(runtime),
            // A bare id below `kubepods` or `docker`: cgroupfs as the driver.
            None => &[Runtime::Containerd, Runtime::Docker, Runtime::CriO, Runtime::Podman],
        };
        let tries = runtimes.iter().map(|runtime| Ok(self.ask(*runtime, request)?.map(|found| (*runtime, found))));
        match first(tries) {
            Ok(Some((runtime, metadata))) => Answer::Found(runtime, metadata),
            Ok(None) => Answer::Absent,
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    fn ask(&self, runtime: Runtime, request: &Request) -> Result<Option<Metadata>, ReadError> {
        let root = self.whole();
        let id = request.id.as_str();
        match (runtime, request.user) {
            (Runtime::Docker, None) => first(docker::FOLDERS.iter().map(|folder| of_docker(&root, folder, id))),
            (Runtime::Docker, Some(uid)) => match self.home(uid)? {
                Some((fd, path)) => {
                    of_docker(&Folder { fd: &fd, follow: Follow::Nothing, owner: uid, path: &path }, docker::HOME_FOLDER, id)
                }
                None => Ok(None),
            },
            (Runtime::Containerd, None) => first(containerd::STATES.iter().map(|state| of_containerd(&root, state, id))),
            (Runtime::CriO, None) => first(crio::FOLDERS.iter().map(|folder| {
                let path = format!("{folder}/{id}/{}", crio::FILE);
                root.parsed(&path, FILE_MAX, crio::parse)
            })),
            (Runtime::Podman, None) => first([podman::ROOT, podman::RUN_ROOT].map(|folder| of_podman(&root, folder, id))),
            (Runtime::Podman, Some(uid)) => {
                let home = || match self.home(uid)? {
                    Some((fd, path)) => {
                        of_podman(&Folder { fd: &fd, follow: Follow::Nothing, owner: uid, path: &path }, podman::HOME_ROOT, id)
                    }
                    None => Ok(None),
                };
                let run = || {
                    let path = format!("run/user/{uid}");
                    let Some(fd) = self.folder(&path)? else { return Ok(None) };
                    let folder = Folder { fd: &fd, follow: Follow::Nothing, owner: uid, path: &format!("/{path}") };
                    of_podman(&folder, podman::USER_RUN_ROOT, id)
                };
                first([home(), run()])
            }
            // A user's containerd and CRI-O keep their state in a mount namespace of their own; the others are not looked up.
            (Runtime::Containerd | Runtime::CriO, Some(_)) | (Runtime::Lxc | Runtime::Nspawn | Runtime::Buildkit, _) => Ok(None),
        }
    }

    /// A folder that root has made.
    fn folder(&self, path: &str) -> Result<Option<OwnedFd>, ReadError> {
        self.whole().open(path, OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    /// The home of a user, by the host's passwd alone: as for names ([`crate::enrich::users`]), no directory server is asked.
    fn home(&self, uid: u32) -> Result<Option<(OwnedFd, String)>, ReadError> {
        let Some(passwd) = self.whole().read("etc/passwd", LIST_MAX)? else { return Ok(None) };
        let Some(path) = home_in(&passwd, uid) else { return Ok(None) };
        Ok(self.folder(path.trim_start_matches('/'))?.map(|fd| (fd, path)))
    }
}

/// `name:password:uid:gid:comment:home:shell`; the first entry of an id counts.
fn home_in(passwd: &[u8], uid: u32) -> Option<String> {
    let text = String::from_utf8_lossy(passwd);
    let home = text.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse() == Ok(uid)).then(|| fields.nth(2).map(str::to_owned))
    });
    home.flatten().filter(|home| home.len() > 1 && home.starts_with('/'))
}

fn of_docker(within: &Folder<'_>, folder: &str, id: &str) -> Result<Option<Metadata>, ReadError> {
    within.parsed(&format!("{folder}/{id}/{}", docker::FILE), FILE_MAX, |bytes| docker::parse(bytes, id))
}

fn of_containerd(within: &Folder<'_>, state: &str, id: &str) -> Result<Option<Metadata>, ReadError> {
    let tasks = format!("{state}/{}", containerd::TASKS);
    let Some(fd) = within.open(&tasks, OFlag::O_RDONLY | OFlag::O_DIRECTORY)? else { return Ok(None) };
    // Through the descriptor: the path may lead elsewhere for this process than below the root.
    let entries = fs::read_dir(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let entries = entries.map_err(|source| ReadError::Io { path: within.name(&tasks), source })?;
    let names = entries.flatten().take(containerd::NAMESPACES_MAX).filter_map(|entry| entry.file_name().into_string().ok());
    let namespaces: Vec<String> = names.collect();
    first(namespaces.iter().map(|namespace| within.parsed(&format!("{tasks}/{namespace}/{id}/config.json"), FILE_MAX, containerd::parse)))
}

fn of_podman(within: &Folder<'_>, root: &str, id: &str) -> Result<Option<Metadata>, ReadError> {
    let folders = podman::FOLDERS.iter().map(|folder| format!("{root}/{folder}"));
    let lists = folders.clone().flat_map(|folder| podman::LISTS.iter().map(move |list| format!("{folder}/{list}")));
    let listed = first(lists.map(|list| Ok(within.parsed(&list, LIST_MAX, |bytes| podman::parse_list(bytes, id))?.flatten())))?;
    let Some(listed) = listed else { return Ok(None) };
    // It only adds the pod: a container has its name without it.
    let bundle = first(folders.map(|folder| within.parsed(&format!("{folder}/{id}/{}", podman::FILE), FILE_MAX, podman::parse)));
    let pod_uid = bundle.ok().flatten().and_then(|bundle| bundle.pod_uid);
    Ok(Some(Metadata { pod_uid, ..listed }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use nix::unistd::{getuid, mkfifo};
    use tempfile::TempDir;

    use super::*;
    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A host's root in a temporary folder. Its root is whoever runs the test.
    struct Host(TempDir);

    impl Host {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn write(&self, path: &str, text: &str) -> PathBuf {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        }

        fn ask_as(&self, owner: u32, runtime: Option<Runtime>, user: Option<u32>) -> Answer {
            let root = Root::open(self.0.path(), owner).unwrap();
            root.look_up(&Request { id: ID.into(), runtime, user })
        }

        fn ask(&self, runtime: Option<Runtime>, user: Option<u32>) -> Answer {
            self.ask_as(getuid().as_raw(), runtime, user)
        }

        /// What is found, in one line.
        fn told(&self, runtime: Option<Runtime>, user: Option<u32>) -> String {
            match self.ask(runtime, user) {
                Answer::Found(runtime, Metadata { name, image, pod_name, pod_uid, .. }) => {
                    let texts = [name, image, pod_name, pod_uid].map(|text| text.unwrap_or_else(|| "-".to_owned()));
                    format!("{} {}", runtime.as_str(), texts.join(" "))
                }
                other => format!("{other:?}"),
            }
        }
    }

    fn docker_file() -> String {
        format!(r#"{{"ID":"{ID}","Name":"/web","Image":"sha256:ab","Config":{{"Image":"nginx:1.27"}}}}"#)
    }

    fn docker_path() -> String {
        format!("var/lib/docker/containers/{ID}/config.v2.json")
    }

    fn podman_list() -> String {
        format!(r#"[{{"id":"{ID}","names":["web"],"image":"ab","metadata":"{{\"image-name\":\"web:2\",\"name\":\"web\"}}"}}]"#)
    }

    #[test]
    fn every_runtime_s_files_are_found() {
        for (path, text, runtime, told) in [
            (docker_path(), docker_file(), Runtime::Docker, "docker web nginx:1.27 - -"),
            (format!("var/snap/docker/common/var-lib-docker/containers/{ID}/config.v2.json"), docker_file(), Runtime::Docker, "docker web nginx:1.27 - -"),
            (
                format!("run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"),
                r#"{"annotations":{"io.kubernetes.cri.container-name":"web","io.kubernetes.cri.image-name":"nginx:1.27","io.kubernetes.cri.sandbox-name":"shop"}}"#.into(),
                Runtime::Containerd,
                "containerd web nginx:1.27 shop -",
            ),
            (
                format!("run/containers/storage/overlay-containers/{ID}/userdata/config.json"),
                r#"{"annotations":{"io.kubernetes.container.name":"web","io.kubernetes.cri-o.ImageName":"web:2","io.kubernetes.pod.name":"shop"}}"#.into(),
                Runtime::CriO,
                "cri-o web web:2 shop -",
            ),
            ("var/lib/containers/storage/overlay-containers/containers.json".into(), podman_list(), Runtime::Podman, "podman web web:2 - -"),
            ("var/lib/containers/storage/vfs-containers/volatile-containers.json".into(), podman_list(), Runtime::Podman, "podman web web:2 - -"),
        ] {
            let host = Host::new();
            assert_eq!(host.ask(Some(runtime), None), Answer::Absent);
            host.write(&path, &text);
            assert_eq!(host.told(Some(runtime), None), told, "{path}");
        }
    }

    #[test]
    fn a_bare_id_is_asked_of_every_runtime() {
        let host = Host::new();
        assert_eq!(host.ask(None, None), Answer::Absent);
        host.write(&docker_path(), &docker_file());
        assert_eq!(host.told(None, None), "docker web nginx:1.27 - -");
    }

    #[test]
    fn podman_s_bundle_adds_the_pod() {
        let host = Host::new();
        host.write("var/lib/containers/storage/overlay-containers/containers.json", &podman_list());
        let bundle = format!("var/lib/containers/storage/overlay-containers/{ID}/userdata/config.json");
        host.write(&bundle, r#"{"annotations":{"io.kubernetes.cri-o.SandboxID":"9509"}}"#);
        assert_eq!(host.told(Some(Runtime::Podman), None), "podman web web:2 - 9509");
        host.write(&bundle, "damaged");
        assert_eq!(host.told(Some(Runtime::Podman), None), "podman web web:2 - -");
    }

    #[test]
    fn root_s_folders_may_be_links_that_stay_below_the_root() {
        let host = Host::new();
        host.write(&format!("disk/docker/containers/{ID}/config.v2.json"), &docker_file());
        fs::create_dir_all(host.path("var/lib")).unwrap();
        symlink("/disk/docker", host.path("var/lib/docker")).unwrap();
        assert_eq!(host.told(Some(Runtime::Docker), None), "docker web nginx:1.27 - -");
    }

    #[test]
    fn what_is_not_believed_is_named() {
        let failure = |host: &Host| match host.ask(Some(Runtime::Docker), None) {
            Answer::Failed(why) => why,
            other => panic!("{other:?}"),
        };
        let host = Host::new();
        let path = host.write(&docker_path(), &docker_file());
        match host.ask_as(getuid().as_raw() + 1, Some(Runtime::Docker), None) {
            Answer::Failed(why) => assert!(why.contains("belongs to uid"), "{why}"),
            other => panic!("{other:?}"),
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert!(failure(&host).ends_with("others than its owner may write it (mode 620)"), "{}", failure(&host));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "hunter2").unwrap();
        let expected = format!("/{}: it is not the JSON that docker writes (line 1, column 1)", docker_path());
        assert_eq!(failure(&host), expected);
        fs::write(&path, " ".repeat(FILE_MAX as usize + 1)).unwrap();
        assert!(failure(&host).contains("it has 1048577 bytes, and at most 1048576 are read"), "{}", failure(&host));
        fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        assert!(failure(&host).contains("symbolic links"), "{}", failure(&host));
        fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::S_IRUSR).unwrap();
        assert!(failure(&host).ends_with("it is no regular file"), "{}", failure(&host));
    }

    #[test]
    fn a_user_s_containers_are_in_his_home_and_no_link_is_followed_there() {
        let uid = getuid().as_raw();
        let host = Host::new();
        host.write("etc/passwd", &format!("root:x:70000:0::/root:/bin/sh\nalice:x:{uid}:{uid}:Alice:/home/alice:/bin/bash\n"));
        host.write("home/alice/.local/share/containers/storage/overlay-containers/containers.json", &podman_list());
        host.write(&format!("home/alice/.local/share/docker/containers/{ID}/config.v2.json"), &docker_file());
        assert_eq!(host.told(Some(Runtime::Podman), Some(uid)), "podman web web:2 - -");
        assert_eq!(host.told(Some(Runtime::Docker), Some(uid)), "docker web nginx:1.27 - -");
        // Root's containers are not his, nor his root's; and nobody else's home is looked at.
        assert_eq!(host.ask(Some(Runtime::Podman), None), Answer::Absent);
        assert_eq!(host.ask(Some(Runtime::Podman), Some(70_001)), Answer::Absent);
        assert_eq!(host.ask(Some(Runtime::CriO), Some(uid)), Answer::Absent);
        let folder = host.path("home/alice/.local/share/containers");
        fs::rename(&folder, host.path("elsewhere")).unwrap();
        symlink("../../../../elsewhere", &folder).unwrap();
        assert!(matches!(host.ask(Some(Runtime::Podman), Some(uid)), Answer::Failed(_)));
        // A transient store is in the user's run folder.
        fs::remove_file(&folder).unwrap();
        host.write(&format!("run/user/{uid}/containers/overlay-containers/volatile-containers.json"), &podman_list());
        assert_eq!(host.told(Some(Runtime::Podman), Some(uid)), "podman web web:2 - -");
    }

    #[test]
    fn homes_are_read_from_passwd() {
        let passwd = b"a:x:1:1::/:/x\nb:x:2:2:C:/home/b:/x\nc:x:2:2::/home/c:/x\nd:x:3:3::relative:/x\ne:x:4\n\xff:x:5:5::/home/e:/x";
        assert_eq!(
            [1, 2, 3, 4, 5, 6].map(|uid| home_in(passwd, uid)),
            [None, Some("/home/b".into()), None, None, Some("/home/e".into()), None]
        );
    }

    #[test]
    fn the_thread_answers_and_ends() {
        if !getuid().is_root() {
            // It believes uid 0 only.
            return;
        }
        let host = Host::new();
        host.write(&docker_path(), &docker_file());
        let lookups = Lookups::start(host.0.path()).unwrap();
        let request = Request { id: ID.into(), runtime: Some(Runtime::Docker), user: None };
        lookups.send(request.clone()).unwrap();
        let begun = Instant::now();
        let (asked, answer) = loop {
            assert!(begun.elapsed() < Duration::from_secs(60), "no answer");
            match lookups.answers().next() {
                Some(answered) => break answered,
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        assert_eq!(asked, request);
        assert!(matches!(answer, Answer::Found(Runtime::Docker, Metadata { name: Some(name), .. }) if name == "web"));
        assert!(Lookups::start(Path::new("/nonexistent")).is_err());
    }
}
