//! A child whose output is shown as it comes and read at the same time.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::command;

/// How often a silent child is looked after.
const LOOK: Duration = Duration::from_millis(50);
/// Time for the last output of a child that ended: its own children may hold the pipe for ever.
const DRAIN: Duration = Duration::from_secs(2);
/// Time for a child to end by itself after the sink has seen enough.
const GRACE: Duration = Duration::from_secs(15);
/// Pieces of output under way between the reader and us: the child waits when they are full.
const IN_FLIGHT: usize = 64;

/// Why the stream ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The child ended by itself.
    Exited(ExitStatus),
    /// The sink had seen enough and the child, given some seconds, had to be killed.
    Stopped,
    /// The deadline passed and the child was killed.
    TimedOut,
}

/// Starts `command`, shows its stdout on ours as it comes and hands every piece to `sink` until the child ends, `deadline` passes or the
/// sink breaks. The child is gone when this returns.
///
/// # Errors
/// The child cannot be started (with `remedy`) or waited for.
pub(crate) fn stream(
    command: &mut Command,
    deadline: Option<Duration>,
    remedy: &str,
    mut sink: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<End> {
    follow(command, deadline, remedy, |piece| {
        show(piece);
        sink(piece)
    })
}

/// [`stream`] without the showing.
///
/// # Errors
/// Those of [`stream`].
pub(crate) fn follow(
    command: &mut Command,
    deadline: Option<Duration>,
    remedy: &str,
    mut sink: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<End> {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{}` could not be started: {remedy}", command::describe(command)))?;
    let pieces = read_in_background(&mut child);
    let mut limit = deadline.map(|after| (began + after, false));
    let mut ended: Option<(ExitStatus, Instant)> = None;
    loop {
        match pieces.recv_timeout(LOOK) {
            Ok(piece) => {
                let already = limit.is_some_and(|(_, enough)| enough);
                if sink(&piece).is_break() && !already {
                    limit = Some((Instant::now() + GRACE, true));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                // Nobody holds the pipe any more; the child itself may still run.
                if ended.is_none() {
                    std::thread::sleep(LOOK);
                } else {
                    break;
                }
            }
        }
        if ended.is_none() {
            ended = child.try_wait().context("the child cannot be waited for")?.map(|status| (status, Instant::now()));
        }
        match (ended, limit) {
            (Some((_, at)), _) if at.elapsed() > DRAIN => break,
            (None, Some((at, enough))) if Instant::now() > at => {
                child.kill().context("the child cannot be killed")?;
                child.wait().context("the child cannot be waited for")?;
                return Ok(if enough { End::Stopped } else { End::TimedOut });
            }
            _ => {}
        }
    }
    let status = match ended {
        Some((status, _)) => status,
        None => child.wait().context("the child cannot be waited for")?,
    };
    Ok(End::Exited(status))
}

/// Shows a piece of output on ours.
pub(crate) fn show(piece: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    // A closed stdout (`| head`) must not end the tests half way: their verdict is the exit code.
    let _ = stdout.write_all(piece).and_then(|()| stdout.flush());
}

fn read_in_background(child: &mut Child) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(IN_FLIGHT);
    if let Some(mut pipe) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// Cuts a byte stream into lines. A line longer than [`Lines::LONGEST`] is given cut: nothing that is looked for is that long.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Bytes of a line that are kept.
    pub(crate) const LONGEST: usize = 8 * 1024;

    /// Takes a piece and hands out each line that it completes, without line end and carriage return.
    pub(crate) fn feed(&mut self, piece: &[u8], mut line: impl FnMut(&str)) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            let room = Self::LONGEST - self.pending.len();
            self.pending.extend_from_slice(&text[..text.len().min(room)]);
            if complete {
                line(String::from_utf8_lossy(&self.pending).trim_end_matches('\r'));
                self.pending.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn collect(script: &str, deadline: Option<Duration>) -> Result<(End, Vec<u8>)> {
        let mut seen = Vec::new();
        let end = follow(&mut shell(script), deadline, "", |piece| {
            seen.extend_from_slice(piece);
            ControlFlow::Continue(())
        })?;
        Ok((end, seen))
    }

    #[test]
    fn all_output_and_the_exit_code_arrive() -> Result<()> {
        let (end, seen) = collect("seq 1 20000; exit 7", None)?;
        assert!(matches!(end, End::Exited(status) if status.code() == Some(7)), "{end:?}");
        assert!(seen.ends_with(b"\n20000\n"));
        assert_eq!(seen.iter().filter(|byte| **byte == b'\n').count(), 20000);
        Ok(())
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_does_not_hold_us() -> Result<()> {
        let (end, seen) = collect("sleep 600 & echo $!", None)?;
        assert!(matches!(end, End::Exited(status) if status.success()), "{end:?}");
        let pid: i32 = String::from_utf8_lossy(&seen).trim().parse()?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
        Ok(())
    }

    #[test]
    fn a_hung_child_is_killed_at_the_deadline() -> Result<()> {
        let (end, _) = collect("echo; exec sleep 600", Some(Duration::from_millis(300)))?;
        assert!(matches!(end, End::TimedOut), "{end:?}");
        Ok(())
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_are_cut(text in "[a-c\r\n]{0,60}", cut in 0_usize..60) {
            let read = |pieces: &[&[u8]]| {
                let (mut lines, mut out) = (Lines::default(), Vec::new());
                pieces.iter().for_each(|piece| lines.feed(piece, |line| out.push(line.to_owned())));
                out
            };
            let bytes = text.as_bytes();
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            let whole = read(&[bytes]);
            prop_assert_eq!(&whole, &read(&[head, tail]));
            prop_assert_eq!(whole.len(), text.matches('\n').count());
        }

        #[test]
        fn no_bytes_make_it_panic_or_grow(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..12)) {
            let mut lines = Lines::default();
            for piece in &pieces {
                lines.feed(piece, |line| assert!(line.len() <= 3 * Lines::LONGEST));
                prop_assert!(lines.pending.len() <= Lines::LONGEST);
            }
        }
    }
}
