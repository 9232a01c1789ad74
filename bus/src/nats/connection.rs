//! One client's side of the conversation: what each operation does. No socket in here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use super::auth::{Connect, Permissions, User};
use super::outbound::{CloseReason, Outbound};
use super::parse::{self, Op, ParseError, Parsed};
use super::route::{Routed, Tap};
use super::shared::{Shared, Target, Touched};
use super::sublist::Matches;
use crate::pattern::Pattern;
use crate::subject::is_subject;

/// Where clients want their answers: <https://docs.nats.io/nats-concepts/core-nats/reqreply>.
pub(crate) const INBOX: &str = "_INBOX.";
/// Subjects whose receivers a connection remembers.
const REMEMBERED: usize = 4096;
/// Subscriptions of one connection, ended ones too, that nobody looks through before there are more.
const ENDED_KEPT: usize = 64;

/// What other connections and statistics see of a client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) since: Instant,
    pub(crate) out: Outbound,
    pub(crate) echo: AtomicBool,
    pub(crate) headers: AtomicBool,
    /// It understands INFO at any time.
    pub(crate) async_info: AtomicBool,
    pub(crate) authenticated: AtomicBool,
    pub(crate) received_messages: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) subscriptions: AtomicU64,
    /// Some of its subscriptions have ended by their count since anybody looked.
    pub(crate) some_ended: AtomicBool,
    pub(crate) pings_out: AtomicU32,
    /// Milliseconds since `since` when it last said something.
    pub(crate) last_heard_ms: AtomicU64,
    pub(crate) rtt_us: AtomicU64,
    pub(crate) ping_sent_us: AtomicU64,
    pub(crate) described: std::sync::Mutex<Described>,
}

/// What a client says of itself.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Described {
    /// Its name for itself.
    pub name: String,
    /// Its library's language.
    pub lang: String,
    /// Its library's version.
    pub version: String,
    /// Who it authenticated as.
    pub user: String,
}

impl Client {
    pub(crate) fn error(&self, text: &str) {
        self.out.push(|out| {
            out.extend_from_slice(b"-ERR '");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"'\r\n");
        });
        self.out.flush();
    }
}

/// A client's subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) id: u64,
    pub(crate) client: Arc<Client>,
    pub(crate) subject: Box<[u8]>,
    pub(crate) sid: Box<[u8]>,
    pub(crate) queue: Option<Box<[u8]>>,
    /// Messages delivered since SUB.
    pub(crate) delivered: AtomicU64,
    /// It ends with so many; 0 for never.
    pub(crate) max: AtomicU64,
    pub(crate) ended: AtomicBool,
    /// Delivery is filtered: a pattern that the client may subscribe to in part.
    pub(crate) filtered: Option<Arc<Permissions>>,
    /// A module's: it does not learn where others have their answers sent, only where JetStream wants its own.
    pub(crate) of_module: bool,
}

/// What the reader must do behind a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Read on; at least so many bytes are needed.
    Read(usize),
    /// Find out who this is (slowly, perhaps), then go on behind so many bytes.
    Authenticate(usize),
    /// End it.
    Close,
}

/// Who gets what is published on a subject.
#[derive(Clone)]
struct Receivers {
    allowed: bool,
    valid: bool,
    matches: Arc<Matches<Target>>,
}

/// The reader's state.
pub(crate) struct Connection {
    pub(crate) client: Arc<Client>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) nonce: String,
    pub(crate) pending_connect: Option<Connect>,
    permissions: Option<Arc<Permissions>>,
    module: Option<String>,
    subscriptions: HashMap<Box<[u8]>, Arc<Subscription>>,
    verbose: bool,
    pedantic: bool,
    no_responders: bool,
    second_info: bool,
    remembered: HashMap<Box<[u8]>, Receivers, foldhash::fast::RandomState>,
    generation: u64,
    random: u64,
    /// With so many subscriptions it is worth to look for those that have ended.
    look_for_ended_at: usize,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.drop_subscriptions();
    }
}

