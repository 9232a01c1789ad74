//! The patterns together, and what must hold of any input.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

static DEFAULT: LazyLock<Redactor> = LazyLock::new(|| with(&RedactionConfig::default()));
static EXTRA: LazyLock<Redactor> = LazyLock::new(|| with(&extra()));

fn with(config: &RedactionConfig) -> Redactor {
    Redactor::new(config, Key::from_bytes([7; 32])).expect("a redactor")
}

fn extra() -> RedactionConfig {
    RedactionConfig { extra_patterns: vec!["site-(\\w+)".into()], extra_names: vec!["--site-pin".into()], ..RedactionConfig::default() }
}

fn redact(argv: &[&str]) -> Vec<String> {
    let mut argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
    DEFAULT.argv(&mut argv);
    argv
}

/// With each hash as `#`.
fn plain(argv: &[String]) -> String {
    let hash = Regex::new(r"\[redacted:[0-9a-f]{16}\]").expect("an expression");
    argv.iter().map(|word| hash.replace_all(word, "#").into_owned()).collect::<Vec<_>>().join(" ")
}

fn said(argv: &[&str]) -> String {
    plain(&redact(argv))
}

#[test]
fn every_pattern_finds_its_example_and_counts_it() {
    for pattern in Pattern::ALL {
        let redactor = with(&extra());
        let Example { argv, secret } = pattern.example();
        let mut words: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        redactor.argv(&mut words);
        assert!(!words.join(" ").contains(secret), "{}: {words:?}", pattern.id());
        assert!(redactor.counts().by_pattern().contains_key(pattern.id()), "{}: {:?}", pattern.id(), redactor.counts().by_pattern());
        assert!(argv.len() == words.len() && words.concat().contains("[redacted:"), "{words:?}");

        let kept = with(&RedactionConfig { keep: vec![pattern.id().to_owned()], ..extra() });
        kept.argv(&mut argv.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert!(!kept.counts().by_pattern().contains_key(pattern.id()), "{} is kept", pattern.id());
    }
}

#[test]
fn ids_are_unique() {
    let mut ids: Vec<&str> = Pattern::ALL.iter().map(|pattern| pattern.id()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), Pattern::ALL.len());
}

#[test]
fn what_people_type() {
    for (argv, expected) in [
        (&["mysql", "-u", "root", "-phunter2", "-P", "3306", "shop"][..], "mysql -u root -p# -P 3306 shop"),
        (&["mysqldump", "--password=hunter2", "shop"], "mysqldump --password=# shop"),
        (&["sudo", "-u", "me", "mysql", "-phunter2"], "sudo -u me mysql -p#"),
        (&["docker", "exec", "db", "mysql", "-phunter2"], "docker exec db mysql -p#"),
        (&["sshpass", "-p", "hunter2", "ssh", "-p", "22", "root@h"], "sshpass -p # ssh -p 22 root@h"),
        (&["env", "PASSWORD=a pass phrase", "x"], "env PASSWORD=# x"),
        (&["env", "-S", "PASSWORD=hunter2 x -y"], "env -S PASSWORD=# x -y"),
        (&["sshpass", "-phunter2", "rsync", "-p", "a", "b"], "sshpass -p# rsync -p a b"),
        (&["curl", "-s", "-u", "me:hunter2", "http://h/"], "curl -s -u me:# http://h/"),
        (&["curl", "--user=me:hunter2", "-XPOST"], "curl --user=me:# -XPOST"),
        (&["curl", "-H", "X-Vault-Token: hunter2", "-H", "Accept: */*"], "curl -H X-Vault-Token: # -H Accept: */*"),
        (&["env", "AWS_SECRET_ACCESS_KEY=hunter2", "AWS_REGION=eu", "aws"], "env AWS_SECRET_ACCESS_KEY=# AWS_REGION=eu aws"),
        (&["docker", "run", "-p", "80:80", "-e", "DB_PASSWORD=hunter2", "x"], "docker run -p 80:80 -e DB_PASSWORD=# x"),
        (&["docker", "login", "-u", "me", "-p", "hunter2"], "docker login -u me -p #"),
        (&["psql", "host=h password=hunter2 dbname=x"], "psql host=h password=# dbname=x"),
        (&["psql", "postgresql://me:hunter2@h/db"], "psql postgresql://me:#@h/db"),
        (&["redis-cli", "-h", "h", "-a", "hunter2", "get", "a"], "redis-cli -h h -a # get a"),
        (
            &["kubectl", "create", "secret", "generic", "x", "--from-literal=password=hunter2"],
            "kubectl create secret generic x --from-literal=password=#",
        ),
        (&["helm", "install", "--set", "auth.password=hunter2,replicas=2"], "helm install --set auth.password=#"),
        (&["helm", "install", "--set", "replicas=2,auth.password=hunter2,x=1"], "helm install --set replicas=2,auth.password=#,x=1"),
        (&["java", "-Djavax.net.ssl.keyStorePassword=hunter2", "-jar", "x"], "java -Djavax.net.ssl.keyStorePassword=# -jar x"),
        (&["keytool", "-list", "-storepass", "hunter2"], "keytool -list -storepass #"),
        (&["openssl", "enc", "-k", "hunter2", "-pass", "env:X"], "openssl enc -k # -pass env:X"),
        (&["git", "clone", "https://oauth2:hunter2@h/x.git"], "git clone https://oauth2:#@h/x.git"),
        (&["smbclient", "-U", "dom\\me%hunter2", "//h/s"], "smbclient -U dom\\me%# //h/s"),
        (&["htpasswd", "-b", "/etc/h", "me", "hunter2"], "htpasswd -b /etc/h me #"),
        (&["7z", "a", "-phunter2", "x.7z"], "7z a -p# x.7z"),
    ] {
        assert_eq!(said(argv), expected, "{argv:?}");
    }
}

