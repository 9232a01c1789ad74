//! Churn: processes that come and go in masses, in ways that mix up a table that is kept by pid. Fork bombs within a limit, short-lived
//! containers, and pids that are given out again at once. Every program has a token in its arguments and says, before it runs, who it is; what
//! the sensor tells of the token must be that process, its parent and nobody else. Tables stay bounded, and memory does not grow.
//!
//! `cargo xtask soak` runs it for longer: `BARTIZAN_CHURN_MINUTES`.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use bartizan_tests::{Sensor, wait_until};
use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::pipe2;
use serde_json::{Value, json};

/// Minutes that the long form takes.
const MINUTES: &str = "BARTIZAN_CHURN_MINUTES";

/// Small tables, so that the first rounds fill them and later ones have to make room. Half of `process_table` is for processes that ended.
const CONFIG: &str = "[sensor]\nprocess_table = 2048\n[streams.events]\nmax_bytes = \"64 MiB\"\n[detectors]\nmax_processes = 1024\n\
                      [detectors.runtime_watcher.reverse_shell]\nmax_processes = 1024\n";
const ENDED_KEPT: u64 = 1024;
/// Processes of others that may come meanwhile.
const OTHERS: u64 = 400;

/// Levels of a fork bomb below its root: 2^7 - 1 = 127 processes, all alive at once at its end.
const LEVELS: u32 = 6;
/// Containers in a round, and processes that are given one pid after the other.
const CONTAINERS: u64 = 4;
const REUSES: u64 = 8;
/// Tokens of a round: leaves of the bomb, two for each container, and both ways to give a pid out again.
const TOKENS: u64 = (1 << LEVELS) + 2 * CONTAINERS + 2 * REUSES;

/// Rounds between two looks at what was told.
const ROUNDS: u64 = 4;
/// Looks before memory is compared, which fill every table; and looks of the short form after them.
const WARM: u64 = 4;
const AFTER: u64 = 4;

/// What memory may grow by after every table is full, bytes: glibc keeps what a look's readers and the writer of a batch needed at once, in an
/// arena for each thread, and gives it back when it likes (3 MiB were seen). A look is 630 processes, so the long form's half hour, some 400,000
/// processes, shows a leak of 64 bytes each; the short form's four looks one of 10 KiB.
const MARGIN: u64 = 24 << 20;

/// Who a process is, as the host's /proc says. Token 0: it runs no program of its own.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Who {
    token: u64,
    pid: u64,
    parent: u64,
    /// Since boot, in ticks of 10 ms.
    start: u64,
}

/// Of the running process, by the host's /proc, which names it by its pid there whatever its own namespace. Without memory of its own.
fn who(token: u64) -> Who {
    let mut bytes = [0_u8; 1024];
    // SAFETY: a buffer of that length; a failed read is an empty text.
    let len = unsafe {
        let fd = libc::open(c"/proc/self/stat".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let len = libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len());
        libc::close(fd);
        len
    };
    let text = std::str::from_utf8(&bytes[..usize::try_from(len).unwrap_or(0)]).unwrap_or("");
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    // The name, in parentheses, may hold anything: proc_pid_stat(5).
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |index| number(rest.split_ascii_whitespace().nth(index));
    Who { token, pid: number(text.split(' ').next()), parent: field(1), start: field(19) }
}

/// Says who the running process is.
fn say(to: RawFd, token: u64) {
    let who = who(token);
    // SAFETY: as long as is said; a pipe takes so few bytes at once.
    unsafe { libc::write(to, (&raw const who).cast(), size_of::<Who>()) };
}

fn end(code: i32) -> ! {
    // SAFETY: ends this process without running what belongs to the parent.
    unsafe { libc::_exit(code) }
}

/// Says who it is, and runs the program of its token.
fn run(to: RawFd, token: u64) -> ! {
    say(to, token);
    let text = text(token);
    let argv = [c"/bin/true".as_ptr(), text.as_ptr().cast(), std::ptr::null()];
    // SAFETY: all are NUL-terminated, and the list is.
    unsafe { libc::execv(argv[0], argv.as_ptr()) };
    end(127)
}

