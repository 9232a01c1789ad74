//! A real sshd, with keys of its own, on a port of its own.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::need::{need, need_root};
use crate::outcome::run;
use crate::port::free_port;
use crate::process::{Group, victim};
use crate::session::Session;
use crate::wait::wait_until;

/// Where Debian's sshd separates its privileges; its package makes the folder only when the service starts.
const PRIVSEP: &str = "/run/sshd";

/// A running sshd that lets root in with one key. It ends with its owner.
#[derive(Debug)]
pub struct Sshd {
    folder: PathBuf,
    port: u16,
    group: Group,
}

impl Sshd {
    /// Starts it with all its files in `folder`, and waits until it listens.
    ///
    /// # Panics
    /// It is missing or does not come up.
    #[track_caller]
    pub fn start(folder: &Path) -> Self {
        need_root();
        let sshd = need("sshd", "openssh-server");
        need("ssh", "openssh-client");
        let keygen = need("ssh-keygen", "openssh-client");
        let port = free_port();
        for key in ["host_key", "user_key"] {
            run(Command::new(&keygen).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(key))).ok();
        }
        fs::create_dir_all(PRIVSEP).unwrap_or_else(|error| panic!("cannot make {PRIVSEP}: {error}"));
        let path = folder.display();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {path}/host_key\nAuthorizedKeysFile {path}/user_key.pub\nPidFile none\n\
             StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
        );
        let file = folder.join("sshd_config");
        fs::write(&file, config).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
        let log = folder.join("sshd.log");
        let mut group = Group::start(victim(sshd, &log).args(["-D", "-e", "-f"]).arg(file));
        wait_until("a listening sshd", || {
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(!group.ended(), "sshd ended: {}", said());
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { folder: folder.to_owned(), port, group }
    }

    /// Pid of the listening sshd.
    pub fn pid(&self) -> u32 {
        self.group.pid()
    }

    /// A client of openssh's that logs in here; `program` is `ssh`, `scp` or `sftp`. The options are set, the destination
    /// ([`Sshd::HOST`]) and what is to be done are not.
    pub fn client(&self, program: &str) -> Command {
        let mut command = victim(need(program, "openssh-client"), &self.folder.join("client.log"));
        let port = if program == "ssh" { "-p" } else { "-P" };
        command.args(["-F", "none", port, &self.port.to_string(), "-i"]).arg(self.folder.join("user_key"));
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "IdentitiesOnly=yes"] {
            command.args(["-o", option]);
        }
        command
    }

    /// Who logs in where.
    pub const HOST: &str = "root@127.0.0.1";

    /// An interactive login on a terminal.
    ///
    /// # Panics
    /// The client cannot be started.
    #[track_caller]
    pub fn login(&self) -> (Group, Session) {
        let mut command = self.client("ssh");
        command.args(["-tt", Self::HOST]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut group = Group::start(&mut command);
        let (input, output) = (group.child().stdout.take(), group.child().stdin.take());
        match (input, output) {
            (Some(input), Some(output)) => (group, Session::new(Box::new(input), Box::new(output))),
            _ => unreachable!("both were asked for as pipes"),
        }
    }
}
