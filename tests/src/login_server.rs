//! A real sshd with PAM and accounts of its own, seen by nobody else: it runs in a mount namespace in which the account files and the
//! PAM service are the test's.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::namespace::Namespace;
use crate::need::{need, need_root};
use crate::outcome::{Outcome, run};
use crate::port::free_port;
use crate::process::{Group, VICTIM_PATH, victim};
use crate::wait::wait_until;

/// Where Debian's sshd separates its privileges; its package makes the folder only when the service starts.
const PRIVSEP: &str = "/run/sshd";
/// First user id of the accounts: above Debian's dynamic users, below `nobody`.
const FIRST_UID: u32 = 61_000;

/// The server's own count of attempts.
const ATTEMPTS: &str = "attempts";

/// An account of the server.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// User name.
    pub name: &'static str,
    /// Password.
    pub password: &'static str,
}

/// How the server is started.
#[derive(Debug, Clone)]
pub struct LoginServerConfig<'a> {
    /// Accounts besides the host's.
    pub accounts: &'a [Account],
    /// Address to listen on.
    pub address: &'a str,
    /// More lines of `sshd_config`; they win over the harness's own.
    pub lines: &'a str,
}

/// A running sshd. It ends with its owner, with everything below it.
#[derive(Debug)]
pub struct LoginServer {
    folder: PathBuf,
    address: SocketAddr,
    group: Group,
}

impl LoginServer {
    /// Starts it with all its files in a new folder below `folder`, and waits until it listens.
    ///
    /// # Panics
    /// Something is missing, or it does not come up.
    #[track_caller]
    pub fn start(folder: &Path, config: &LoginServerConfig<'_>) -> Self {
        need_root();
        let sshd = need("sshd", "openssh-server");
        let (unshare, keygen) = (need("unshare", "util-linux"), need("ssh-keygen", "openssh-client"));
        let port = free_port();
        let folder = folder.join(format!("sshd-{port}"));
        make(&folder);
        for key in ["host_key", "user_key", "other_key"] {
            run(Command::new(&keygen).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(key))).ok();
        }
        make(Path::new(PRIVSEP));
        write_accounts(&folder, config.accounts);
        let LoginServerConfig { accounts: _, address, lines } = config;
        let path = folder.display();
        // The first value of a key counts.
        let text = format!(
            "{lines}\nListenAddress {address}\nPort {port}\nHostKey {path}/host_key\nAuthorizedKeysFile {path}/authorized_keys\nPidFile none\n\
             StrictModes no\nUsePAM yes\nPermitRootLogin yes\nPasswordAuthentication yes\nKbdInteractiveAuthentication no\n\
             LogLevel VERBOSE\nUseDNS no\nMaxStartups 200:30:300\nPrintMotd no\n"
        );
        write(&folder.join("sshd_config"), &text);
        fs::copy(folder.join("user_key.pub"), folder.join("authorized_keys"))
            .unwrap_or_else(|error| panic!("cannot write {path}/authorized_keys: {error}"));
        let script = "cd \"$1\" && mount --bind passwd /etc/passwd && mount --bind shadow /etc/shadow && mount --bind pam-sshd /etc/pam.d/sshd \
                      && exec \"$2\" -D -f \"$1/sshd_config\"";
        let mut command = victim(unshare, &folder.join("log"));
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", script, "sh"]).arg(&folder).arg(sshd);
        let mut group = Group::start(&mut command);
        let address: SocketAddr = format!("{address}:{port}").parse().unwrap_or_else(|error| panic!("{address}: {error}"));
        wait_until("a listening sshd", || {
            let said = || fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(!group.ended(), "sshd ended: {}", said());
            TcpStream::connect(address).is_ok()
        });
        Self { folder, address, group }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Pid of the listening sshd.
    pub fn pid(&self) -> u32 {
        self.group.pid()
    }

    /// How often the server has asked PAM for a verdict: its own count, and not the sensor's.
    pub fn attempts(&self) -> usize {
        let said = fs::read_to_string(self.folder.join(ATTEMPTS)).unwrap_or_default();
        said.lines().filter(|line| *line == "attempt").count()
    }