/// `churn-` and sixteen digits, with a NUL.
fn text(token: u64) -> [u8; 23] {
    let mut text = *b"churn-0000000000000000\0";
    for (place, byte) in text[6..22].iter_mut().enumerate() {
        *byte = b"0123456789abcdef"[(token >> (60 - 4 * place) & 15) as usize];
    }
    text
}

/// A child that does `act`, which must end; its pid here. `pid`: which one it gets, in the namespace of the caller.
fn child(pid: Option<i32>, act: impl FnOnce()) -> i32 {
    let wanted = [pid.unwrap_or(0)];
    // include/uapi/linux/sched.h, `struct clone_args`: exit_signal is the fifth word, set_tid and its size the ninth and tenth.
    let mut args = [0_u64; 11];
    args[4] = libc::SIGCHLD as u64;
    if pid.is_some() {
        (args[8], args[9]) = (wanted.as_ptr() as u64, 1);
    }
    // SAFETY: as fork(2) does it; the child makes system calls only.
    let made = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    if made == 0 {
        act();
        end(0);
    }
    made as i32
}

/// Whether the child ended well.
fn ended_well(pid: i32) -> bool {
    let mut status = -1;
    // SAFETY: room for one status.
    pid > 0 && unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid && status == 0
}

/// Two children of each process, down to the last level, whose processes run programs. Everyone waits for its own.
fn bomb(to: RawFd, level: u32, token: u64) {
    say(to, 0);
    let children = [0, 1].map(|side| {
        let token = token + (side << (level - 1));
        child(None, || if level == 1 { run(to, token) } else { bomb(to, level - 1, token) })
    });
    let well = children.map(ended_well);
    end(i32::from(well != [true, true]));
}

/// A container: an init that has a program run, and then runs one itself.
fn container(to: RawFd, token: u64) {
    say(to, 0);
    let apart = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWUTS;
    // SAFETY: the name is as long as is said.
    let is_apart = unsafe { libc::unshare(apart) == 0 && libc::sethostname(c"churn".as_ptr(), 5) == 0 };
    let init = child(None, || {
        if std::process::id() != 1 || !ended_well(child(None, || run(to, token))) {
            end(1);
        }
        run(to, token + 1);
    });
    end(i32::from(!is_apart || !ended_well(init)));
}

