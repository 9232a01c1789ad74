//! Tables as an operator writes them, right and wrong.

use std::time::Duration;

use bartizan_bus::event::Severity;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;
#[derive(Debug, Deserialize)]
struct File {
    forward: Vec<SinkConfig>,
}

fn one(keys: &str) -> Result<SinkConfig, String> {
    let text = format!("[[forward]]\n{keys}");
    toml::from_str::<File>(&text).map_err(|error| error.to_string()).map(|mut file| file.forward.remove(0))
}

fn minimal(extra: &str) -> Result<SinkConfig, String> {
    one(&format!("name = \"siem\"\ntype = \"syslog\"\naddress = \"siem.example.net:514\"\n{extra}"))
}

fn hub(extra: &str) -> Result<SinkConfig, String> {
    one(&format!("name = \"hub\"\ntype = \"nats\"\naddress = \"hub.example.net:4222\"\n{extra}"))
}

fn syslog(sink: &SinkConfig) -> &SyslogConfig {
    match &sink.protocol {
        Protocol::Syslog(syslog) => syslog,
        Protocol::Nats(_) => panic!("{sink:?} is no syslog sink"),
    }
}

fn nats(sink: &SinkConfig) -> &NatsConfig {
    match &sink.protocol {
        Protocol::Nats(nats) => nats,
        Protocol::Syslog(_) => panic!("{sink:?} is no NATS sink"),
    }
}

fn path(text: &str) -> FilePath {
    FilePath::try_from(text.to_owned()).unwrap()
}

#[test]
fn a_hub_needs_an_address_and_nothing_else() {
    let read = hub("").unwrap();
    let own = nats(&read);
    assert_eq!(own, &NatsConfig::default());
    assert_eq!((own.stream.as_str(), own.create_stream, own.subject_prefix.as_str()), ("ALERTS", false, "sec"));
    assert_eq!((own.ack_timeout.0, read.protocol.kind().as_str()), (Duration::from_secs(10), "nats"));
}

#[test]
fn every_key_of_a_hub_is_read() {
    let read = hub(
        "fallback_addresses = [\"b:4222\"]\nstream = \"SEC\"\ncreate_stream = true\nsubject_prefix = \"fleet.web\"\ndomain = \"hub\"\n\
         ack_timeout = \"3s\"\nuser = \"edge\"\npassword_file = \"/p\"\ntls_first = true\nca_file = \"/ca\"\ncert_file = \"/c\"\nkey_file = \
         \"/k\"\nretry_config = \"10s\"\n",
    )
    .unwrap();
    let client = ClientCertificate { cert_file: path("/c"), key_file: path("/k") };
    let expected = NatsConfig {
        fallback_addresses: vec![Address::try_from("b:4222".to_owned()).unwrap()],
        stream: HubStream::try_from("SEC".to_owned()).unwrap(),
        create_stream: true,
        subject_prefix: SubjectPrefix::try_from("fleet.web".to_owned()).unwrap(),
        domain: Some(Domain::try_from("hub".to_owned()).unwrap()),
        ack_timeout: DurationSetting(Duration::from_secs(3)),
        login: Login::Password { user: "edge".to_owned(), file: path("/p") },
        tls: Some(TlsConfig { first: true, ca_file: Some(path("/ca")), client: Some(client) }),
    };
    assert_eq!(nats(&read), &expected);
    assert_eq!(read.retry_config.0, Duration::from_secs(10));
    for (keys, login) in [
        ("creds_file = \"/a\"", Login::Creds(path("/a"))),
        ("nkey_file = \"/a\"", Login::Nkey(path("/a"))),
        ("token_file = \"/a\"", Login::Token(path("/a"))),
    ] {
        assert_eq!(nats(&hub(keys).unwrap()).login, login);
    }
    assert_eq!(nats(&hub("tls = true").unwrap()).tls, Some(TlsConfig::default()));
    assert_eq!(nats(&hub("tls = false\ntls_first = false").unwrap()).tls, None);
}

#[test]
fn defaults_are_the_documented_ones() {
    let read = minimal("").unwrap();
    let built = SinkConfig::new(
        SinkName::try_from("siem".to_owned()).unwrap(),
        Address::try_from("siem.example.net:514".to_owned()).unwrap(),
        Protocol::Syslog(SyslogConfig::default()),
    );
    assert_eq!(read, built);
    let own = syslog(&read);
    assert_eq!((own.facility as u8, own.framing, read.start), (16, Framing::OctetCounted, Start::All));
    assert_eq!(own.app_name.as_str(), "bartizan");
    assert_eq!(read.min_severity, Severity::Info);
    assert_eq!(read.retry_config.0, Duration::from_secs(300));
    assert_eq!(read.name.consumer(), "forward-siem");
}

#[test]
fn every_key_is_read() {
    let read = minimal(
        "facility = \"local7\"\napp_name = \"edr\"\nframing = \"lf\"\nmin_severity = \"high\"\nstart = \"new\"\nmax_message_bytes = \
         65536\nconnect_timeout = \"2s\"\nwrite_timeout = \"7s\"\nconfirm_after = \"250ms\"\nretry_min = \"2s\"\nretry_max = \"1m\"\n",
    )
    .unwrap();
    let own = syslog(&read);
    assert_eq!((own.facility, own.framing, read.start, read.min_severity), (Facility::Local7, Framing::Lf, Start::New, Severity::High));
    assert_eq!(own.confirm_after.0, Duration::from_millis(250));
    assert_eq!(read.retry_max.0, Duration::from_secs(60));
    assert_eq!(own.max_message_bytes, 65536);
}

