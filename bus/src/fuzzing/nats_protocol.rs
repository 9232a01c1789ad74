//! Bytes from a client's socket, cut anywhere.

use std::sync::{Arc, Mutex};

use crate::log::lock;
use crate::nats::ServerConfig;
use crate::nats::auth::{Credential, Permission, User, Users};
use crate::nats::connection::{Connection, Next};
use crate::nats::outbound::CloseReason;
use crate::nats::parse::{Op, ParseError, Parsed, parse};
use crate::nats::route::{Routed, Router, Tap};
use crate::nats::server::new_client;
use crate::nats::shared::{Shared, Touched};

/// Small, so that inputs reach them.
const MAX_LINE: usize = 128;
const MAX_PAYLOAD: usize = 512;
const MAX_PENDING: usize = 32 * 1024;
/// What an operation takes at most: the longest line with name and line end, the payload and its line end.
const LONGEST: usize = MAX_LINE + 16 + MAX_PAYLOAD + 2;
/// Bytes that say where the others are cut.
const CUTS: usize = 6;

/// A byte of settings, [`CUTS`] lengths of pieces, then what the client sends. However it is cut, the same operations are read and the same
/// messages published; nothing larger than the limits is accepted or waited for.
pub fn nats_protocol(data: &[u8]) {
    let Some((&[settings, ref cuts @ ..], sent)) = data.split_first_chunk::<{ 1 + CUTS }>() else { return };
    let whole = operations(&[sent]);
    let pieces = cut(sent, cuts);
    let in_pieces = operations(&pieces);
    assert_eq!((&whole.0, whole.1.is_some()), (&in_pieces.0, in_pieces.1.is_some()), "{:?} {:?}", whole.1, in_pieces.1);
    let grouped = whole.0.iter().any(|operation| operation.contains("queue: Some("));
    let (whole, in_pieces) = (Conversation::hold(settings, &[sent]), Conversation::hold(settings, &pieces));
    assert_eq!(whole.published, in_pieces.published);
    assert_eq!(whole.closed.is_some(), in_pieces.closed.is_some(), "{:?} {:?}", whole.closed, in_pieces.closed);
    // Who of a group gets a message, and which inbox hears that nobody listens, is left to chance; errors of lines cut short may differ.
    let chance = grouped || sent.windows(3).any(|word| word == b"no_" || word == b"\\u0");
    if !chance && whole.closed.is_none() {
        assert_eq!(whole.told.escape_ascii().to_string(), in_pieces.told.escape_ascii().to_string());
    }
}

fn cut<'a>(bytes: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at(rest.len().min(usize::from(*cut) + 1));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// What the parser makes of the pieces, as text, and how it ended.
fn operations(pieces: &[&[u8]]) -> (Vec<String>, Option<ParseError>) {
    let (mut buffer, mut found) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match parse(&buffer, MAX_LINE, MAX_PAYLOAD) {
                Ok(Parsed::Op(op, len)) => {
                    assert!(len > 0 && len <= buffer.len() && len <= LONGEST, "{op:?} takes {len}");
                    if let Op::Pub { headers, payload, .. } = op {
                        assert!(headers.len() + payload.len() <= MAX_PAYLOAD, "{op:?}");
                    } else if let Op::Connect(words) | Op::Sub { subject: words, .. } | Op::Unsub { sid: words, .. } = op {
                        assert!(words.len() <= MAX_LINE, "{op:?}");
                    }
                    found.push(format!("{op:?}"));
                    buffer.drain(..len);
                }
                Ok(Parsed::Incomplete(needed)) => {
                    assert!(needed > buffer.len() && needed <= LONGEST, "{needed} needed with {} there", buffer.len());
                    break;
                }
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

fn users(settings: u8) -> Users {
    if settings & 1 == 0 {
        return Users::default();
    }
    let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a pattern")).collect();
    Users(vec![
        User {
            credential: Credential::Password { user: "u".to_owned(), password: "p".to_owned() },
            publish: Permission { allow: patterns(&["a.>", "b"]), deny: patterns(&["a.secret"]) },
            subscribe: Permission { allow: Vec::new(), deny: patterns(&["a.x"]) },
            module: (settings & 2 != 0).then(|| "m".to_owned()),
        },
        User::with(Credential::Token("t".to_owned())),
    ])
}

/// Sees what is published.
#[derive(Default)]
struct Witness(Mutex<Vec<String>>);

impl Tap for Witness {
    fn message(&self, message: &Routed<'_>) {
        lock(&self.0).push(format!("{message:?}"));
    }

    fn batch_end(&self) {}
}

/// What came of the pieces.
struct Conversation {
    published: Vec<String>,
    told: Vec<u8>,
    closed: Option<CloseReason>,
}

impl Conversation {
    /// As `server::run` does it, without a socket.
    fn hold(settings: u8, pieces: &[&[u8]]) -> Self {
        let config = ServerConfig {
            max_payload: MAX_PAYLOAD,
            max_control_line: MAX_LINE,
            max_pending: MAX_PENDING,
            max_subscriptions: 8,
            users: users(settings),
            ..ServerConfig::default()
        };
        let listen = config.listen;
        let shared = Arc::new(Shared::new(config, "server".to_owned(), listen));
        let witness = Arc::new(Witness::default());
        shared.tap(&crate::pattern::Pattern::all(), witness.clone());
        let client = new_client(&shared, listen, None);
        let mut connection = Connection::new(Arc::clone(&client), Arc::clone(&shared), String::new());
        let (mut buffer, mut touched) = (Vec::new(), Touched::default());
        'read: for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let (next, done) = connection.process(&buffer, &mut touched);
                buffer.drain(..done);
                shared.flush_touched(&mut touched);
                match next {
                    Next::Read(needed) => {
                        assert!(buffer.len() < needed && needed <= LONGEST, "{needed} needed with {} there", buffer.len());
                        break;
                    }
                    Next::Authenticate(_) => {
                        let user = connection.pending_connect.as_ref().and_then(|connect| shared.users().authenticate(connect, ""));
                        connection.authenticated(user.as_ref());
                    }
                    Next::Close => break 'read,
                }
            }
            if client.out.is_closed() {
                break;
            }
        }
        // One message beyond the bound closes the connection.
        assert!(client.out.pending() <= MAX_PENDING + LONGEST + 1024, "{} wait", client.out.pending());
        drop(connection);
        assert_eq!(shared.stats().subscriptions, 1, "the witness alone is left");
        let published = std::mem::take(&mut *lock(&witness.0));
        Self { published, told: client.out.take(), closed: client.out.reason() }
    }
}