/// Writes the pid that was given out last in the caller's namespace.
fn last_pid(text: &CStr) -> bool {
    // SAFETY: the text is as long as is said.
    unsafe {
        let fd = libc::open(c"/proc/sys/kernel/ns_last_pid".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        let len = text.count_bytes();
        let written = libc::write(fd, text.as_ptr().cast(), len);
        libc::close(fd);
        written == len as isize
    }
}

/// Programs that all have pid 100 in a namespace of their own.
fn same_inside(to: RawFd, token: u64) {
    say(to, 0);
    // SAFETY: numbers only.
    let is_apart = unsafe { libc::unshare(libc::CLONE_NEWPID) } == 0;
    let init = child(None, || {
        say(to, 0);
        let well = (0..REUSES).all(|index| {
            let next = || if std::process::id() == 100 { run(to, token + index) } else { end(2) };
            last_pid(c"99") && ended_well(child(None, next))
        });
        end(i32::from(!well));
    });
    end(i32::from(!is_apart || !ended_well(init)));
}

/// What processes said, and what was asked of the sensor.
struct Churn {
    sensor: Sensor,
    next: u64,
    /// Everybody of this batch, and this process.
    said: Vec<Who>,
    begun: Instant,
    done: u64,
    told: u64,
}

impl Churn {
    fn start() -> Self {
        let sensor = Sensor::with().config(CONFIG).start();
        Self { sensor, next: 1, said: Vec::new(), begun: Instant::now(), done: 0, told: 0 }
    }

    /// A pipe on which processes say who they are, and what came out of it when all of them have ended.
    #[track_caller]
    fn listen(&mut self, act: impl FnOnce(RawFd)) {
        let (from, to): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        act(to.as_raw_fd());
        drop(to);
        let mut bytes = Vec::new();
        File::from(from).read_to_end(&mut bytes).expect("what was said");
        let words: Vec<u64> = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes"))).collect();
        self.said.extend(words.chunks_exact(4).map(|who| Who { token: who[0], pid: who[1], parent: who[2], start: who[3] }));
    }

    /// One round of everything.
    #[track_caller]
    fn round(&mut self) {
        let next = Cell::new(self.next);
        let take = |count| next.replace(next.get() + count);
        let leaves = take(1 << LEVELS);
        self.listen(|to| assert!(ended_well(child(None, || bomb(to, LEVELS, leaves))), "the fork bomb"));
        for _ in 0..CONTAINERS {
            let tokens = take(2);
            self.listen(|to| assert!(ended_well(child(None, || container(to, tokens))), "the container"));
        }
        let inside = take(REUSES);
        self.listen(|to| assert!(ended_well(child(None, || same_inside(to, inside))), "one pid in a namespace"));
        let outside = take(REUSES);
        self.listen(|to| same_here(to, outside));
        self.next = next.get();
    }

    /// Rounds, and then what was told of them. Returns the sensor's memory, bytes.
    #[track_caller]
    fn batch(&mut self) -> u64 {
        (self.begun, self.said) = (Instant::now(), vec![who(0)]);
        let first = self.next;
        (0..ROUNDS).for_each(|_| self.round());
        assert_eq!(self.next - first, ROUNDS * TOKENS);
        self.sensor.settle();
        let status = self.sensor.status_json();
        self.judge(&status);
        let table = &status["process_table"];
        assert!(table["entries"].as_u64() <= table["max"].as_u64() && table["evicted"] == 0, "{table:#}");
        assert!(status["containers"]["entries"].as_u64() <= status["containers"]["max"].as_u64(), "{:#}", status["containers"]);
        status["self_usage"]["rss_bytes"].as_u64().expect("its memory")
    }

    /// Events of a kind that are about tokens, by token, since the batch began.
    #[track_caller]
    fn events(&self, kind: &str) -> HashMap<String, Value> {
        let since = format!("{}s", self.begun.elapsed().as_secs() + 2);
        let mut events = HashMap::new();
        for event in self.sensor.events_json(&["--kind", kind, "--since", &since]) {
            let token = event["process"]["argv"][1].as_str().filter(|token| token.starts_with("churn-")).map(str::to_owned);
            // One of the batch before, which ended just now.
            let Some(token) = token.filter(|token| self.said.iter().any(|who| is_text(who.token, token))) else { continue };
            if let Some(other) = events.insert(token, event.clone()) {
                panic!("two {kind} of one token: {other:#} {event:#}");
            }
        }
        events
    }

    /// Whether what was told of each token is what its process said.
    #[track_caller]
    fn judge(&mut self, status: &Value) {
        let (execs, exits) = (self.events("process.exec"), self.events("process.exit"));
        let known: HashSet<(u64, u64)> = self.said.iter().map(|who| (who.pid, who.start)).collect();
        let mut ids = HashSet::new();
        for who in self.said.iter().filter(|who| who.token != 0) {
            assert!(who.pid != 0 && who.start != 0, "it could not say who it is: {who:?}");
            self.done += 1;
            let text = text(who.token);
            let token = std::str::from_utf8(&text[..22]).expect("digits");
            let Some(exec) = execs.get(token) else { continue };
            self.told += 1;
            let process = &exec["process"];
            let expected = json!([["/bin/true", token], who.pid, who.parent, 0, false]);
            assert_eq!(
                json!([process["argv"], process["pid"], process["ppid"], process["uid"], process["approximate"]]),
                expected,
                "{exec:#}"
            );
            assert_eq!(image(&process["exec_id"]), (who.pid, who.start), "{who:?}: {exec:#}");
            let parent = image(&process["parent"]);
            assert!(parent.0 == who.parent && known.contains(&parent), "{who:?} has another parent: {exec:#}");
            assert!(ids.insert(process["exec_id"].clone()), "two processes of one name: {exec:#}");
            if let Some(exit) = exits.get(token) {
                let of = |event: &Value| json!([event["process"]["exec_id"], event["process"]["parent"], event["process"]["pid"]]);
                assert_eq!(of(exit), of(exec), "{exit:#}");
                assert_eq!(exit["body"]["code"], 0, "{exit:#}");
            }
        }
        let lost = lost(status);
        assert!(self.done <= self.told + lost, "{} programs ran, {} were told and {lost} counted as lost", self.done, self.told);
        let missing = execs.keys().filter(|token| !exits.contains_key(*token)).count() as u64;
        assert!(missing <= lost, "{missing} ends were not told and {lost} records counted as lost");
    }
}

/// Programs that all have one pid of this machine, one after the other.
#[track_caller]
fn same_here(to: RawFd, token: u64) {
    let mut pid = None;
    let mut index = 0;
    // Somebody else may get the pid in between: then another one is taken.
    for _ in 0..REUSES * 8 {
        let next = child(pid, || run(to, token + index));
        if next < 0 {
            pid = None;
            continue;
        }
        assert!(pid.is_none_or(|pid| pid == next) && ended_well(next), "program {index} with pid {next}");
        pid = Some(next);
        index += 1;
        if index == REUSES {
            return;
        }
    }
    panic!("a pid could be given out again {index} times only");
}

fn is_text(token: u64, text: &str) -> bool {
    token != 0 && self::text(token)[..22] == *text.as_bytes()
}

/// Pid and start, in ticks, of `BOOT-START-PID-EXEC`.
#[track_caller]
fn image(exec_id: &Value) -> (u64, u64) {
    let parts: Vec<&str> = exec_id.as_str().unwrap_or_default().split('-').collect();
    let [_, start, pid, _] = parts.as_slice() else { panic!("no exec id: {exec_id}") };
    (pid.parse().expect("a pid"), u64::from_str_radix(start, 16).expect("a start") / 10_000_000)
}

/// What the sensor counts as lost of execs and exits, with the runs of their programs that the kernel skipped.
fn lost(status: &Value) -> u64 {
    const OF: [&str; 4] = ["process.exec", "process.exit", "sched_process_exec", "sched_process_exit"];
    let rows = status["kinds"].as_array().into_iter().flatten().filter(|row| OF.iter().any(|name| row["kind"] == *name));
    rows.filter_map(|row| row["lost"].as_object()).flat_map(|lost| lost.values().filter_map(Value::as_u64)).sum()
}

#[test]
fn through_churn_nobody_is_mixed_up_and_nothing_grows() {
    let minutes: Option<u64> = std::env::var(MINUTES).ok().map(|text| text.parse().expect("whole minutes"));
    let mut churn = Churn::start();
    let entries = |churn: &Churn| churn.sensor.status_json()["process_table"]["entries"].as_u64().expect("a number");
    let begin = entries(&churn);
    let began = Instant::now();
    let warm = (0..WARM).map(|_| churn.batch()).max().expect("some");
    let (mut looks, mut now) = (0, 0);
    while looks < AFTER || minutes.is_some_and(|minutes| began.elapsed() < Duration::from_secs(minutes * 60)) {
        now = churn.batch();
        looks += 1;
        if minutes.is_some() {
            println!("after {} s: {} programs, {} told, {} KiB", began.elapsed().as_secs(), churn.done, churn.told, now >> 10);
        }
    }
    let lost = lost(&churn.sensor.status_json());
    println!("{} programs, {} told, {lost} lost; memory {} KiB, then {} KiB", churn.done, churn.told, warm >> 10, now >> 10);
    assert!(now <= warm + MARGIN, "memory grew from {warm} to {now} bytes");
    wait_until("a process table as at the beginning", || entries(&churn) <= begin + ENDED_KEPT + OTHERS);
}