#[test]
fn errors_name_the_key_and_what_is_allowed() {
    let cases = [
        (minimal("facilty = \"local0\""), "facilty"),
        (minimal("facility = \"local8\""), "local7"),
        (minimal("framing = \"nul\""), "octet-counted"),
        (minimal("start = \"old\""), "`all` or `new`"),
        (minimal("min_severity = \"urgent\""), "critical"),
        (minimal("app_name = \"two words\""), "1 to 48 printable"),
        (minimal("connect_timeout = \"0s\""), "1ms to 1h"),
        (minimal("connect_timeout = \"soon\""), "\"5s\""),
        (one("name = \"SIEM\"\ntype = \"syslog\"\naddress = \"a:1\""), "lower-case"),
        (one("name = \"siem\"\ntype = \"splunk\"\naddress = \"a:1\""), "`syslog` or `nats`"),
        (minimal("ca_file = \"/a\""), "`ca_file` of [[forward]] \"siem\" belongs to type = \"nats\""),
        (hub("framing = \"lf\""), "`framing` of [[forward]] \"hub\" belongs to type = \"syslog\""),
        (hub("streem = \"A\""), "unknown field `streem`"),
        (hub("stream = \"A.B\""), "1 to 255"),
        (hub("domain = \"a b\""), "domain"),
        (hub("subject_prefix = \"$JS\""), "\"fleet.web\""),
        (hub("subject_prefix = \"a..b\""), "words with dots"),
        (hub("creds_file = \"hub.creds\""), "begin it with /"),
        (hub("fallback_addresses = [\"b\"]"), "not host:port"),
        (hub("creds_file = \"/a\"\ntoken_file = \"/b\""), "both `creds_file` and `token_file`"),
        (hub("user = \"u\""), "`user` and no `password_file`"),
        (hub("password_file = \"/p\""), "`password_file` and no `user`"),
        (hub("creds_file = \"/p\"\nuser = \"u\""), "`user` and no `password_file`"),
        (hub("cert_file = \"/c\""), "`cert_file` and no `key_file`"),
        (hub("key_file = \"/k\""), "`key_file` and no `cert_file`"),
        (hub("tls = false\nca_file = \"/c\""), "tls = false and `ca_file`"),
        (one("name = \"siem\"\ntype = \"syslog\""), "address"),
    ];
    for (result, expected) in cases {
        let error = result.expect_err(expected);
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
}

#[test]
fn addresses() {
    for (text, host, port) in [
        ("siem:514", "siem", 514),
        ("siem.example.net.:6514", "siem.example.net.", 6514),
        ("192.0.2.7:514", "192.0.2.7", 514),
        ("[2001:db8::5]:514", "2001:db8::5", 514),
        ("[fe80::1%eth0]:514", "fe80::1%eth0", 514),
    ] {
        let address = Address::try_from(text.to_owned()).unwrap();
        assert_eq!((address.host(), address.port(), address.to_string().as_str()), (host, port, text));
    }
    for text in [
        "",
        "siem",
        "siem:",
        ":514",
        "siem:0",
        "siem:65536",
        "siem:+5",
        "::1:514",
        "[::1]",
        "[siem]:514",
        "10.0.0:514",
        "a b:514",
        "-a:514",
        "a..b:514",
        "1.2.3.4.5:1",
        "[::1:514",
        "::1]:514",
    ] {
        assert!(Address::try_from(text.to_owned()).is_err(), "{text:?} was taken");
    }
}

#[test]
fn what_no_single_key_can_tell() {
    let sink = minimal("").unwrap();
    assert_eq!(validate(std::slice::from_ref(&sink)), Ok(()));
    assert!(matches!(validate(&[sink.clone(), sink.clone()]), Err(ConfigError::DuplicateName { .. })));
    for found in [0, MIN_MAX_MESSAGE_BYTES - 1, MAX_MAX_MESSAGE_BYTES + 1] {
        let own = SyslogConfig { max_message_bytes: found, ..SyslogConfig::default() };
        let bad = SinkConfig { protocol: Protocol::Syslog(own), ..sink.clone() };
        assert!(matches!(validate(&[bad]), Err(ConfigError::MaxMessageBytes { .. })));
    }
    let bad = SinkConfig { retry_min: DurationSetting(Duration::from_secs(60)), ..sink };
    assert!(matches!(validate(&[bad]), Err(ConfigError::RetryOrder { .. })));
}

proptest! {
    #[test]
    fn an_address_that_is_taken_reads_back_the_same(text in "\\PC{0,40}|[a-z0-9.:%\\[\\]-]{1,30}:[0-9]{1,6}") {
        if let Ok(address) = Address::try_from(text) {
            prop_assert_eq!(Address::try_from(address.to_string()), Ok(address.clone()));
        }
    }
}