    /// An ssh client that gives `password` when asked, not yet run. What it is to do is added as its last argument.
    pub fn with_password(&self, from: Option<&Namespace>, user: &str, password: &str) -> Command {
        let mut command = within(from, &need("sshpass", "sshpass"));
        command.args(["-p", password, "ssh"]);
        self.options(&mut command, user, &["PubkeyAuthentication=no", "NumberOfPasswordPrompts=1"]);
        command
    }

    /// An ssh client with a key: `user_key` is let in, `other_key` is not.
    pub fn with_key(&self, from: Option<&Namespace>, user: &str, keys: &[&str]) -> Command {
        let mut command = within(from, &need("ssh", "openssh-client"));
        for key in keys {
            command.arg("-i").arg(self.folder.join(key));
        }
        self.options(&mut command, user, &["BatchMode=yes", "IdentitiesOnly=yes", "PasswordAuthentication=no"]);
        command
    }

    fn options(&self, command: &mut Command, user: &str, options: &[&str]) {
        command.args(["-F", "none", "-p", &self.address.port().to_string()]);
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"].iter().chain(options) {
            command.args(["-o", option]);
        }
        command.arg(format!("{user}@{}", self.address.ip()));
    }

    /// A real hydra that tries `passwords` for each of `users`, with `tasks` connections at once, to its end.
    ///
    /// # Panics
    /// It cannot be run.
    #[track_caller]
    pub fn hydra(&self, from: Option<&Namespace>, users: &[&str], passwords: &[&str], tasks: u32) -> Outcome {
        let lists = [("users", users), ("passwords", passwords)].map(|(name, words)| {
            let path = self.folder.join(name);
            write(&path, &words.join("\n"));
            path
        });
        let mut command = within(from, &need("hydra", "hydra"));
        command.arg("-L").arg(&lists[0]).arg("-P").arg(&lists[1]);
        command.args(["-I", "-t", &tasks.to_string(), "-s", &self.address.port().to_string(), &self.address.ip().to_string(), "ssh"]);
        command.current_dir(&self.folder);
        run(&mut command)
    }
}

/// `program` in the namespace, or here, with the environment of a victim.
fn within(from: Option<&Namespace>, program: &Path) -> Command {
    let mut command = from.map_or_else(|| Command::new(program), |namespace| namespace.command(program));
    command.env_clear().env("PATH", VICTIM_PATH).env("HOME", "/root").env("LC_ALL", "C.UTF-8").env("TERM", "dumb").stdin(Stdio::null());
    command
}

#[track_caller]
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

#[track_caller]
fn make(path: &Path) {
    fs::create_dir_all(path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
}

/// The host's accounts and ours; a PAM service that asks pam_unix, without its two seconds of delay after a failure.
#[track_caller]
fn write_accounts(folder: &Path, accounts: &[Account]) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    let (mut passwd, mut shadow) = (read("/etc/passwd"), read("/etc/shadow"));
    let openssl = need("openssl", "openssl");
    for (account, uid) in accounts.iter().zip(FIRST_UID..) {
        let Account { name, password } = account;
        let hash = run(Command::new(&openssl).args(["passwd", "-6", password])).ok().stdout;
        passwd.push_str(&format!("{name}:x:{uid}:{uid}::/:/bin/bash\n"));
        shadow.push_str(&format!("{name}:{}:19000:0:99999:7:::\n", hash.trim()));
    }
    write(&folder.join("passwd"), &passwd);
    write(&folder.join("shadow"), &shadow);
    // pam_exec keeps the test's own count: one line for each time that PAM was asked.
    let attempts = folder.join(ATTEMPTS);
    write(
        &folder.join("pam-sshd"),
        &format!(
            "auth required pam_unix.so nodelay\nauth optional pam_exec.so quiet log={} /bin/echo attempt\n\
             account required pam_unix.so\nsession required pam_permit.so\npassword required pam_deny.so\n",
            attempts.display()
        ),
    );
}
