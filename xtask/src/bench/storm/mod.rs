//! The generators: storms of one kind of work, in a process of their own that measures itself.

mod connect;
mod exec;
mod login;
mod open;
mod shell;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;

pub(super) use open::WATCHED;

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Storm {
    /// A program is started and waited for.
    Exec,
    /// A TCP connection over loopback is opened, accepted and closed.
    Connect,
    /// A TCP connection to a loopback port on which nobody listens.
    Refused,
    /// A file is opened for writing and closed, at a steady rate.
    Open,
    /// A file that nobody watches is opened for reading and closed.
    Read,
    /// A system call that nobody watches.
    Syscall,
    /// `su` runs a program as another user: one PAM transaction with a session.
    Login,
    /// A shell runs a pipeline of three programs; no two command lines are alike for long.
    Shell,
}

impl Storm {
    /// Those that are measured, in that order. Pipelines are for recordings: what they cost is their own work.
    pub(crate) const ALL: [Self; 7] = [Self::Exec, Self::Connect, Self::Refused, Self::Open, Self::Read, Self::Syscall, Self::Login];

    /// Those of which every build of the sensor makes events, so that what was done can be held against what was received.
    pub(crate) const TOLD: [Self; 4] = [Self::Exec, Self::Connect, Self::Refused, Self::Login];

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Connect => "connect",
            Self::Refused => "refused",
            Self::Open => "open",
            Self::Read => "read",
            Self::Syscall => "syscall",
            Self::Login => "login",
            Self::Shell => "shell",
        }
    }

    /// What one operation is, in words.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Exec => "`posix_spawn` of `/bin/true`, waited for",
            Self::Connect => "TCP connect to a loopback listener, accept, close of both ends",
            Self::Refused => "TCP connect to a closed loopback port",
            Self::Open => "open of a file for writing and close, 200,000 a second in all",
            Self::Read => "open of a file for reading that nobody watches, and close",
            Self::Syscall => "`getppid`, which nobody watches",
            Self::Login => "`su -s /bin/true nobody` as root: PAM start, authenticate (`pam_rootok`), account, session, end",
            Self::Shell => "`sh -c 'ls -l FILE | cut | grep'`, another FILE each time",
        }
    }

    /// Operations of one measurement: some seconds of work, so that the clock's and the scheduler's steps do not show.
    pub(crate) fn operations(self) -> u64 {
        match self {
            Self::Exec => 6_000,
            Self::Connect => 60_000,
            Self::Refused => 100_000,
            Self::Open => 600_000,
            Self::Read => 1_000_000,
            Self::Syscall => 10_000_000,
            Self::Login => 800,
            Self::Shell => 2_000,
        }
    }

    /// Operations a second that all threads together do not exceed; `None`: as many as they can. Without a limit, opens would come faster
    /// than any sensor is asked to follow.
    pub(crate) fn rate(self) -> Option<u64> {
        match self {
            Self::Open => Some(200_000),
            Self::Exec | Self::Connect | Self::Refused | Self::Read | Self::Syscall | Self::Login | Self::Shell => None,
        }
    }

    /// The kind of event that every operation makes, and how many of it at least; `None` where there should be none.
    pub(crate) fn event(self) -> Option<(&'static str, u64)> {
        match self {
            Self::Exec => Some(("process.exec", 1)),
            Self::Connect | Self::Refused => Some(("network.connect", 1)),
            Self::Open => Some(("file.open", 1)),
            Self::Read | Self::Syscall => None,
            // su, and the program that it runs.
            Self::Login => Some(("process.exec", 2)),
            // The shell and its three programs.
            Self::Shell => Some(("process.exec", 4)),
        }
    }

    /// Does `operations` on `threads` threads, with its files below `folder`.
    ///
    /// # Errors
    /// An operation failed: a storm that does less than it counts would be measured too fast.
    pub(crate) fn run(self, operations: u64, threads: u64, folder: &Path) -> Result<Ran> {
        let measured = |operations, threads, each: &(dyn Fn(u64, u64) -> Result<()> + Sync)| {
            measured(operations, threads, self.rate().map(|rate| Pace { rate: (rate / threads).max(1) }), each)
        };
        match self {
            Self::Exec => measured(operations, threads, &exec::each),
            Self::Connect => {
                let ground = connect::Listeners::new(threads)?;
                measured(operations, threads, &|thread, index| ground.each(thread, index))
            }
            Self::Refused => {
                let closed = connect::Closed::new()?;
                measured(operations, threads, &|_, _| connect::refused(closed.address))
            }
            Self::Open | Self::Read => {
                let files = open::Files::make(folder, threads, self == Self::Open)?;
                measured(operations, threads, &|thread, _| files.each(thread))
            }
            Self::Syscall => measured(operations, threads, &|_, _| {
                std::hint::black_box(nix::unistd::getppid());
                Ok(())
            }),
            Self::Login => {
                let su = login::Su::find()?;
                measured(operations, threads, &|_, _| su.each())
            }
            Self::Shell => {
                let shells = shell::Shells::new()?;
                measured(operations, threads, &|_, index| shells.each(index))
            }
        }
    }
}

/// What a storm did and took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Operations done.
    pub(crate) operations: u64,
    /// From the first to the last.
    pub(crate) wall: Duration,
    /// User and system time of the process and of the children that it waited for.
    pub(crate) cpu: Duration,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, wall, cpu } = self;
        write!(f, "{operations} {} {}", wall.as_nanos(), cpu.as_nanos())
    }
}

