//! The processes that already run when the sensor comes up.
//!
//! Best: the task iterator, which says what an exec record would have said, exactly. Fallback: /proc, with start times in
//! ticks of 10 ms, marked approximate. Argument vectors come from /proc in both: they lie in other processes' memory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;

use aya::programs::iter::IterLink;
use bartizan_bus::event::{InetSocket, NS_PER_TICK, ProcessNamespaces, Stdio, StdioEnd, Transport};
use bartizan_sensor_ebpf::abi::{ARGV_MAX, DecodeError, Header, Kind, RELAY_SOCKETS};
use procfs::process::{FDTarget, Process as Proc};

use super::devices::kernel_device;
use super::load::{HookReport, HookState};
use super::rings::Aligned;
use crate::project::{ExeInode, Image, Observation, Subject, What, escape_bytes, project};

/// `PF_KTHREAD`, include/linux/sched.h.
const PF_KTHREAD: u32 = 0x0020_0000;

/// Seeds and how they were had.
#[derive(Debug, Default)]
pub struct Seeds {
    /// One a process, parents before children as far as their start times say so.
    pub found: Vec<Found>,
    /// What went wrong on the way, for the log and status.
    pub problem: Option<String>,
}

/// One seed, as it came.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// From the task iterator.
    Iterator {
        /// Its record.
        record: Vec<u8>,
        /// What `/proc/<pid>/cmdline` said, at most one byte more than [`ARGV_MAX`].
        cmdline: Vec<u8>,
    },
    /// From /proc: its id is approximate.
    Proc {
        /// Who it is.
        subject: Subject,
        /// What it runs.
        image: Box<Image>,
    },
}

impl Found {
    /// What is known of the process, and whether its id is approximate.
    ///
    /// # Errors
    /// [`DecodeError`] when the record is none of this ABI.
    pub fn observation(self) -> Result<(Observation, bool), DecodeError> {
        match self {
            Self::Iterator { record, cmdline } => Ok((exact(&record, &cmdline)?, false)),
            Self::Proc { subject, image } => Ok((Observation { kind: Kind::Seed, subject, what: What::Seed(image) }, true)),
        }
    }
}

fn exact(record: &[u8], cmdline: &[u8]) -> Result<Observation, DecodeError> {
    let mut observation = project(Aligned::default().copy(record))?;
    if let What::Seed(image) = &mut observation.what {
        (image.argv, image.argv_truncated) = split_argv(cmdline);
    }
    Ok(observation)
}

/// Whether the operator has not turned seeds off.
pub fn is_active(hooks: &[HookReport]) -> bool {
    hooks.iter().any(|report| report.hook.name == "process_seed" && report.state == HookState::Active)
}

/// Takes the seeds; `now` is the boot clock in nanoseconds.
///
/// /proc is asked for what the iterator did not tell: a 6.18 kernel was seen whose iterator passes over pid 1.
pub fn take(iterator: Option<IterLink>, now: u64) -> Seeds {
    let (mut seeds, problem) = match iterator.map(iterate) {
        Some(Ok(seeds)) => (seeds, None),
        Some(Err(problem)) => (Vec::new(), Some(problem)),
        None => (Vec::new(), None),
    };
    let own = std::process::id();
    let told: HashSet<u32> = seeds.iter().map(|(subject, _)| subject.tgid).chain([own]).collect();
    seeds.extend(from_proc(now, &told));
    seeds.retain(|(subject, _)| subject.tgid != own);
    seeds.sort_by_key(|(subject, _)| (subject.start_boottime, subject.tgid));
    Seeds { found: seeds.into_iter().map(|(_, found)| found).collect(), problem }
}

/// Reads the iterator's file: records back to back.
fn iterate(link: IterLink) -> Result<Vec<(Subject, Found)>, String> {
    let mut file = link.into_file().map_err(|error| format!("the task iterator cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| format!("the task iterator cannot be read: {error}"))?;
    let mut seeds = Vec::new();
    let mut offset = 0;
    while offset + size_of::<Header>() <= bytes.len() {
        let len = u32::from_le_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]]) as usize;
        let Some(slice) = bytes.get(offset..offset + len).filter(|slice| !slice.is_empty()) else {
            return Err(format!("the task iterator's record at byte {offset} is cut off"));
        };
        let subject = exact(slice, &[]).map_err(|error| format!("the task iterator's record at byte {offset}: {error}"))?.subject;
        seeds.push((subject, Found::Iterator { record: slice.to_vec(), cmdline: cmdline(subject.tgid) }));
        offset += len;
    }
    Ok(seeds)
}