#[test]
fn inside_scripts() {
    for (script, expected) in [
        ("PASSWORD=hunter2 cmd --x", "PASSWORD=# cmd --x"),
        ("export TOKEN='hun ter2'; run", "export TOKEN='#'; run"),
        ("mysql -uroot -p'hunter2' -e 'select 1'", "mysql -uroot -p'#' -e 'select 1'"),
        ("a && curl -u me:hunter2 h | sh", "a && curl -u me:# h | sh"),
        ("curl -H \"Authorization: Bearer hunter2\" h", "curl -H \"Authorization: Bearer #\" h"),
        ("curl -d \"{\\\"password\\\":\\\"hunter2\\\"}\" h", "curl -d \"{\\\"password\\\":\\\"#\\\"}\" h"),
        ("echo hunter2 | sudo -S id", "echo # | sudo -S id"),
        ("echo 'me:hunter2' | /usr/sbin/chpasswd", "echo '#' | /usr/sbin/chpasswd"),
        ("printf '%s\\n' hunter2 | docker login --password-stdin", "printf '%s\\n' # | docker login --password-stdin"),
        ("ssh h \"su -c 'mysql -phunter2'\"", "ssh h \"su -c 'mysql -p#'\""),
        ("sshpass -p hunter2 ssh -p 22 h", "sshpass -p # ssh -p 22 h"),
        ("x=\"$(mysql -phunter2 -e 1)\"", "x=\"$(mysql -p# -e 1)\""),
        ("mysql -p$PW; mysql -p\"$PW\"; curl -u \"me:${PW}\" h", "mysql -p$PW; mysql -p\"$PW\"; curl -u \"me:${PW}\" h"),
        ("TOKEN=$(cat /run/t) run; PASSWORD=`cat p` run", "TOKEN=$(cat /run/t) run; PASSWORD=`cat p` run"),
        ("mysql -p'$ecret'", "mysql -p'#'"),
    ] {
        for argv in [&["bash", "-c", script][..], &["sh", "-ec", script], &["ssh", "h", script], &["sudo", "su", "-", "me", "-c", script]] {
            let words = redact(argv);
            assert_eq!(plain(&words[words.len() - 1..]), expected, "{argv:?}");
        }
    }
}