impl FromStr for Ran {
    type Err = anyhow::Error;

    /// Reads what `Display` wrote: operations, wall and CPU time in nanoseconds.
    fn from_str(text: &str) -> Result<Self> {
        let numbers: Option<Vec<u64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
        match numbers.as_deref() {
            Some([operations, wall, cpu]) => {
                Ok(Self { operations: *operations, wall: Duration::from_nanos(*wall), cpu: Duration::from_nanos(*cpu) })
            }
            _ => bail!("the storm said {text:?} in place of three numbers: its own message is above"),
        }
    }
}

/// A limit of one thread's operations.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Operations a second.
    rate: u64,
}

impl Pace {
    /// Operations between two looks at the clock.
    const BATCH: u64 = 64;
    /// The scheduler does not wake a thread earlier than this anyway.
    const SHORTEST: Duration = Duration::from_micros(100);

    /// How long a thread must wait that has done so much in `elapsed`.
    fn ahead(self, done: u64, elapsed: Duration) -> Duration {
        let due = Duration::from_nanos(done.saturating_mul(1_000_000_000) / self.rate);
        due.saturating_sub(elapsed)
    }

    /// Sleeps when it is time to look and the thread is ahead.
    fn keep(self, done: u64, began: Instant) {
        if done.is_multiple_of(Self::BATCH) {
            let ahead = self.ahead(done, began.elapsed());
            if ahead >= Self::SHORTEST {
                std::thread::sleep(ahead);
            }
        }
    }
}

/// Calls `each` with the thread's number and the operation's, `operations` times in all and no faster than `pace`, and measures.
fn measured(operations: u64, threads: u64, pace: Option<Pace>, each: &(dyn Fn(u64, u64) -> Result<()> + Sync)) -> Result<Ran> {
    let (before, began) = (cpu()?, Instant::now());
    let done: Result<()> = std::thread::scope(|scope| {
        let spawn = |thread| {
            scope.spawn(move || {
                (thread..operations).step_by(threads as usize).zip(1_u64..).try_for_each(|(index, done)| {
                    each(thread, index)?;
                    if let Some(pace) = pace {
                        pace.keep(done, began);
                    }
                    Ok(())
                })
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread of the storm panicked")))
    });
    let wall = began.elapsed();
    done?;
    Ok(Ran { operations, wall, cpu: cpu()?.saturating_sub(before) })
}

/// Processor time so far, of this process and of the children that it has waited for.
fn cpu() -> Result<Duration> {
    let of = |who| getrusage(who).map(total).context("getrusage failed");
    Ok(of(UsageWho::RUSAGE_SELF)? + of(UsageWho::RUSAGE_CHILDREN)?)
}

fn total(usage: Usage) -> Duration {
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(microseconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_operation_is_done_once() -> Result<()> {
        let seen = std::sync::Mutex::new(Vec::new());
        let ran = measured(10, 3, None, &|thread, index| {
            assert_eq!(index % 3, thread);
            seen.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.push(index);
            Ok(())
        })?;
        let mut seen = seen.into_inner().unwrap_or_default();
        seen.sort_unstable();
        assert_eq!((ran.operations, seen), (10, (0..10).collect()));
        Ok(())
    }

    #[test]
    fn one_failure_fails_the_storm() {
        let failed = measured(10, 2, None, &|_, index| if index == 7 { bail!("seven") } else { Ok(()) });
        assert!(failed.is_err_and(|error| error.to_string() == "seven"));
    }

    #[test]
    fn childrens_time_counts() -> Result<()> {
        let before = cpu()?;
        let done = std::process::Command::new("sh").args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]).status()?;
        assert!(done.success() && cpu()? > before);
        Ok(())
    }

    #[test]
    fn the_storms_that_need_no_root_run_here() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let storms = Storm::ALL.into_iter().chain([Storm::Shell]).filter(|storm| *storm != Storm::Login);
        for storm in storms {
            assert_eq!(storm.run(40, 2, folder.path())?.operations, 40, "{storm:?}");
        }
        Ok(())
    }

    #[test]
    fn who_is_ahead_of_the_pace_waits_for_it() {
        let pace = Pace { rate: 1000 };
        assert_eq!(pace.ahead(64, Duration::from_millis(60)), Duration::from_millis(4));
        assert_eq!(pace.ahead(64, Duration::from_millis(64)), Duration::ZERO);
        assert_eq!(pace.ahead(64, Duration::from_secs(9)), Duration::ZERO, "who is late does not wait");
    }

    proptest! {
        #[test]
        fn what_a_storm_says_is_read_back(operations in any::<u64>(), wall in any::<u64>(), cpu in any::<u64>()) {
            let ran = Ran { operations, wall: Duration::from_nanos(wall), cpu: Duration::from_nanos(cpu) };
            prop_assert_eq!(ran.to_string().parse::<Ran>().ok(), Some(ran));
        }

        #[test]
        fn any_other_words_are_an_error(text in "[a-z0-9 ]{0,20}") {
            let numbers = text.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).count();
            prop_assert!(text.parse::<Ran>().is_err() || (numbers == 3 && text.split_whitespace().count() == 3));
        }
    }
}