/// What /proc gives as the argument vector of a process, as far as it is kept, and a byte more where there is more.
fn cmdline(pid: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(format!("/proc/{pid}/cmdline")) {
        // A process that ends while it is read has no arguments any more.
        let _ = file.take(ARGV_MAX as u64 + 1).read_to_end(&mut bytes);
    }
    bytes
}

/// An argument vector, bounded like that of an exec record, and whether it was cut.
fn split_argv(cmdline: &[u8]) -> (Vec<String>, bool) {
    let truncated = cmdline.len() > ARGV_MAX;
    let bytes = &cmdline[..cmdline.len().min(ARGV_MAX)];
    let body = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    let argv = if body.is_empty() { Vec::new() } else { body.split(|byte| *byte == 0).map(escape_bytes).collect() };
    (argv, truncated)
}

/// Every process that /proc shows, but those that were `told`. One that ends meanwhile is left out: its exit needs no seed.
fn from_proc(now: u64, told: &HashSet<u32>) -> Vec<(Subject, Found)> {
    let Ok(processes) = procfs::process::all_processes() else { return Vec::new() };
    let processes: Vec<Proc> = processes.flatten().collect();
    if processes.iter().all(|proc| told.contains(&(proc.pid() as u32))) {
        return Vec::new();
    }
    let mut sockets: HashMap<u64, HashMap<u64, InetSocket>> = HashMap::new();
    let starts: HashMap<u32, u64> = processes.iter().filter_map(|proc| Some((proc.pid() as u32, proc.stat().ok()?.starttime))).collect();
    let untold = processes.iter().filter(|proc| !told.contains(&(proc.pid() as u32)));
    untold
        .filter_map(|proc| {
            let namespace = fs::metadata(format!("/proc/{}/ns/net", proc.pid())).map_or(0, |metadata| metadata.ino());
            one(proc, now, &starts, sockets.entry(namespace).or_insert_with(|| inet_sockets(proc)))
        })
        .collect()
}

fn one(proc: &Proc, now: u64, starts: &HashMap<u32, u64>, sockets: &HashMap<u64, InetSocket>) -> Option<(Subject, Found)> {
    let stat = proc.stat().ok()?;
    let status = proc.status().ok()?;
    let pid = proc.pid() as u32;
    let ppid = stat.ppid as u32;
    let metadata = fs::metadata(format!("/proc/{pid}/exe")).ok();
    let exe = proc.exe().ok().map(|path| path.to_string_lossy().into_owned());
    let deleted = exe.as_deref().is_some_and(|path| path.ends_with(" (deleted)"));
    let exe = exe.map(|path| path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned());
    let namespace = |name: &str| fs::metadata(format!("/proc/{pid}/ns/{name}")).map_or(0, |metadata| metadata.ino() as u32);
    let other = |name: &str| Some(namespace(name)).filter(|inode| *inode != 0);
    let number = |name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{name}")).ok()?;
        text.trim().parse::<u32>().ok().filter(|id| *id != u32::MAX)
    };
    let (argv, argv_truncated) = split_argv(&cmdline(pid));
    let image = Image {
        name: stat.comm.clone(),
        exe,
        exe_file: metadata.map(|metadata| ExeInode {
            inode: metadata.ino(),
            device: kernel_device(metadata.dev()),
            mode: metadata.mode(),
            owner: metadata.uid(),
            nlink: if deleted { 0 } else { metadata.nlink() as u32 },
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec() as u32),
            // /proc does not say.
            magic: 0,
            upper: false,
            alone: false,
        }),
        argv,
        argv_truncated,
        cwd: proc.cwd().ok().map(|path| path.to_string_lossy().into_owned()),
        cgroup: cgroup(proc),
        gid: status.rgid,
        loginuid: number("loginuid"),
        audit_session: number("sessionid"),
        sid: stat.session as u32,
        tty: terminal(stat.tty_nr),
        cap_effective: status.capeff,
        mnt_ns: namespace("mnt"),
        pid_ns: namespace("pid"),
        namespaces: ProcessNamespaces {
            cgroup: other("cgroup"),
            ipc: other("ipc"),
            net: other("net"),
            time: other("time"),
            user: other("user"),
            uts: other("uts"),
        },
        parent_start_boottime: starts.get(&ppid).map_or(0, |ticks| ticks * NS_PER_TICK),
        stdio: stdio(proc, sockets),
        sockets: own_sockets(proc, sockets),
        ..Image::default()
    };
    let subject = Subject {
        ktime: now,
        cpu: u16::MAX,
        seq: pid,
        tgid: pid,
        tid: pid,
        start_boottime: stat.starttime * NS_PER_TICK,
        exec_id: 0,
        uid: status.ruid,
        euid: status.euid,
        ppid,
        cgroup_id: 0,
        kernel_thread: stat.flags & PF_KTHREAD != 0,
    };
    Some((subject, Found::Proc { subject, image: Box::new(image) }))
}

