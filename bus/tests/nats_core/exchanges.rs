//! What is said for what, to the byte. Every exchange has a connection of its own; all use one server, one after another.

use crate::server::{Kind, Server, config};
use crate::wire::EOF;
use crate::{Failure, Outcome};

/// What a client says, and what it is told.
struct Exchange {
    name: &'static str,
    /// Fields of CONNECT behind the usual ones; `None` for a client that does not say CONNECT by itself.
    connect: Option<&'static str>,
    steps: &'static [(&'static str, Said)],
}

/// What is told.
enum Said {
    /// This.
    This(&'static str),
    /// These, in any order.
    Unordered(&'static [&'static str]),
    /// This, then the connection ends.
    End(&'static str),
}
use Said::{End, This, Unordered};

const fn plain(name: &'static str, steps: &'static [(&'static str, Said)]) -> Exchange {
    Exchange { name, connect: Some(""), steps }
}

const fn bare(name: &'static str, steps: &'static [(&'static str, Said)]) -> Exchange {
    Exchange { name, connect: None, steps }
}

const fn with(name: &'static str, connect: &'static str, steps: &'static [(&'static str, Said)]) -> Exchange {
    Exchange { name, connect: Some(connect), steps }
}

const PEDANTIC: &str = ",\"pedantic\":true";
const BAD_PUBLISH: &str = "-ERR 'Invalid Publish Subject'\r\nPONG\r\n";
const BAD_SUBJECT: &str = "-ERR 'Invalid Subject'\r\nPONG\r\n";

const EXCHANGES: &[Exchange] = &[
    // CONNECT
    bare("ping_before_connect", &[("PING\r\n", This("PONG\r\n"))]),
    bare("publish_before_connect", &[("SUB foo 1\r\nPUB foo 2\r\nhi\r\nPING\r\n", This("+OK\r\n+OK\r\nMSG foo 1 2\r\nhi\r\nPONG\r\n"))]),
    bare(
        "protocol_1_has_a_second_info",
        &[("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n", This("PONG\r\nINFO\r\n")), ("PING\r\n", This("PONG\r\n"))],
    ),
    bare("protocol_0_has_none", &[("CONNECT {\"verbose\":false,\"protocol\":0}\r\nPING\r\nPING\r\n", This("PONG\r\nPONG\r\n"))]),
    bare("verbose_is_the_default", &[("CONNECT {}\r\nPING\r\n", This("+OK\r\nPONG\r\n"))]),
    bare(
        "verbose",
        &[
            ("CONNECT {\"verbose\":true,\"headers\":true}\r\nPING\r\n", This("+OK\r\nPONG\r\n")),
            ("SUB foo 1\r\nPUB foo 2\r\nhi\r\nUNSUB 1\r\nPING\r\n", This("+OK\r\n+OK\r\nMSG foo 1 2\r\nhi\r\n+OK\r\nPONG\r\n")),
        ],
    ),
    bare(
        "verbose_duplicate_sid_and_unknown_unsub",
        &[("CONNECT {}\r\nSUB a 1\r\nSUB b 1\r\nUNSUB 9\r\nPING\r\n", This("+OK\r\n+OK\r\n+OK\r\n+OK\r\nPONG\r\n"))],
    ),
    bare(
        "null_fields_and_unknown_ones",
        &[(
            "CONNECT {\"verbose\":false,\"user\":null,\"pass\":null,\"auth_token\":null,\"jwt\":null,\"nkey\":null,\"sig\":null,\"name\":null,\"some\":[1]}\r\nPING\r\n",
            This("PONG\r\n"),
        )],
    ),
    bare("second_connect", &[("CONNECT {\"verbose\":false}\r\nCONNECT {\"verbose\":true}\r\nPING\r\n", This("+OK\r\nPONG\r\n"))]),
    bare(
        "no_responders_without_headers",
        &[(
            "CONNECT {\"verbose\":false,\"headers\":false,\"no_responders\":true}\r\nPING\r\n",
            End("-ERR 'no responders requires headers support'\r\n"),
        )],
    ),
    bare("protocol_7", &[("CONNECT {\"verbose\":false,\"protocol\":7}\r\nPING\r\n", End("-ERR 'invalid client protocol'\r\n"))]),
    bare("account_in_connect", &[("CONNECT {\"verbose\":false,\"account\":\"X\"}\r\nPING\r\n", End("-ERR 'Authorization Violation'\r\n"))]),
    bare("connect_without_json", &[("CONNECT {bad\r\nPING\r\n", End(""))]),
    bare("connect_with_wrong_types", &[("CONNECT {\"verbose\":\"yes\"}\r\nPING\r\n", End(""))]),
    // Framing
    plain("reply_and_no_payload", &[("SUB foo 1\r\nPUB foo my.reply 0\r\n\r\n", This("MSG foo 1 my.reply 0\r\n\r\n"))]),
    plain("lower_case", &[("sub foo 1\r\npub foo 2\r\nhi\r\nunsub 1\r\nping\r\n", This("MSG foo 1 2\r\nhi\r\nPONG\r\n"))]),
    plain("tabs_and_blanks", &[("SUB\tfoo \t 1\r\nPUB\tfoo\t \t2\r\nhi\r\n", This("MSG foo 1 2\r\nhi\r\n"))]),
    plain("bare_line_feed", &[("SUB foo 1\nPUB foo 2\nhi\r\nPING\n", This("MSG foo 1 2\r\nhi\r\nPONG\r\n"))]),
    plain("payload_with_line_ends", &[("SUB foo 1\r\nPUB foo 8\r\nPING\r\n\r\n\r\n", This("MSG foo 1 8\r\nPING\r\n\r\n\r\n"))]),
    plain("ping_with_arguments", &[("PING foo\r\n", This("PONG\r\n"))]),
    plain("empty_line", &[("\r\nPING\r\n", End("-ERR 'Unknown Protocol Operation'\r\n"))]),
    plain("unknown_operation", &[("FOO bar\r\n", End("-ERR 'Unknown Protocol Operation'\r\n"))]),
    plain("unknown_operation_of_a_known_beginning", &[("PUX bar 1\r\n", End("-ERR 'Unknown Protocol Operation'\r\n"))]),
    plain("http", &[("GET / HTTP/1.1\r\nHost: a\r\n\r\n", End("-ERR 'Unknown Protocol Operation'\r\n"))]),
    plain("payload_longer_than_said", &[("PUB foo 2\r\nhello\r\nPING\r\n", End("-ERR 'Unknown Protocol Operation'\r\n"))]),
    plain("pub_without_size", &[("PUB foo\r\n", End(""))]),
    plain("pub_with_a_word_for_size", &[("PUB foo x\r\nabc\r\n", End(""))]),
    plain("pub_with_negative_size", &[("PUB foo -1\r\nabc\r\n", End(""))]),
    plain("pub_with_too_many_arguments", &[("PUB foo bar baz 2\r\nhi\r\n", End(""))]),
    plain("pub_with_ten_digits", &[("PUB foo 0000000002\r\nhi\r\n", End(""))]),
    plain("pub_with_nine_digits", &[("SUB foo 1\r\nPUB foo 000000002\r\nhi\r\n", This("MSG foo 1 000000002\r\nhi\r\n"))]),
    plain("sub_without_sid", &[("SUB foo\r\n", End(""))]),
    plain("sub_without_subject", &[("SUB  1\r\nPING\r\n", End(""))]),
    plain("sub_with_too_many_arguments", &[("SUB a b c d\r\n", End(""))]),
    plain("unsub_without_sid", &[("UNSUB \r\n", End(""))]),
    plain("unsub_alone", &[("UNSUB\r\n", End("-ERR 'Unknown Protocol Operation'\r\n"))]),
    plain("pub_alone", &[("PUB\r\n", End("-ERR 'Unknown Protocol Operation'\r\n"))]),
    bare("connect_alone", &[("CONNECT\r\n", End(""))]),
    // Subscriptions
    bare("a_field_twice", &[("CONNECT {\"verbose\":true,\"verbose\":false}\r\nPING\r\n", This("PONG\r\n"))]),
    with("echo_off", ",\"echo\":false", &[("SUB foo 1\r\nPUB foo 5\r\nhello\r\nPING\r\n", This("PONG\r\n"))]),
    plain(
        "sid_is_a_word",
        &[("SUB foo ab-9\r\nPUB foo 1\r\nx\r\nUNSUB ab-9\r\nPUB foo 1\r\ny\r\nPING\r\n", This("MSG foo ab-9 1\r\nx\r\nPONG\r\n"))],
    ),
    plain(
        "unsub_max",
        &[(
            "SUB u 1\r\nUNSUB 1 2\r\nPUB u 1\r\na\r\nPUB u 1\r\nb\r\nPUB u 1\r\nc\r\nPING\r\n",
            This("MSG u 1 1\r\na\r\nMSG u 1 1\r\nb\r\nPONG\r\n"),
        )],
    ),
    plain(
        "unsub_max_counts_since_subscribe",
        &[(
            "SUB u 1\r\nPUB u 1\r\na\r\nPUB u 1\r\nb\r\nUNSUB 1 2\r\nPUB u 1\r\nc\r\nPING\r\n",
            This("MSG u 1 1\r\na\r\nMSG u 1 1\r\nb\r\nPONG\r\n"),
        )],
    ),
    plain("unsub_max_0_is_now", &[("SUB u 1\r\nUNSUB 1 0\r\nPUB u 1\r\na\r\nPING\r\n", This("PONG\r\n"))]),
    plain(
        "sid_is_free_after_unsub_max",
        &[
            ("SUB u 1\r\nUNSUB 1 1\r\nPUB u 1\r\na\r\n", This("MSG u 1 1\r\na\r\n")),
            ("SUB v 1\r\nPUB v 1\r\nb\r\nPING\r\n", This("MSG v 1 1\r\nb\r\nPONG\r\n")),
        ],
    ),
    plain("unsub_unknown_sid", &[("UNSUB 99\r\nPING\r\n", This("PONG\r\n"))]),
    plain("duplicate_sid", &[("SUB a 1\r\nSUB b 1\r\nPUB a 1\r\nA\r\nPUB b 1\r\nB\r\nPING\r\n", This("MSG a 1 1\r\nA\r\nPONG\r\n"))]),
    plain(
        "queue_name_on_several_filters_is_one_group",
        &[("SUB q.a g 1\r\nSUB q.* g 1\r\nSUB q.> g 1\r\nPUB q.a 1\r\na\r\nPING\r\n", This("MSG q.a 1 1\r\na\r\nPONG\r\n"))],
    ),
    plain(
        "plain_ones_beside_a_group",
        &[(
            "SUB q g 1\r\nSUB q 3\r\nSUB q 4\r\nPUB q 1\r\na\r\n",
            Unordered(&["MSG q 3 1\r\na\r\n", "MSG q 4 1\r\na\r\n", "MSG q 1 1\r\na\r\n"]),
        )],
    ),
    plain(
        "wildcards",
        &[
            (
                "SUB a.* 1\r\nSUB a.> 2\r\nSUB > 3\r\nSUB *.b 4\r\nPUB a.b 1\r\nx\r\n",
                Unordered(&["MSG a.b 3 1\r\nx\r\n", "MSG a.b 4 1\r\nx\r\n", "MSG a.b 2 1\r\nx\r\n", "MSG a.b 1 1\r\nx\r\n"]),
            ),
            ("PUB a.b.c 1\r\ny\r\n", Unordered(&["MSG a.b.c 3 1\r\ny\r\n", "MSG a.b.c 2 1\r\ny\r\n"])),
            ("PUB a 1\r\nz\r\nPING\r\n", This("MSG a 3 1\r\nz\r\nPONG\r\n")),
        ],
    ),
    plain("sub_foo..bar", &[("SUB foo..bar 1\r\nPING\r\n", This(BAD_SUBJECT))]),
    plain("sub_foo.", &[("SUB foo. 1\r\nPING\r\n", This(BAD_SUBJECT))]),
    plain("sub_.foo", &[("SUB .foo 1\r\nPING\r\n", This(BAD_SUBJECT))]),
    plain("sub_foo.>.bar", &[("SUB foo.>.bar 1\r\nPING\r\n", This(BAD_SUBJECT))]),
    plain(
        "wildcards_within_tokens_are_letters",
        &[(
            "SUB foo.b*r 1\r\nSUB foo.>x 2\r\nPUB foo.bar 1\r\na\r\nPUB foo.b*r 1\r\nb\r\nPING\r\n",
            This("MSG foo.b*r 1 1\r\nb\r\nPONG\r\n"),
        )],
    ),
    plain("any_word_is_a_queue", &[("SUB foo g..> 1\r\nPUB foo 1\r\nx\r\nPING\r\n", This("MSG foo 1 1\r\nx\r\nPONG\r\n"))]),
    // Publications
    plain("pub_foo..bar", &[("SUB > 1\r\nPUB foo..bar 1\r\nx\r\nPING\r\n", This("PONG\r\n"))]),
    plain("pub_foo.", &[("SUB > 1\r\nPUB foo. 1\r\nx\r\nPING\r\n", This("PONG\r\n"))]),
    plain("pub_foo.*", &[("SUB > 1\r\nPUB foo.* 1\r\nx\r\nPING\r\n", This("MSG foo.* 1 1\r\nx\r\nPONG\r\n"))]),
    plain("pub_foo.>", &[("SUB > 1\r\nPUB foo.> 1\r\nx\r\nPING\r\n", This("MSG foo.> 1 1\r\nx\r\nPONG\r\n"))]),
    with("pedantic_pub_foo..bar", PEDANTIC, &[("PUB foo..bar 1\r\nx\r\nPING\r\n", This(BAD_PUBLISH))]),
    with("pedantic_pub_foo.", PEDANTIC, &[("PUB foo. 1\r\nx\r\nPING\r\n", This(BAD_PUBLISH))]),
    with("pedantic_pub_foo.*", PEDANTIC, &[("PUB foo.* 1\r\nx\r\nPING\r\n", This(BAD_PUBLISH))]),
    with("pedantic_pub_foo.>", PEDANTIC, &[("PUB foo.> 1\r\nx\r\nPING\r\n", This(BAD_PUBLISH))]),
    plain(
        "reserved_reply",
        &[("PUB foo _R_.x 1\r\nx\r\nPING\r\n", This("-ERR 'Permissions Violation for Publish with Reply of \"_R_.x\"'\r\nPONG\r\n"))],
    ),
    plain(
        "reserved_subjects",
        &[("SUB $NRG.> 1\r\nPUB $NRG.x 1\r\nx\r\nPING\r\n", This("-ERR 'Permissions Violation for Publish to \"$NRG.x\"'\r\nPONG\r\n"))],
    ),
    // Headers
    plain(
        "headers",
        &[
            (
                "SUB h 9\r\nHPUB h 22 27\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhello\r\n",
                This("HMSG h 9 22 27\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhello\r\n"),
            ),
            ("HPUB h r.x 12 12\r\nNATS/1.0\r\n\r\n\r\n", This("HMSG h 9 r.x 12 12\r\nNATS/1.0\r\n\r\n\r\n")),
        ],
    ),
    bare(
        "headers_are_left_out_for_who_has_none",
        &[(
            "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB h 3\r\nHPUB h 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
            This("HMSG h 3 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"),
        )],
    ),
    bare("hpub_without_headers", &[("CONNECT {\"verbose\":false,\"headers\":false}\r\nHPUB h 12 12\r\nNATS/1.0\r\n\r\n\r\n", End(""))]),
    bare("hpub_before_connect", &[("HPUB h 12 12\r\nNATS/1.0\r\n\r\n\r\n", End(""))]),
    plain("more_headers_than_all", &[("HPUB h 22 10\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhello\r\n", End(""))]),
    plain("hpub_without_second_size", &[("HPUB h 12\r\nNATS/1.0\r\n\r\n\r\n", End(""))]),
    // No responders
    plain(
        "no_responders",
        &[(
            "SUB _INBOX.a.* 5\r\nPUB nobody.here _INBOX.a.1 3\r\nabc\r\n",
            This("HMSG _INBOX.a.1 5 43 43\r\nNATS/1.0 503\r\nNats-Subject: nobody.here\r\n\r\n\r\n"),
        )],
    ),
    with(
        "no_responders_without_echo",
        ",\"echo\":false",
        &[(
            "SUB nobody.here 4\r\nSUB _INBOX.a.* 5\r\nPUB nobody.here _INBOX.a.1 3\r\nabc\r\n",
            This("HMSG _INBOX.a.1 5 43 43\r\nNATS/1.0 503\r\nNats-Subject: nobody.here\r\n\r\n\r\n"),
        )],
    ),
    with(
        "no_responders_unasked",
        ",\"no_responders\":false",
        &[("SUB _INBOX.b 5\r\nPUB nobody.here _INBOX.b 0\r\n\r\nPING\r\n", This("PONG\r\n"))],
    ),
    plain(
        "no_responders_and_who_waited_has_had_enough",
        &[("SUB r 1\r\nUNSUB 1 1\r\nPUB r 1\r\nx\r\nPUB nobody.here r 0\r\n\r\nPING\r\n", This("MSG r 1 1\r\nx\r\nPONG\r\n"))],
    ),
    plain("carriage_return_in_a_line", &[("SUB a\r1\r\nPUB a 1\r\nx\r\nPING\r\n", This("MSG a 1 1\r\nx\r\nPONG\r\n"))]),
    plain("unsub_with_a_word_for_max_is_now", &[("SUB a 1\r\nUNSUB 1 x\r\nPUB a 1\r\nx\r\nPING\r\n", This("PONG\r\n"))]),
    plain("no_responders_and_nobody_who_waits", &[("PUB nobody.here _INBOX.b 0\r\n\r\nPING\r\n", This("PONG\r\n"))]),
    plain("unknown_jetstream_request_has_no_answer", &[("SUB i 1\r\nPUB $JS.API.FOO i 0\r\n\r\nPING\r\n", This("PONG\r\n"))]),
    // Limits
    plain("max_payload", &[("PUB foo 1048577\r\nxxxxxxxxxx", End("-ERR 'Maximum Payload Violation'\r\n"))]),
    plain("max_payload_with_headers", &[("HPUB foo 12 1048577\r\nxxxxxxxxxx", End("-ERR 'Maximum Payload Violation'\r\n"))]),
    plain("ok_is_heard", &[("+OK\r\nPING\r\n", This("PONG\r\n"))]),
    plain("info_is_heard", &[("INFO {}\r\nPING\r\n", This("PONG\r\n"))]),
    plain("an_error_ends_it", &[("-ERR 'x'\r\nPING\r\n", End(""))]),
];

/// Runs those whose names have `filter`.
pub(crate) async fn run(kind: Kind, filter: &str) -> Vec<(String, Outcome)> {
    let wanted: Vec<&Exchange> = EXCHANGES.iter().filter(|exchange| named(exchange).contains(filter)).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let server = match Server::start(kind, config()).await {
        Ok(server) => server,
        Err(error) => return vec![("exchanges".to_owned(), Err(error))],
    };
    let mut outcomes = Vec::new();
    for exchange in wanted {
        outcomes.push((named(exchange), go(&server, exchange).await));
    }
    outcomes
}

fn named(exchange: &Exchange) -> String {
    format!("exchange::{}", exchange.name)
}

async fn go(server: &Server, exchange: &Exchange) -> Result<(), Failure> {
    let mut wire = server.wire().await?;
    match exchange.connect {
        Some(fields) => wire.connect(fields).await?,
        None => wire.expect("INFO\r\n").await?,
    }
    let mut ended = false;
    for (send, said) in exchange.steps {
        wire.send(send).await?;
        match said {
            This(expected) => wire.expect(expected).await?,
            Unordered(expected) => wire.expect_unordered(expected).await?,
            End(expected) => {
                wire.expect(&format!("{expected}{EOF}")).await?;
                ended = true;
            }
        }
    }
    if ended { Ok(()) } else { wire.silent().await }
}
