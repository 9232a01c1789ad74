//! A talk with a shell.

use std::fmt;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::wait::{wait_for, wait_until};

/// What the shell has said so far.
#[derive(Debug, Default)]
struct Heard {
    bytes: Vec<u8>,
    ended: bool,
}

/// The attacker's end of a shell.
pub struct Session {
    output: Box<dyn Write + Send>,
    heard: Arc<Mutex<Heard>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("heard", &self.heard()).finish_non_exhaustive()
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    // Bytes stay bytes even if a thread panicked while it held them.
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Talks over these two ends.
    pub fn new(mut input: Box<dyn Read + Send>, output: Box<dyn Write + Send>) -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let ours = Arc::clone(&heard);
        // Ends when the shell hangs up. A FIFO, of which the attacker holds both ends, is read until the test's process ends.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match input.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => lock(&heard).bytes.extend_from_slice(&buffer[..length]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    // Reset: the shell was killed.
                    Err(_) => break,
                }
            }
            drop(input);
            lock(&heard).ended = true;
        });
        Self { output, heard: ours }
    }

    /// All that was heard.
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&lock(&self.heard).bytes).into_owned()
    }

    /// Says `line`.
    ///
    /// # Panics
    /// The shell has hung up.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        let said = self.output.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.output.flush());
        said.unwrap_or_else(|error| panic!("cannot say {line:?} to the shell ({error}), which said {:?}", self.heard()));
    }

    /// Says `line` and waits until the shell has said `answer`.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn ask(&mut self, line: &str, answer: &str) {
        self.say(line);
        wait_until(&format!("{answer:?} as the answer to {line:?}"), || self.heard().contains(answer));
    }

    /// Runs `id`: a shell that answers is one.
    ///
    /// # Panics
    /// It does not answer.
    #[track_caller]
    pub fn ask_id(&mut self) {
        self.ask("id", "uid=0(root)");
    }

    /// The shell's own pid.
    ///
    /// # Panics
    /// It does not tell.
    #[track_caller]
    pub fn ask_pid(&mut self) -> u32 {
        self.say("echo pid=$$.");
        // A terminal echoes the question too, but not with digits.
        wait_for("the shell's pid", || {
            let heard = self.heard();
            heard.split("pid=").skip(1).find_map(|rest| rest.split_once('.')?.0.parse().ok())
        })
    }

    /// Says `exit`. That the shell has hung up already is no error.
    pub fn say_exit(&mut self) {
        let _ = self.output.write_all(b"exit\n").and_then(|()| self.output.flush());
    }

    /// Waits until the shell has hung up.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn wait_end(&self) {
        wait_until("the end of the shell's connection", || lock(&self.heard).ended);
    }
}