impl Connection {
    pub(crate) fn new(client: Arc<Client>, shared: Arc<Shared>, nonce: String) -> Self {
        let random = client.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            client,
            shared,
            nonce,
            pending_connect: None,
            permissions: None,
            module: None,
            subscriptions: HashMap::new(),
            // Until CONNECT says otherwise.
            verbose: true,
            pedantic: true,
            no_responders: false,
            second_info: false,
            remembered: HashMap::default(),
            generation: 0,
            random,
            look_for_ended_at: ENDED_KEPT,
        }
    }

    /// Does what the bytes say; gives what comes next and how many bytes are done with. Whoever got something is in `touched`.
    pub(crate) fn process(&mut self, bytes: &[u8], touched: &mut Touched) -> (Next, usize) {
        let mut at = 0;
        let (mut messages, mut size) = (0, 0);
        let next = loop {
            // It may be closed before the first operation: by a login that failed.
            if self.client.out.is_closed() {
                break Next::Close;
            }
            // At the first byte: nothing of somebody unknown is waited for and kept, except a CONNECT.
            if !self.client.authenticated.load(Ordering::Relaxed) && bytes.get(at).is_some_and(|first| !matches!(first, b'C' | b'c')) {
                self.client.error("Authorization Violation");
                self.client.out.close(CloseReason::AuthenticationFailed);
                break Next::Close;
            }
            let (max_line, max_payload) = (self.shared.config.max_control_line, self.shared.config.max_payload);
            match parse::parse(&bytes[at..], max_line, max_payload) {
                Ok(Parsed::Op(op, len)) => {
                    at += len;
                    if let Op::Pub { headers, payload, .. } = &op {
                        messages += 1;
                        size += (headers.len() + payload.len()) as u64;
                    }
                    match self.operation(&op, touched) {
                        None => {}
                        Some(next) => break next,
                    }
                }
                Ok(Parsed::Incomplete(needed)) => break Next::Read(needed),
                Err(error) => break self.refuse(error),
            }
        };
        self.client.received_messages.fetch_add(messages, Ordering::Relaxed);
        self.client.received_bytes.fetch_add(size, Ordering::Relaxed);
        (next, at)
    }

    fn refuse(&self, error: ParseError) -> Next {
        match error {
            ParseError::UnknownOperation => self.client.error("Unknown Protocol Operation"),
            ParseError::LineTooLong => self.client.error("maximum control line exceeded"),
            ParseError::PayloadTooLarge => self.client.error("Maximum Payload Violation"),
            ParseError::BadArguments => {}
        }
        self.client.out.close(CloseReason::ProtocolError);
        Next::Close
    }

    fn end(&self, text: &str, reason: CloseReason) -> Option<Next> {
        self.client.error(text);
        self.client.out.close(reason);
        Some(Next::Close)
    }

    fn operation(&mut self, op: &Op<'_>, touched: &mut Touched) -> Option<Next> {
        if !self.client.authenticated.load(Ordering::Relaxed) && !matches!(op, Op::Connect(_)) {
            return self.end("Authorization Violation", CloseReason::AuthenticationFailed);
        }
        match *op {
            Op::Pub { subject, reply, headers, payload } => self.publish(subject, reply, headers, payload, touched),
            Op::Sub { subject, queue, sid } => {
                self.subscribe(subject, queue, sid);
                None
            }
            Op::Unsub { sid, max } => {
                self.unsubscribe(sid, max);
                self.ok();
                None
            }
            Op::Ping => {
                self.send(b"PONG\r\n");
                if self.second_info {
                    self.second_info = false;
                    let info = self.shared.info(&self.client, &self.nonce, true);
                    self.send(info.as_bytes());
                }
                None
            }
            Op::Pong => {
                self.client.pings_out.store(0, Ordering::Relaxed);
                let now_us = self.client.since.elapsed().as_micros() as u64;
                let sent_us = self.client.ping_sent_us.swap(0, Ordering::Relaxed);
                if sent_us > 0 {
                    self.client.rtt_us.store(now_us.saturating_sub(sent_us), Ordering::Relaxed);
                }
                None
            }
            Op::Connect(json) => self.connect(json),
            Op::Ignored => None,
        }
    }

    /// To this client, flushed at the end of the batch.
    fn send(&self, bytes: &[u8]) {
        if self.client.out.push(|out| out.extend_from_slice(bytes)) {
            self.client.out.flush();
        }
    }

    fn ok(&self) {
        if self.verbose {
            self.send(b"+OK\r\n");
        }
    }

    fn connect(&mut self, json: &[u8]) -> Option<Next> {
        // By way of a map: of a field that is there twice the last one counts.
        let map = serde_json::from_slice::<serde_json::Map<_, _>>(json).map(serde_json::Value::Object);
        let Ok(connect) = map.and_then(serde_json::from_value::<Connect>) else {
            self.client.out.close(CloseReason::ProtocolError);
            return Some(Next::Close);
        };
        let headers = connect.headers.unwrap_or(false);
        if !matches!(connect.protocol, None | Some(0 | 1)) {
            return self.end("invalid client protocol", CloseReason::ProtocolError);
        }
        if connect.no_responders == Some(true) && !headers {
            return self.end("no responders requires headers support", CloseReason::ProtocolError);
        }
        if connect.account.as_ref().is_some_and(|account| !account.is_empty()) || connect.new_account == Some(true) {
            return self.end("Authorization Violation", CloseReason::AuthenticationFailed);
        }
        self.pending_connect = Some(connect);
        Some(Next::Authenticate(0))
    }

    /// Goes on with the CONNECT that was read: as this user, or as nobody.
    pub(crate) fn authenticated(&mut self, user: Option<&User>) -> bool {
        let Some(connect) = self.pending_connect.take() else { return false };
        if self.shared.users().required() && user.is_none() {
            self.end("Authorization Violation", CloseReason::AuthenticationFailed);
            return false;
        }
        // A second CONNECT begins anew.
        self.drop_subscriptions();
        self.remembered.clear();
        self.permissions = user.and_then(Permissions::of);
        self.module = user.and_then(|user| user.module.clone());
        self.verbose = connect.verbose.unwrap_or(true);
        self.pedantic = connect.pedantic.unwrap_or(true);
        self.no_responders = connect.no_responders.unwrap_or(false);
        self.second_info = connect.protocol == Some(1);
        let Client { echo, headers, async_info, authenticated, described, .. } = &*self.client;
        echo.store(connect.echo.unwrap_or(true), Ordering::Relaxed);
        headers.store(connect.headers.unwrap_or(false), Ordering::Relaxed);
        async_info.store(connect.protocol == Some(1), Ordering::Relaxed);
        authenticated.store(true, Ordering::Relaxed);
        *crate::log::lock(described) = Described {
            name: connect.name.unwrap_or_default(),
            lang: connect.lang.unwrap_or_default(),
            version: connect.version.unwrap_or_default(),
            user: user.map(|user| user.name().to_owned()).unwrap_or_default(),
        };
        self.ok();
        true
    }

    fn subscribe(&mut self, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
        let pattern = std::str::from_utf8(subject).ok().and_then(|text| text.parse::<Pattern>().ok());
        let allowed = |pattern: &Pattern| {
            let others_inboxes = self.module.is_some() && !keeps_to_one_inbox(pattern.as_str());
            !others_inboxes && self.permissions.as_ref().is_none_or(|permissions| permissions.subscribe.allows_pattern(pattern))
        };
        if let Some(pattern) = pattern.as_ref().filter(|pattern| !allowed(pattern)) {
            let queue = queue.map(|queue| format!(" using queue \"{}\"", String::from_utf8_lossy(queue))).unwrap_or_default();
            self.shared.counters.permission_violations.fetch_add(1, Ordering::Relaxed);
            return self.client.error(&format!("Permissions Violation for Subscription to \"{pattern}\"{queue}"));
        }
        match self.subscriptions.get(sid) {
            // One that has got all it asked for lives no more, though nobody has cleared it away yet: its sid is free.
            Some(known) if known.ended.load(Ordering::Relaxed) => self.unsubscribe(sid, None),
            Some(_) => return self.ok(),
            None => {}
        }
        let Some(pattern) = pattern else { return self.client.error("Invalid Subject") };
        if self.subscriptions.len() >= self.look_for_ended_at.min(self.shared.config.max_subscriptions) {
            self.forget_ended();
            self.look_for_ended_at = 2 * self.subscriptions.len() + ENDED_KEPT;
        }
        if self.subscriptions.len() >= self.shared.config.max_subscriptions {
            return self.client.error("maximum subscriptions exceeded");
        }
        let denied = |permissions: &&Arc<Permissions>| permissions.subscribe.deny.iter().any(|deny| deny.overlaps(&pattern));
        let subscription = Arc::new(Subscription {
            id: self.shared.next_id(),
            client: Arc::clone(&self.client),
            subject: subject.into(),
            sid: sid.into(),
            queue: queue.map(|queue| self.queue_group(subject, queue)),
            delivered: AtomicU64::new(0),
            max: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            filtered: self.permissions.as_ref().filter(denied).cloned(),
            of_module: self.module.is_some(),
        });
        self.subscriptions.insert(sid.into(), Arc::clone(&subscription));
        self.client.subscriptions.fetch_add(1, Ordering::Relaxed);
        self.shared.subscribe(&subscription);
        self.ok();
    }

    /// A module's groups are its own: it takes no share of what others' members get. In its inbox nobody else is, and JetStream delivers
    /// to groups there by their names.
    fn queue_group(&self, subject: &[u8], queue: &[u8]) -> Box<[u8]> {
        match &self.module {
            Some(module) if !subject.starts_with(INBOX.as_bytes()) => [module.as_bytes(), b" ", queue].concat().into(),
            _ => queue.into(),
        }
    }

    fn unsubscribe(&mut self, sid: &[u8], max: Option<u64>) {
        let Some(subscription) = self.subscriptions.get(sid) else { return };
        let max = max.unwrap_or(0);
        if max > 0 && subscription.delivered.load(Ordering::Relaxed) < max && !subscription.ended.load(Ordering::Relaxed) {
            subscription.max.store(max, Ordering::Relaxed);
            return;
        }
        if let Some(subscription) = self.subscriptions.remove(sid) {
            self.client.subscriptions.fetch_sub(1, Ordering::Relaxed);
            self.shared.unsubscribe(&subscription);
        }
    }

    /// The client is gone, or begins anew.
    fn drop_subscriptions(&mut self) {
        for (_, subscription) in self.subscriptions.drain() {
            self.client.subscriptions.fetch_sub(1, Ordering::Relaxed);
            self.shared.unsubscribe(&subscription);
        }
    }

    /// Forgets subscriptions that ended by their count; the list of all does not have them any more.
    fn forget_ended(&mut self) {
        if !self.client.some_ended.swap(false, Ordering::Relaxed) {
            return;
        }
        let before = self.subscriptions.len();
        self.subscriptions.retain(|_, sub| !sub.ended.load(Ordering::Relaxed));
        self.client.subscriptions.fetch_sub((before - self.subscriptions.len()) as u64, Ordering::Relaxed);
    }

    /// Who gets what is published on this subject, looked up once while nobody subscribes or leaves.
    fn receivers(&mut self, subject: &[u8]) -> Receivers {
        let generation = self.shared.generation();
        if generation != self.generation || self.remembered.len() >= REMEMBERED {
            self.remembered.clear();
            self.generation = generation;
            self.forget_ended();
        }
        if let Some(receivers) = self.remembered.get(subject) {
            return receivers.clone();
        }
        let text = std::str::from_utf8(subject).ok();
        let subject_text = text.filter(|text| is_subject(text));
        // Asked for by pedantic clients only, who are told.
        let literal = |text: &str| !text.split('.').any(|token| token == "*" || token == ">");
        let valid = !self.pedantic || subject_text.is_some_and(literal);
        let reserved = subject.starts_with(b"$NRG.");
        let allowed =
            !reserved && self.permissions.as_ref().is_none_or(|permissions| text.is_some_and(|text| permissions.publish.allows(text)));
        let matches = subject_text.map(|_| Arc::new(self.shared.matches(subject))).unwrap_or_default();
        let receivers = Receivers { allowed, valid, matches };
        // No acknowledgement's subject comes twice.
        if !subject.starts_with(b"$JS.ACK.") {
            self.remembered.insert(subject.into(), receivers.clone());
        }
        receivers
    }

    fn publish(&mut self, subject: &[u8], reply: Option<&[u8]>, headers: &[u8], payload: &[u8], touched: &mut Touched) -> Option<Next> {
        let Receivers { allowed, valid, matches } = self.receivers(subject);
        if !headers.is_empty() && !self.client.headers.load(Ordering::Relaxed) {
            // Closed without a word, as nats-server does.
            self.client.out.close(CloseReason::ProtocolError);
            return Some(Next::Close);
        }
        if self.pedantic && !valid {
            self.client.error("Invalid Publish Subject");
        }
        if !allowed {
            self.shared.counters.permission_violations.fetch_add(1, Ordering::Relaxed);
            self.client.error(&format!("Permissions Violation for Publish to \"{}\"", String::from_utf8_lossy(subject)));
            return None;
        }
        // What is answered to a module goes to nobody else.
        let elsewhere = |reply: &[u8]| self.module.is_some() && !reply.starts_with(INBOX.as_bytes());
        if reply.is_some_and(|reply| reply.starts_with(b"_R_.") || elsewhere(reply)) {
            self.shared.counters.permission_violations.fetch_add(1, Ordering::Relaxed);
            let reply = String::from_utf8_lossy(reply.unwrap_or_default()).into_owned();
            self.client.error(&format!("Permissions Violation for Publish with Reply of \"{reply}\""));
            return None;
        }
        self.ok();
        let Some(message) = routed(subject, reply, headers, payload, self.module.as_deref()) else {
            // Not text: it matches nothing.
            return None;
        };
        let delivered =
            if matches.is_empty() { 0 } else { self.shared.hand_out(&matches, &message, Some(&self.client), &mut self.random, touched) };
        if delivered == 0
            && self.no_responders
            && let Some(reply) = message.reply
        {
            self.tell_no_responders(reply, message.subject);
        }
        None
    }

    fn tell_no_responders(&self, reply: &str, subject: &str) {
        let waiting = self.subscriptions.values().find(|sub| {
            sub.queue.is_none()
                && !sub.ended.load(Ordering::Relaxed)
                && std::str::from_utf8(&sub.subject)
                    .ok()
                    .and_then(|text| text.parse::<Pattern>().ok())
                    .is_some_and(|pattern| pattern.matches(reply))
        });
        let Some(waiting) = waiting else { return };
        let headers = format!("NATS/1.0 503\r\nNats-Subject: {subject}\r\n\r\n");
        let message = Routed { subject: reply, reply: None, headers: headers.as_bytes(), payload: b"", module: None };
        if waiting.client.out.push(|out| write_message(out, &message, &waiting.sid, true)) {
            waiting.client.out.flush();
        }
    }
}

