//! A real rsyslogd that stores what it receives over TCP.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::need::need;
use crate::port::free_port;
use crate::process::{Group, victim};
use crate::wait::wait_until;

/// A receiver on a port of its own, which stays the same over its restarts. It ends with its owner.
#[derive(Debug)]
pub struct Rsyslog {
    folder: PathBuf,
    program: PathBuf,
    port: u16,
    group: Option<Group>,
}

impl Rsyslog {
    /// Chooses a port and writes the configuration of `docs/forwarding.md` into `folder`; it does not run yet.
    ///
    /// # Panics
    /// rsyslogd is missing.
    #[track_caller]
    pub fn new(folder: &Path) -> Self {
        let program = need("rsyslogd", "rsyslog");
        let port = free_port();
        let path = folder.display();
        let config = format!(
            r#"global(workDirectory="{path}")
module(load="imtcp")
template(name="bartizan-json" type="string" string="%msg%\n")
ruleset(name="bartizan") {{
  action(type="omfile" file="{path}/alerts.json" template="bartizan-json")
}}
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="bartizan")
"#
        );
        let file = folder.join("rsyslog.conf");
        fs::write(&file, config).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
        Self { folder: folder.to_owned(), program, port, group: None }
    }

    /// `host:port` for a `[[forward]]` table.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// It runs already, or does not come up.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.group.is_none(), "this rsyslogd runs already");
        let (log, pid) = (self.folder.join("rsyslogd.log"), self.folder.join("rsyslogd.pid"));
        // A killed one leaves its pid file behind, and that the file is not there is no error.
        let _ = fs::remove_file(&pid);
        let mut command = victim(&self.program, &log);
        command.args(["-n", "-f"]).arg(self.folder.join("rsyslog.conf")).arg("-i").arg(pid);
        let mut group = Group::start(&mut command);
        wait_until("a listening rsyslogd", || {
            assert!(!group.ended(), "rsyslogd ended: {}", fs::read_to_string(&log).unwrap_or_default());
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
        self.group = Some(group);
    }

    /// Ends it as a crash would.
    pub fn kill9(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Ends it in good order.
    pub fn terminate(&mut self) {
        self.end(Signal::SIGTERM);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut group) = self.group.take() {
            group.signal(signal);
            group.wait();
        }
    }

    /// The alerts that it has stored, in the order of their arrival. A line that is no JSON is what a kill tore.
    pub fn alerts(&self) -> Vec<Value> {
        let stored = fs::read_to_string(self.folder.join("alerts.json")).unwrap_or_default();
        stored.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