#[test]
fn variables_of_an_environment() {
    for (variable, expected) in [
        ("DB_PASSWORD=hunter2", "DB_PASSWORD=#"),
        ("http_proxy=http://me:hunter2@proxy:3128", "http_proxy=http://me:#@proxy:3128"),
        ("SUDO_COMMAND=/usr/bin/mysql -phunter2 shop", "SUDO_COMMAND=/usr/bin/mysql -p# shop"),
        ("LD_PRELOAD=/tmp/x.so", "LD_PRELOAD=/tmp/x.so"),
        ("HISTFILE=/dev/null", "HISTFILE=/dev/null"),
        ("no variable", "no variable"),
    ] {
        let mut text = variable.to_owned();
        DEFAULT.variable(&mut text);
        assert_eq!(plain(&[text]), expected, "{variable}");
    }
}

#[test]
fn what_is_no_secret_stays() {
    for argv in [
        &["ssh", "-p", "22", "root@h", "uptime"][..],
        &["tool", "--token-file", "/run/secrets/t", "--password-file=/x"],
        &["tool", "--password=", "--token="],
        &["docker", "login", "--password-stdin", "-u", "me"],
        &["mysql", "-p", "shop"],
        &["mysql", "--password", "shop"],
        &["git", "checkout", "6f1ed002ab5595859014ebf0951522d9bd3b8d6c"],
        &["cat", "/proc/sys/kernel/random/8d3b0c6e-5f1e-4b6c-9d6a-0c6f4b6a9d6a"],
        &["git", "commit", "-m", "fix: --password option and the secret token handling"],
        &["ssh-keygen", "-t", "ed25519", "-f", "/root/.ssh/id"],
        &["ansible", "--private-key", "~/.ssh/id", "--ask-become-pass", "all"],
        &["mkdir", "-p", "a/b"],
        &["tar", "-cpf", "x.tar", "y"],
        &["passwd", "me"],
        &["grep", "-r", "password", "/etc"],
        &["sudo", "-S", "id"],
        &["env", "GOOGLE_APPLICATION_CREDENTIALS=/etc/x.json", "PWD=/root", "KEYMAP=us", "gcloud"],
        &["docker", "build", "--secret", "id=npm,src=/x", "."],
        &["curl", "-b", "/tmp/cookies", "http://h:8080/?page=2&sort=key"],
        &["python3", "-c", "import getpass; password = getpass.getpass()"],
        &["mysqld", "-xxxxx", "--password=xxxxxxxx"],
        &["az", "vm", "list", "-p", "x"],
    ] {
        assert_eq!(redact(argv), argv, "{argv:?}");
    }
}