fn cgroup(proc: &Proc) -> Option<String> {
    let groups = proc.cgroups().ok()?.0;
    let unified = groups.iter().find(|group| group.hierarchy == 0).map(|group| group.pathname.clone());
    let first = groups.iter().find(|group| group.hierarchy != 0 && group.pathname != "/").map(|group| group.pathname.clone());
    match unified {
        Some(path) if path != "/" => Some(path),
        other => first.or(other),
    }
}

/// Name of a controlling terminal from its device number (`man 5 proc`: minor in bits 31-20 and 7-0, major in 15-8).
fn terminal(tty_nr: i32) -> Option<String> {
    let device = tty_nr as u32;
    let (major, minor) = ((device >> 8) & 0xff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        136..=143 => Some(format!("pts/{}", (major - 136) * 256 + minor)),
        4 if minor < 64 => Some(format!("tty{minor}")),
        4 => Some(format!("ttyS{}", minor - 64)),
        _ => None,
    }
}

fn stdio(proc: &Proc, sockets: &HashMap<u64, InetSocket>) -> Vec<Stdio> {
    (0..3_u8)
        .map(|number| {
            let end = match proc.fd_from_fd(i32::from(number)).map(|info| info.target) {
                Err(_) => StdioEnd::Closed,
                // A socket of another family is not looked up: not known is better than guessed.
                Ok(FDTarget::Socket(inode)) => sockets.get(&inode).map_or(StdioEnd::Other, |socket| StdioEnd::Inet { socket: *socket }),
                Ok(FDTarget::Pipe(inode)) => StdioEnd::Pipe { inode },
                Ok(FDTarget::Path(path)) => match path.strip_prefix("/dev") {
                    Ok(name) if name.starts_with("pts") || name.to_string_lossy().starts_with("tty") => {
                        StdioEnd::Tty { name: name.to_string_lossy().into_owned() }
                    }
                    // Through the descriptor: the path may mean another file in the process's mount namespace.
                    _ => fs::metadata(format!("/proc/{}/fd/{number}", proc.pid())).map_or(StdioEnd::Other, |metadata| {
                        if metadata.rdev() != 0 {
                            StdioEnd::Device { device: kernel_device(metadata.rdev()) }
                        } else {
                            StdioEnd::File { inode: metadata.ino() }
                        }
                    }),
                },
                Ok(_) => StdioEnd::Other,
            };
            Stdio { fd: number, end }
        })
        .collect()
}

/// Connected INET sockets that the process holds, as many as an iterator record has room for.
fn own_sockets(proc: &Proc, sockets: &HashMap<u64, InetSocket>) -> Vec<InetSocket> {
    let Ok(fds) = proc.fd() else { return Vec::new() };
    let inodes: BTreeSet<u64> = fds
        .flatten()
        .filter_map(|fd| match fd.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect();
    inodes.iter().filter_map(|inode| sockets.get(inode)).filter(|socket| socket.connected).take(RELAY_SOCKETS).copied().collect()
}

/// INET sockets of the process's network namespace, by inode.
fn inet_sockets(proc: &Proc) -> HashMap<u64, InetSocket> {
    let plain = |address: std::net::SocketAddr| (address.ip().to_canonical(), address.port());
    let socket = |transport, local, remote, connected, inode| {
        let ((local_ip, local_port), (peer_ip, peer_port)): ((IpAddr, u16), (IpAddr, u16)) = (plain(local), plain(remote));
        let known = |ip: IpAddr, port: u16| (!ip.is_unspecified() || port != 0).then_some(ip);
        InetSocket {
            transport,
            local_ip: known(local_ip, local_port),
            local_port: (local_port != 0).then_some(local_port),
            peer_ip: known(peer_ip, peer_port),
            peer_port: (peer_port != 0).then_some(peer_port),
            connected,
            inode: Some(inode),
        }
    };
    let tcp = [proc.tcp(), proc.tcp6()].into_iter().flatten().flatten().map(|entry| {
        use procfs::net::TcpState::{CloseWait, Established};
        let connected = matches!(entry.state, Established | CloseWait);
        (entry.inode, socket(Transport::Tcp, entry.local_address, entry.remote_address, connected, entry.inode))
    });
    let udp = [proc.udp(), proc.udp6()].into_iter().flatten().flatten().map(|entry| {
        let connected = matches!(entry.state, procfs::net::UdpState::Established);
        (entry.inode, socket(Transport::Udp, entry.local_address, entry.remote_address, connected, entry.inode))
    });
    tcp.chain(udp).collect()
}
