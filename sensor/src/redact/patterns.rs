//! The one list of patterns: their ids, what they are, and an example of each, from which the counters, `redaction.keep` and
//! docs/redaction.md derive.

/// An argument vector and the secret in it.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    /// The words.
    pub argv: &'static [&'static str],
    /// What must not be stored.
    pub secret: &'static str,
}

macro_rules! patterns {
    ($( $(#[doc = $doc:literal])* $variant:ident = $id:literal, [$($word:expr),*], $secret:expr; )*) => {
        /// Why something is a secret.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Pattern {
            $( $(#[doc = $doc])* $variant, )*
        }

        impl Pattern {
            /// Every pattern, in the order of the document.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in `status` and for `redaction.keep`.
            pub fn id(self) -> &'static str {
                match self { $(Self::$variant => $id),* }
            }

            /// What it is, for the document.
            pub fn what(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*).trim_ascii_start()),* }
            }

            /// An example.
            pub fn example(self) -> Example {
                match self { $(Self::$variant => Example { argv: &[$($word),*], secret: $secret }),* }
            }
        }
    };
}

// Tokens are glued from parts, so that scanners of source code do not take them for real ones.
patterns! {
    /// A long option whose name says that its value is a secret, with `=` or as the next word
    Option = "option.name", ["tool", "--db-password", "hunter2", "--port", "22"], "hunter2";
    /// `NAME=value` whose name says so: an environment variable, a property, a field of a form or of a connection string
    Assignment = "assign.name", ["env", "AWS_SECRET_ACCESS_KEY=hunter2", "aws", "s3", "ls"], "hunter2";
    /// A member of a JSON object whose name says so
    Json = "assign.json", ["curl", "-d", r#"{"user":"u","password":"hunter2"}"#, "localhost"], "hunter2";
    /// `scheme://user:password@host`; also a lone user name of 32 letters and digits or more
    UrlUser = "url.userinfo", ["git", "clone", "https://me:hunter2@git.example/x.git"], "hunter2";
    /// A query parameter whose name says so, or that signs the request (`sig`, `X-Amz-Signature`)
    UrlQuery = "url.query", ["curl", "https://x.example/a?id=1&sig=hunter2&n=2"], "hunter2";
    /// `Authorization: scheme credentials`, the scheme stays
    Authorization = "header.authorization", ["curl", "-H", "Authorization: Bearer hunter2", "x.example"], "hunter2";
    /// Another header whose name says so, such as `X-Api-Key`
    Header = "header.name", ["curl", "-H", "X-Api-Key: hunter2", "x.example"], "hunter2";
    /// `Cookie:` headers, and `-b`, `--cookie` of curl
    Cookie = "header.cookie", ["curl", "-b", "session=hunter2", "x.example"], "session=hunter2";
    /// mysql, mariadb and their tools: `-pX`, never `-p X`
    Mysql = "program.mysql", ["mysql", "-uroot", "-phunter2", "shop"], "hunter2";
    /// sshpass: `-p X`
    Sshpass = "program.sshpass", ["sshpass", "-p", "hunter2", "ssh", "-p", "22", "h"], "hunter2";
    /// curl: `-u user:X`, `-U user:X`, `--user`, `--proxy-user`, `-E cert:X`
    Curl = "program.curl", ["curl", "-u", "me:hunter2", "x.example"], "hunter2";
    /// redis-cli: `-a X`
    Redis = "program.redis", ["redis-cli", "-a", "hunter2", "ping"], "hunter2";
    /// mongo, mongosh, mongodump and their kind: `-p X`
    Mongo = "program.mongo", ["mongosh", "-u", "me", "-p", "hunter2"], "hunter2";
    /// ldapsearch and its kind: `-w X`; ldappasswd: `-a X`, `-s X`
    Ldap = "program.ldap", ["ldapsearch", "-x", "-w", "hunter2", "-b", "dc=x"], "hunter2";
    /// sqlcmd, bcp, tsql: `-P X`
    Mssql = "program.mssql", ["sqlcmd", "-U", "sa", "-P", "hunter2"], "hunter2";
    /// sqlplus, sqlldr, expdp, impdp: `user/X@database`
    Oracle = "program.oracle", ["sqlplus", "scott/hunter2@db"], "hunter2";
    /// smbclient, rpcclient, smbmap: `-U user%X`
    Smb = "program.smb", ["smbclient", "-U", "me%hunter2", "//h/s"], "hunter2";
    /// openssl: `pass:X` behind `-pass`, `-passin`, `-passout`; `-k X`, `-K X`
    Openssl = "program.openssl", ["openssl", "rsa", "-passin", "pass:hunter2"], "hunter2";
    /// `login` of docker, podman, az, oc and others: `-p X`; skopeo: `--creds user:X`
    Login = "program.login", ["docker", "login", "-u", "me", "-p", "hunter2", "r.example"], "hunter2";
    /// zip and unzip: `-P X`; 7z and rar: `-pX`
    Archive = "program.archive", ["unzip", "-P", "hunter2", "a.zip"], "hunter2";
    /// htpasswd with `-b`: the last word
    Htpasswd = "program.htpasswd", ["htpasswd", "-nb", "me", "hunter2"], "hunter2";
    /// useradd, usermod: `-p X`, a hash
    Useradd = "program.useradd", ["useradd", "-p", "hunter2", "me"], "hunter2";
    /// ipmitool: `-P X`
    Ipmi = "program.ipmi", ["ipmitool", "-H", "h", "-P", "hunter2", "power"], "hunter2";
    /// snmpwalk and its kind: the community of `-c X`, the keys of `-A X` and `-X X`
    Snmp = "program.snmp", ["snmpwalk", "-v2c", "-c", "hunter2", "h"], "hunter2";
    /// mosquitto_pub, mosquitto_sub: `-P X`
    Mqtt = "program.mqtt", ["mosquitto_pub", "-u", "me", "-P", "hunter2"], "hunter2";
    /// rdesktop, xfreerdp, evil-winrm, nxc: `-p X`, `/p:X`
    Remote = "program.remote", ["xfreerdp", "/u:me", "/p:hunter2", "/v:h"], "hunter2";
    /// lftp: `-u user,X`
    Lftp = "program.lftp", ["lftp", "-u", "me,hunter2", "h"], "hunter2";
    /// In a script: what `echo` or `printf` pipes into `sudo -S`, `chpasswd`, or a `--password-stdin`
    EchoPipe = "shell.echo_pipe", ["sh", "-c", "echo hunter2 | sudo -S id"], "hunter2";
    /// Access key ids of AWS: `AKIA` or `ASIA` and 16 capitals or digits
    Aws = "shape.aws", ["echo", concat!("AKIA", "2E0A8F3B244C9986")], concat!("AKIA", "2E0A8F3B244C9986");
    /// Tokens of GitHub: `ghp_`, `gho_`, `ghu_`, `ghs_`, `ghr_`, `github_pat_`
    Github = "shape.github", ["echo", concat!("ghp_", "0123456789abcdefghijklmnopqrstuvwxyz")],
        concat!("ghp_", "0123456789abcdefghijklmnopqrstuvwxyz");
    /// Tokens of GitLab: `glpat-`, `gldt-`, `glrt-`, `glcbt-`
    Gitlab = "shape.gitlab", ["echo", concat!("glpat-", "0123456789abcdefghij")], concat!("glpat-", "0123456789abcdefghij");
    /// Tokens of Slack: `xoxb-` and its kind, `xapp-`; the path of an incoming webhook of Slack or Discord
    Slack = "shape.slack", ["echo", concat!("xoxb-", "0123456789-abcdefghij")], concat!("xoxb-", "0123456789-abcdefghij");
    /// Keys of OpenAI, Anthropic and others: `sk-` and 20 letters or digits, `sk-proj-`, `sk-ant-`, `sk-or-`
    Sk = "shape.sk", ["echo", concat!("sk-", "0123456789abcdefghij")], concat!("sk-", "0123456789abcdefghij");
    /// Keys of Stripe: `sk_live_`, `sk_test_`, `rk_live_`, `rk_test_`, `whsec_`
    Stripe = "shape.stripe", ["echo", concat!("sk_live_", "0123456789abcdefghij")], concat!("sk_live_", "0123456789abcdefghij");
    /// Keys and tokens of Google: `AIza`, `ya29.`, `GOCSPX-`
    Google = "shape.google", ["echo", concat!("AIza", "0123456789abcdefghijklmnopqrstuvwxy")],
        concat!("AIza", "0123456789abcdefghijklmnopqrstuvwxy");
    /// Tokens of package registries: `npm_`, `pypi-`, `rubygems_`, `cio`
    Registry = "shape.registry", ["echo", concat!("npm_", "0123456789abcdefghijklmnopqrstuvwxyz")],
        concat!("npm_", "0123456789abcdefghijklmnopqrstuvwxyz");
    /// Tokens of other services: `hf_`, `hvs.`, `hvb.`, `SG.`, `dop_v1_`, `AGE-SECRET-KEY-1`, `bot<number>:AA` of Telegram
    Service = "shape.service", ["echo", concat!("hvs.", "0123456789abcdefghijklmn")], concat!("hvs.", "0123456789abcdefghijklmn");
    /// JSON web tokens: `eyJ…` with two dots
    Jwt = "shape.jwt", ["echo", concat!("eyJhbGciOiJIUzI1NiJ9", ".eyJzdWIiOiJtZSJ9", ".c2lnbmF0dXJl")],
        concat!("eyJhbGciOiJIUzI1NiJ9", ".eyJzdWIiOiJtZSJ9", ".c2lnbmF0dXJl");
    /// What stands between `-----BEGIN … PRIVATE KEY-----` and its end
    Pem = "shape.pem", ["echo", concat!("-----BEGIN RSA PRIVATE", " KEY-----\nMIIEhunter2\n-----END RSA PRIVATE", " KEY-----")], "MIIEhunter2";
    /// What matches one of `redaction.extra_patterns`
    Extra = "extra.pattern", ["tool", "site-hunter2"], "hunter2";
}

impl Pattern {
    /// The pattern of this id.
    pub fn by_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|pattern| pattern.id() == id)
    }
}