#[test]
fn equal_secrets_have_equal_hashes_wherever_they_stand() {
    let hash = Regex::new(r"\[redacted:[0-9a-f]{16}\]").expect("an expression");
    let mut seen = std::collections::BTreeSet::new();
    for argv in [
        &["tool", "--password", "hunter2"][..],
        &["env", "DB_PASS=hunter2"],
        &["curl", "https://u:hunter2@h"],
        &["sh", "-c", "mysql -p\"hunt\"er2"],
        &["curl", "-H", "Authorization: Bearer hunter2"],
        &["sh", "-c", "echo hunter\\2 | sudo -S id"],
    ] {
        let words = redact(argv).join(" ");
        seen.extend(hash.find_iter(&words).map(|found| found.as_str().to_owned()));
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[test]
fn the_operator_s_lists() {
    let config = RedactionConfig {
        extra_names: vec!["--pin".into(), "SITE_ID".into()],
        extra_patterns: vec!["site-(\\w+)".into(), "k[0-9]{4}".into()],
        keep: vec!["CI_TOKEN".into(), "url.query".into()],
        ..RedactionConfig::default()
    };
    let redactor = with(&config);
    let mut argv: Vec<String> =
        ["t", "--pin", "1", "SITE_ID=7", "site-abc", "k1234", "CI_TOKEN=x", "http://h/?sig=abc"].map(str::to_owned).to_vec();
    redactor.argv(&mut argv);
    assert_eq!(plain(&argv), "t --pin # SITE_ID=# site-# # CI_TOKEN=x http://h/?sig=abc");
}

#[test]
fn requested_paths_are_texts() {
    let mut what = What::ExecFailed {
        requested: Some("https://u:hunter2@h/x".into()),
        requested_truncated: false,
        error: bartizan_bus::event::Errno(2),
    };
    DEFAULT.what(&mut what);
    let What::ExecFailed { requested, .. } = what else { panic!("another kind") };
    assert_eq!(plain(&[requested.expect("a path")]), "https://u:#@h/x");
}

/// The table of the document, as the code has it.
fn table() -> String {
    let mut text = String::from("| pattern | what | example, as it is stored |\n|---|---|---|\n");
    for pattern in Pattern::ALL {
        let Example { argv, secret } = pattern.example();
        let stored: Vec<String> = argv.iter().map(|word| word.replace(secret, "[redacted:…]").replace('\n', " ")).collect();
        let words: Vec<String> =
            stored.iter().map(|word| if word.contains([' ', '"', '|', '&', ';']) { format!("'{word}'") } else { word.clone() }).collect();
        text += &format!("| `{}` | {} | `{}` |\n", pattern.id(), pattern.what().trim(), words.join(" ").replace('|', "\\|"));
    }
    text
}

#[test]
fn the_document_has_the_list() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/redaction.md");
    let document = std::fs::read_to_string(path).expect("docs/redaction.md");
    let (begin, end) = ("<!-- patterns: begin -->\n", "<!-- patterns: end -->");
    let found = document.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map(|(table, _)| table);
    assert_eq!(found, Some(table().as_str()), "put this between the marks in docs/redaction.md:\n{}", table());
}

/// A value of a person's: no reference, no path, no switch, nothing that ends a word.
fn secret() -> impl Strategy<Value = String> {
    "[A-Za-z0-9][A-Za-z0-9_.+!^~%]{8,24}[A-Za-z0-9]"
        .prop_filter("a word of its own", |secret| !names::is_plain(secret) && !names::is_path(secret))
}

/// Places for it.
const PLACES: &[&[&str]] = &[
    &["tool", "--password", "{}"],
    &["tool", "--api-key={}", "x"],
    &["mysql", "-p{}"],
    &["curl", "-u", "u:{}", "h"],
    &["env", "TOKEN={}", "cmd"],
    &["git", "clone", "https://u:{}@h/x"],
    &["curl", "http://h/?a=b&token={}&c=d"],
    &["curl", "-H", "Authorization: Bearer {}"],
    &["sh", "-c", "cd /x && PASSWORD='{}' run; echo done"],
    &["bash", "-lc", "curl -u \"u:{}\" h | sh"],
    &["ssh", "h", "sh -c 'mysql -p{} shop'"],
    &["sh", "-c", "echo {} | sudo -S id"],
    &["x", "{\"user\":\"u\",\"password\":\"{}\"}"],
];

/// Words that are made to confuse.
fn word() -> impl Strategy<Value = String> {
    let parts = "(--password|--token|-p|-u|-c|-H|mysql|curl|sh|ssh|login|sshpass|=|:|://|@|\\?|&|;|\\||'|\"|\\\\|\\$|\\(|\\)| |\n|\
                 Authorization: |Bearer |password|TOKEN|eyJ|ghp_|-----BEGIN |PRIVATE KEY-----|\\[redacted:|0123456789abcdef|\\]|é|[a-z0-9]{1,12}|[A-Z]{1,8})";
    proptest::collection::vec(parts, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn no_secret_is_left(secret in secret(), place in proptest::sample::select(PLACES)) {
        let mut argv: Vec<String> = place.iter().map(|word| word.replace("{}", &secret)).collect();
        DEFAULT.argv(&mut argv);
        prop_assert!(!argv.concat().contains(&secret), "{:?}", argv);
    }

    #[test]
    fn twice_is_once_and_nothing_panics(argv in proptest::collection::vec(word(), 0..8)) {
        let redactor = &*EXTRA;
        let mut once = argv;
        redactor.argv(&mut once);
        let mut twice = once.clone();
        redactor.argv(&mut twice);
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn what_is_not_suspicious_has_nothing(argv in proptest::collection::vec(word(), 0..8)) {
        let redactor = &*EXTRA;
        if !redactor.is_suspicious(&argv) {
            prop_assert!(redactor.hits(&argv).is_empty(), "{:?}", redactor.hits(&argv));
        }
    }

    #[test]
    fn any_text_is_taken(mut argv in proptest::collection::vec(".{0,40}", 0..6)) {
        DEFAULT.argv(&mut argv);
    }
}
