//! bpf(2) by hand: small programs as somebody else than Bartizan would load them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;

/// `enum bpf_cmd`, include/uapi/linux/bpf.h.
pub const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const PROG_DETACH: u32 = 9;
const RAW_TRACEPOINT_OPEN: u32 = 17;
const LINK_CREATE: u32 = 28;
/// `enum bpf_prog_type`: what is attached to tracepoints by their text form, as those of system calls are.
const PROG_TYPE_TRACEPOINT: u32 = 5;

/// `r0 = value; exit`.
pub fn returns(value: i32) -> [u64; 2] {
    [0xb7 | u64::from(value.cast_unsigned()) << 32, 0x95]
}

/// The attributes of `BPF_PROG_LOAD`, of as many bytes as are used: type, count and address of the instructions, licence, name, and what
/// it is for.
pub fn load_attributes(program_type: u32, attach_type: u32, (code, count): (u64, u32), licence: u64, name: &str) -> [u64; 9] {
    let mut text = [0_u8; 16];
    text[..name.len()].copy_from_slice(name.as_bytes());
    let word = |half: usize| u64::from_le_bytes(text[half * 8..half * 8 + 8].try_into().expect("eight bytes"));
    let halves = u64::from(program_type) | u64::from(count) << 32;
    // log_level, log_size, log_buf; kern_version, prog_flags; name; ifindex, expected_attach_type.
    [halves, code, licence, 0, 0, 0, word(0), word(1), u64::from(attach_type) << 32]
}

fn call(command: u32, attributes: &[u64]) -> io::Result<i32> {
    // SAFETY: the kernel reads so many bytes of the attributes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).expect("a descriptor")) }
}

fn descriptor(result: i32) -> OwnedFd {
    // SAFETY: a new descriptor, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(result) }
}

/// Loads a program.
///
/// # Errors
/// The kernel's.
pub fn load(program_type: u32, attach_type: u32, code: &[u64], name: &str) -> io::Result<OwnedFd> {
    let place = (code.as_ptr().addr() as u64, u32::try_from(code.len()).expect("few"));
    call(PROG_LOAD, &load_attributes(program_type, attach_type, place, c"GPL".as_ptr().addr() as u64, name)).map(descriptor)
}

/// Attaches a program to a cgroup without a link, and takes it off when the result is dropped.
///
/// # Errors
/// The kernel's.
pub fn attach<'a>(cgroup: BorrowedFd<'a>, program: BorrowedFd<'a>, attach_type: u32) -> io::Result<Attached<'a>> {
    let attributes = attributes(cgroup, program, attach_type);
    call(PROG_ATTACH, &attributes).map(|_| Attached { cgroup, program, attach_type })
}

/// A program at a cgroup.
#[derive(Debug)]
pub struct Attached<'a> {
    cgroup: BorrowedFd<'a>,
    program: BorrowedFd<'a>,
    attach_type: u32,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        let _ = call(PROG_DETACH, &attributes(self.cgroup, self.program, self.attach_type));
    }
}

fn attributes(target: BorrowedFd<'_>, program: BorrowedFd<'_>, attach_type: u32) -> [u64; 2] {
    let number = |fd: BorrowedFd<'_>| u64::from(fd.as_raw_fd().cast_unsigned());
    [number(target) | number(program) << 32, u64::from(attach_type)]
}

/// Links a program to a cgroup.
///
/// # Errors
/// The kernel's.
pub fn link(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    call(LINK_CREATE, &attributes(program, cgroup, attach_type)).map(descriptor)
}

/// Puts a program at a tracepoint.
///
/// # Errors
/// The kernel's.
pub fn raw_tracepoint(program: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let attributes = [name.as_ptr().addr() as u64, u64::from(program.as_raw_fd().cast_unsigned())];
    call(RAW_TRACEPOINT_OPEN, &attributes).map(descriptor)
}

/// Number of the program that is behind a descriptor, as `/proc` tells it.
///
/// # Panics
/// It is none.
#[track_caller]
pub fn id(program: BorrowedFd<'_>) -> u64 {
    told(program, "prog_id:").parse().expect("a number")
}

/// Its hash, likewise.
///
/// # Panics
/// It is none.
#[track_caller]
pub fn tag(program: BorrowedFd<'_>) -> String {
    told(program, "prog_tag:")
}

#[track_caller]
fn told(program: BorrowedFd<'_>, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).expect("an open descriptor");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no program: {text}")).trim().to_owned()
}

/// How many links process `pid` has to tracepoints by their text form, as the kernel says of its descriptors.
///
/// # Panics
/// The process has no descriptors that can be listed.
pub fn tracepoint_links_of(pid: u32) -> usize {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap_or_else(|error| panic!("descriptors of {pid}: {error}"));
    // One that was closed meanwhile is none.
    let texts: Vec<String> = folder.flatten().filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect();
    let field = |text: &str, name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok());
    let is_of_type = |text: &&String| field(text, "prog_type:") == Some(PROG_TYPE_TRACEPOINT);
    let programs: Vec<u32> = texts.iter().filter(is_of_type).filter_map(|text| field(text, "prog_id:")).collect();
    let is_link = |text: &&String| text.contains("link_id:") && field(text, "prog_id:").is_some_and(|id| programs.contains(&id));
    texts.iter().filter(is_link).count()
}
