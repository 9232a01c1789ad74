//! `process.exec`, done and failed.

use bartizan_bus::event::{Errno, ProcessNamespaces};
use bartizan_sensor_ebpf::abi::{
    self, Bytes, EXE_ALONE, EXE_INTERPRETER_TRUNCATED, EXE_UPPER, Exec, ExecFailed, FLAG_ARGV_TRUNCATED, FLAG_CWD_TRUNCATED,
    FLAG_EXE_TRUNCATED, FLAG_NAME_TRUNCATED, Fd, Header,
};

use super::{Environment, ExeInode, Image, What, fd, text};

pub(super) fn project(record: &Exec, bytes: Bytes<'_>) -> What {
    let Exec { header, image: fixed, stdio, relay, requested, argv, interpreter, environment, environment_end, environment_len } = record;
    let mut image = image(header, fixed, stdio, relay, bytes);
    image.argv = text::argv(bytes.get(*argv));
    image.argv_truncated = header.flags & FLAG_ARGV_TRUNCATED != 0;
    What::Exec {
        image: Box::new(image),
        requested: text::string(bytes.get(*requested)),
        requested_truncated: header.flags & FLAG_NAME_TRUNCATED != 0,
        interpreter: text::string(bytes.get(*interpreter)),
        interpreter_truncated: fixed.exe_flags & EXE_INTERPRETER_TRUNCATED != 0,
        environment: Environment {
            head: bytes.get(*environment).unwrap_or_default().to_vec(),
            end: bytes.get(*environment_end).unwrap_or_default().to_vec(),
            len: *environment_len,
        },
    }
}

pub(super) fn project_failed(record: &ExecFailed, bytes: Bytes<'_>) -> What {
    let ExecFailed { header, error, requested, name: _ } = record;
    What::ExecFailed {
        requested: text::string(bytes.get(*requested)),
        requested_truncated: header.flags & FLAG_NAME_TRUNCATED != 0,
        error: Errno(*error as i32),
    }
}

/// The part that exec and seed records share.
pub(super) fn image(header: &Header, image: &abi::Image, stdio: &[Fd], relay: &abi::Relay, bytes: Bytes<'_>) -> Image {
    let set = |id: u32| (id != u32::MAX).then_some(id);
    let namespace = |inode: u32| (inode != 0).then_some(inode);
    let has_exe = image.exe_inode != 0;
    Image {
        name: text::name(&image.comm),
        exe: has_exe.then(|| text::path(bytes.get(image.exe), header.flags & FLAG_EXE_TRUNCATED != 0)).flatten(),
        exe_truncated: header.flags & FLAG_EXE_TRUNCATED != 0,
        exe_file: has_exe.then_some(ExeInode {
            inode: image.exe_inode,
            device: image.exe_device,
            mode: image.exe_mode,
            owner: image.exe_owner,
            nlink: image.exe_nlink,
            size: image.exe_size,
            changed: (image.exe_ctime_sec.cast_signed(), image.exe_ctime_nsec),
            magic: image.exe_magic,
            upper: image.exe_flags & EXE_UPPER != 0,
            alone: image.exe_flags & EXE_ALONE != 0,
        }),
        argv: Vec::new(),
        argv_truncated: false,
        cwd: text::path(bytes.get(image.cwd), header.flags & FLAG_CWD_TRUNCATED != 0),
        cgroup: text::path(bytes.get(image.cgroup), false),
        gid: image.gid,
        loginuid: set(image.loginuid),
        audit_session: set(image.audit_session),
        sid: image.sid,
        tty: text::tty(&image.tty),
        cap_effective: image.cap_effective,
        mnt_ns: image.mnt_ns,
        pid_ns: image.pid_ns,
        namespaces: ProcessNamespaces {
            cgroup: namespace(image.cgroup_ns),
            ipc: namespace(image.ipc_ns),
            net: namespace(image.net_ns),
            time: namespace(image.time_ns),
            user: namespace(image.user_ns),
            uts: namespace(image.uts_ns),
        },
        parent_start_boottime: image.parent_start_boottime,
        parent_exec_id: image.parent_exec_id,
        stdio: fd::stdio(stdio),
        relay: fd::relay(relay, header.flags),
        sockets: Vec::new(),
    }
}