/// False for a pattern of inboxes that is not about a single one.
fn keeps_to_one_inbox(pattern: &str) -> bool {
    pattern.strip_prefix(INBOX).is_none_or(|rest| !rest.starts_with(['*', '>']))
}

fn routed<'a>(
    subject: &'a [u8],
    reply: Option<&'a [u8]>,
    headers: &'a [u8],
    payload: &'a [u8],
    module: Option<&'a str>,
) -> Option<Routed<'a>> {
    let reply = match reply {
        Some(reply) => Some(std::str::from_utf8(reply).ok()?),
        None => None,
    };
    Some(Routed { subject: std::str::from_utf8(subject).ok()?, reply, headers, payload, module })
}

/// `MSG` or `HMSG`; headers are left out for who does not know them.
pub(crate) fn write_message(out: &mut Vec<u8>, message: &Routed<'_>, sid: &[u8], with_headers: bool) {
    let Routed { subject, reply, headers, payload, .. } = *message;
    let headers = if with_headers { headers } else { b"" };
    out.reserve(subject.len() + sid.len() + reply.map_or(0, str::len) + headers.len() + payload.len() + 40);
    out.extend_from_slice(if headers.is_empty() { b"MSG " } else { b"HMSG " });
    out.extend_from_slice(subject.as_bytes());
    out.push(b' ');
    out.extend_from_slice(sid);
    out.push(b' ');
    if let Some(reply) = reply {
        out.extend_from_slice(reply.as_bytes());
        out.push(b' ');
    }
    let mut digits = itoa::Buffer::new();
    if !headers.is_empty() {
        out.extend_from_slice(digits.format(headers.len()).as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(digits.format(headers.len() + payload.len()).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

impl Subscription {
    /// Not one of those who look at everything that goes by, such as `nats sub '>'`: they hold up nobody.
    pub(crate) fn is_addressed(&self) -> bool {
        !self.subject.starts_with(b"*") && !self.subject.starts_with(b">")
    }

    /// Whether it may still get something.
    pub(crate) fn is_alive(&self) -> bool {
        !self.client.out.is_closed() && !self.ended.load(Ordering::Relaxed)
    }

    /// Puts a message into the client's queue. True when it was taken.
    pub(crate) fn give(&self, message: &Routed<'_>, touched: &mut Touched) -> bool {
        let client = &self.client;
        if !self.is_alive() {
            return false;
        }
        if self.filtered.as_ref().is_some_and(|permissions| !permissions.subscribe.allows(message.subject)) {
            return false;
        }
        let max = self.max.load(Ordering::Relaxed);
        let delivered = self.delivered.fetch_add(1, Ordering::Relaxed) + 1;
        if max > 0 && delivered > max {
            self.ended.store(true, Ordering::Relaxed);
            return false;
        }
        client.out.sent_messages.fetch_add(1, Ordering::Relaxed);
        let message = &Routed { reply: message.reply.filter(|reply| !self.of_module || reply.starts_with("$JS.")), ..*message };
        let with_headers = client.headers.load(Ordering::Relaxed);
        if client.out.push(|out| write_message(out, message, &self.sid, with_headers)) {
            touched.clients.push(Arc::clone(client));
        }
        touched.addressed += usize::from(self.is_addressed());
        if client.out.is_crowded() {
            touched.overfed += usize::from(self.is_addressed());
            if !touched.crowded.iter().any(|known| known.id == client.id) {
                touched.crowded.push(Arc::clone(client));
            }
        }
        if max > 0 && delivered == max {
            self.ended.store(true, Ordering::Relaxed);
            client.some_ended.store(true, Ordering::Relaxed);
            touched.ended.push((self.subject.clone(), self.id));
        }
        true
    }
}

/// A tap's registration.
pub(crate) struct Tapped {
    pub(crate) id: u64,
    pub(crate) tap: Arc<dyn Tap>,
    /// Its end of batch is owed.
    pub(crate) touched: AtomicBool,
}

impl std::fmt::Debug for Tapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tapped").field("id", &self.id).finish_non_exhaustive()
    }
}
