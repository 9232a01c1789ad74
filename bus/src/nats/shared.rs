//! What all connections share: who is there, who is subscribed to what, and how a message gets from one to the others.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::Serialize;
use tokio::sync::Semaphore;
use tracing::warn;

use super::auth::Users;
use super::config::ServerConfig;
use super::connection::{Client, Described, Subscription, Tapped};
use super::outbound::{CloseReason, Room, Spare};
use super::route::{Delivered, InterestHook, RoomHook, Routed, Router, Tap, TapId};
use super::sublist::{Matches, Sublist};
use crate::log::lock;
use crate::pattern::Pattern;

/// The NATS version whose behaviour clients may count on: they choose by it what they ask for.
pub const NATS_VERSION: &str = "2.10.29";

/// Who gets a message.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Client(Arc<Subscription>),
    Tap(Arc<Tapped>),
}

impl Target {
    fn is_crowded(&self) -> bool {
        matches!(self, Self::Client(subscription) if subscription.client.out.is_crowded())
    }
}

/// Who got something and must be woken.
#[derive(Default)]
pub(crate) struct Touched {
    pub(crate) clients: Vec<Arc<Client>>,
    pub(crate) taps: Vec<Arc<Tapped>>,
    pub(crate) ended: Vec<(Box<[u8]>, u64)>,
    /// Those of the clients that have too much to read already.
    pub(crate) crowded: Vec<Arc<Client>>,
    /// So many of those who are addressed (see [`Subscription::is_addressed`]) got something since this was set to 0.
    pub(crate) addressed: usize,
    /// So many of them have too much to read.
    pub(crate) overfed: usize,
}

impl Touched {
    fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.taps.is_empty() && self.ended.is_empty()
    }
}

/// TLS handshakes at a time: further ones are closed.
const MOST_HANDSHAKES: usize = 1024;

/// Where [`Router::deliver`] went last on this thread: a backlog goes to one subject, message by message.
struct LastDelivery {
    server: u64,
    generation: u64,
    to: Box<str>,
    matches: Arc<Matches<Target>>,
}

thread_local! {
    static LAST_DELIVERY: RefCell<Option<LastDelivery>> = const { RefCell::new(None) };
    /// Who got something through [`Router`] on this thread since its last flush.
    static TOUCHED: RefCell<Touched> = RefCell::default();
}

/// What was refused or went wrong since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) permission_violations: AtomicU64,
    pub(crate) accept_errors: AtomicU64,
    pub(crate) closed: Mutex<BTreeMap<CloseReason, u64>>,
    /// Of connections that are gone.
    pub(crate) received_messages: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent_messages: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
}

/// One connection in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionStats {
    /// Its number.
    pub cid: u64,
    /// Where it comes from.
    pub address: SocketAddr,
    /// What it says of itself.
    #[serde(flatten)]
    pub described: Described,
    /// Seconds since it came.
    pub uptime_s: u64,
    /// Its subscriptions.
    pub subscriptions: u64,
    /// Bytes that wait to be sent to it.
    pub pending_bytes: u64,
    /// Messages from it.
    pub in_msgs: u64,
    /// Their bytes.
    pub in_bytes: u64,
    /// Messages to it.
    pub out_msgs: u64,
    /// Bytes sent to it.
    pub out_bytes: u64,
    /// Time of its last answer to a ping in microseconds; 0 before the first.
    pub rtt_us: u64,
}

/// The server in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct ServerStats {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Connections now.
    pub connections: Vec<ConnectionStats>,
    /// Connections ever.
    pub total_connections: u64,
    /// Subscriptions now, of clients and of the process itself.
    pub subscriptions: u64,
    /// Connections closed because they did not read.
    pub slow_consumers: u64,
    /// Connections closed, by reason.
    pub closed: BTreeMap<CloseReason, u64>,
    /// Publications and subscriptions refused for lack of permission.
    pub permission_violations: u64,
    /// Connections that could not be accepted (too many open files, for example).
    pub accept_errors: u64,
    /// Messages from clients.
    pub in_msgs: u64,
    /// Their bytes.
    pub in_bytes: u64,
    /// Messages to clients.
    pub out_msgs: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) config: ServerConfig,
    /// Tells servers of one process apart.
    serial: u64,
    pub(crate) id: String,
    pub(crate) listen: SocketAddr,
    pub(crate) jetstream: AtomicBool,
    pub(crate) lame_duck: AtomicBool,
    /// Whoever comes now comes too late.
    pub(crate) closing: AtomicBool,
    pub(crate) clients: RwLock<HashMap<u64, Arc<Client>>>,
    pub(crate) counters: Counters,
    pub(crate) spare: Arc<Spare>,
    pub(crate) room: Arc<Room>,
    /// TLS handshakes at a time.
    pub(crate) handshakes: Semaphore,
    users: RwLock<Arc<Users>>,
    subscriptions: RwLock<Sublist<Target>>,
    generation: AtomicU64,
    ids: AtomicU64,
    taps: Mutex<HashMap<u64, Pattern>>,
    hooks: RwLock<Vec<InterestHook>>,
    random: AtomicU64,
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(config: ServerConfig, id: String, listen: SocketAddr) -> Self {
        let users = RwLock::new(Arc::new(config.users.clone()));
        let handshakes = Semaphore::new(config.max_connections.min(MOST_HANDSHAKES));
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        Self {
            config,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            id,
            listen,
            jetstream: AtomicBool::new(false),
            lame_duck: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            clients: RwLock::default(),
            counters: Counters::default(),
            spare: Arc::default(),
            room: Arc::default(),
            handshakes,
            users,
            subscriptions: RwLock::default(),
            generation: AtomicU64::new(1),
            ids: AtomicU64::new(0),
            taps: Mutex::default(),
            hooks: RwLock::default(),
            random: AtomicU64::new(0x2545_f491_4f6c_dd1d),
        }
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn users(&self) -> Arc<Users> {
        Arc::clone(&read(&self.users))
    }

    pub(crate) fn set_users(&self, users: Users) {
        *write(&self.users) = Arc::new(users);
    }

    /// Moves whenever somebody subscribes or leaves.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn matches(&self, subject: &[u8]) -> Matches<Target> {
        read(&self.subscriptions).matches(subject)
    }

    pub(crate) fn subscribe(&self, subscription: &Arc<Subscription>) {
        let Subscription { id, subject, queue, .. } = &**subscription;
        write(&self.subscriptions).insert(subject, queue.as_deref(), *id, Target::Client(Arc::clone(subscription)));
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.tell_interest(subject, true);
    }

    pub(crate) fn unsubscribe(&self, subscription: &Subscription) {
        subscription.ended.store(true, Ordering::Relaxed);
        self.remove(&subscription.subject, subscription.id);
    }

    fn remove(&self, subject: &[u8], id: u64) {
        let last = write(&self.subscriptions).remove(subject, id);
        self.generation.fetch_add(1, Ordering::AcqRel);
        if last {
            self.tell_interest(subject, false);
        }
    }

    fn tell_interest(&self, subject: &[u8], interested: bool) {
        let hooks = read(&self.hooks).clone();
        if hooks.is_empty() {
            return;
        }
        if let Ok(subject) = std::str::from_utf8(subject) {
            hooks.iter().for_each(|hook| hook(subject, interested));
        }
    }

    /// INFO, as this client sees it.
    pub(crate) fn info(&self, client: &Client, nonce: &str, second: bool) -> String {
        #[derive(Serialize)]
        struct Info<'a> {
            server_id: &'a str,
            server_name: &'a str,
            version: &'a str,
            proto: u8,
            git_commit: &'a str,
            go: &'a str,
            host: String,
            port: u16,
            headers: bool,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            auth_required: bool,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            tls_required: bool,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            tls_verify: bool,
            max_payload: usize,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            jetstream: bool,
            client_id: u64,
            client_ip: String,
            #[serde(skip_serializing_if = "str::is_empty")]
            nonce: &'a str,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            ldm: bool,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            connect_info: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            remote_account: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            api_lvl: Option<u64>,
        }
        let jetstream = self.jetstream.load(Ordering::Relaxed);
        let info = Info {
            server_id: &self.id,
            server_name: &self.config.name,
            version: NATS_VERSION,
            proto: 1,
            git_commit: env!("CARGO_PKG_VERSION"),
            go: "bartizan",
            host: self.listen.ip().to_string(),
            port: self.listen.port(),
            headers: true,
            auth_required: self.users().required(),
            tls_required: self.config.tls.is_some(),
            tls_verify: self.config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
            max_payload: self.config.max_payload,
            jetstream,
            client_id: client.id,
            client_ip: client.address.ip().to_string(),
            nonce,
            ldm: self.lame_duck.load(Ordering::Relaxed),
            connect_info: second,
            remote_account: second.then_some("$G"),
            api_lvl: jetstream.then_some(crate::jetstream::API_LEVEL),
        };
        // A struct of strings and numbers has no failing serialization.
        format!("INFO {} \r\n", serde_json::to_string(&info).unwrap_or_default())
    }

    /// Gives a message to everybody in `matches`; gives how many took it.
    pub(crate) fn hand_out(
        &self,
        matches: &Matches<Target>,
        message: &Routed<'_>,
        from: Option<&Client>,
        random: &mut u64,
        touched: &mut Touched,
    ) -> usize {
        let mut delivered = 0;
        for target in &matches.plain {
            delivered += usize::from(give(target, message, from, touched));
        }
        for (_, members) in &matches.groups {
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            let start = (*random % members.len() as u64) as usize;
            let member = |n: usize| &members[(start + n) % members.len()];
            // Who has too much to read already is asked when nobody else takes it.
            let mut took = |any: bool| {
                (0..members.len()).map(member).any(|member| (any || !member.is_crowded()) && give(member, message, from, touched))
            };
            delivered += usize::from(took(false) || took(true));
        }
        delivered
    }

    /// Wakes everybody who got something.
    pub(crate) fn flush_touched(&self, touched: &mut Touched) {
        while !touched.is_empty() {
            for tapped in std::mem::take(&mut touched.taps) {
                tapped.touched.store(false, Ordering::Release);
                tapped.tap.batch_end();
            }
            for (subject, id) in std::mem::take(&mut touched.ended) {
                self.remove(&subject, id);
            }
            for client in std::mem::take(&mut touched.clients) {
                client.out.flush();
            }
            TOUCHED.with_borrow_mut(|more| {
                touched.clients.append(&mut more.clients);
                touched.taps.append(&mut more.taps);
                touched.ended.append(&mut more.ended);
            });
        }
    }

    /// The clients that are subscribed to a subject.
    fn clients_of(&self, to: &str) -> Arc<Matches<Target>> {
        let generation = self.generation();
        LAST_DELIVERY.with_borrow_mut(|last| {
            if let Some(last) = last.as_ref().filter(|last| last.server == self.serial && last.generation == generation && &*last.to == to)
            {
                return Arc::clone(&last.matches);
            }
            let mut matches = self.matches(to.as_bytes());
            matches.plain.retain(|target| matches!(target, Target::Client(_)));
            for (_, members) in &mut matches.groups {
                members.retain(|target| matches!(target, Target::Client(_)));
            }
            matches.groups.retain(|(_, members)| !members.is_empty());
            let matches = Arc::new(matches);
            *last = Some(LastDelivery { server: self.serial, generation, to: to.into(), matches: Arc::clone(&matches) });
            matches
        })
    }

    fn step_random(&self) -> u64 {
        self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed) | 1
    }

    pub(crate) fn stats(&self) -> ServerStats {
        let clients: Vec<Arc<Client>> = read(&self.clients).values().cloned().collect();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut connections: Vec<ConnectionStats> = clients
            .iter()
            .map(|client| ConnectionStats {
                cid: client.id,
                address: client.address,
                described: lock(&client.described).clone(),
                uptime_s: client.since.elapsed().as_secs(),
                subscriptions: load(&client.subscriptions),
                pending_bytes: client.out.pending() as u64,
                in_msgs: load(&client.received_messages),
                in_bytes: load(&client.received_bytes),
                out_msgs: load(&client.out.sent_messages),
                out_bytes: load(&client.out.sent_bytes),
                rtt_us: load(&client.rtt_us),
            })
            .collect();
        connections.sort_by_key(|connection| connection.cid);
        let closed = lock(&self.counters.closed).clone();
        let of = |reason| closed.get(&reason).copied().unwrap_or(0);
        let sum = |gone: &AtomicU64, of: fn(&ConnectionStats) -> u64| load(gone) + connections.iter().map(of).sum::<u64>();
        ServerStats {
            listen: self.listen,
            total_connections: load(&self.counters.connections),
            subscriptions: read(&self.subscriptions).len() as u64,
            slow_consumers: of(CloseReason::SlowConsumerPending) + of(CloseReason::SlowConsumerDeadline),
            permission_violations: load(&self.counters.permission_violations),
            accept_errors: load(&self.counters.accept_errors),
            in_msgs: sum(&self.counters.received_messages, |connection| connection.in_msgs),
            in_bytes: sum(&self.counters.received_bytes, |connection| connection.in_bytes),
            out_msgs: sum(&self.counters.sent_messages, |connection| connection.out_msgs),
            out_bytes: sum(&self.counters.sent_bytes, |connection| connection.out_bytes),
            closed,
            connections,
        }
    }

    /// A connection is gone.
    pub(crate) fn gone(&self, client: &Client) {
        write(&self.clients).remove(&client.id);
        let reason = client.out.reason().unwrap_or(CloseReason::ClientClosed);
        *lock(&self.counters.closed).entry(reason).or_default() += 1;
        if matches!(reason, CloseReason::SlowConsumerPending | CloseReason::SlowConsumerDeadline) {
            let Described { name, user, .. } = &*lock(&client.described);
            warn!(cid = client.id, address = %client.address, name, user, reason = reason.as_str(), "a client did not read what it had asked for: closed");
        }
        for (sum, part) in [
            (&self.counters.received_messages, &client.received_messages),
            (&self.counters.received_bytes, &client.received_bytes),
            (&self.counters.sent_messages, &client.out.sent_messages),
            (&self.counters.sent_bytes, &client.out.sent_bytes),
        ] {
            sum.fetch_add(part.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

fn give(target: &Target, message: &Routed<'_>, from: Option<&Client>, touched: &mut Touched) -> bool {
    match target {
        Target::Client(subscription) => {
            let own = from.is_some_and(|from| from.id == subscription.client.id && !from.echo.load(Ordering::Relaxed));
            !own && subscription.give(message, touched)
        }
        Target::Tap(tapped) => {
            tapped.tap.message(message);
            if !tapped.touched.swap(true, Ordering::AcqRel) {
                touched.taps.push(Arc::clone(tapped));
            }
            true
        }
    }
}

impl Router for Shared {
    fn publish(&self, message: &Routed<'_>) -> usize {
        let matches = self.matches(message.subject.as_bytes());
        if matches.is_empty() {
            return 0;
        }
        let mut touched = TOUCHED.take();
        let delivered = self.hand_out(&matches, message, None, &mut self.step_random(), &mut touched);
        put_back(touched);
        delivered
    }

    fn deliver(&self, to: &str, message: &Routed<'_>) -> Delivered {
        let matches = self.clients_of(to);
        if matches.is_empty() {
            return Delivered::default();
        }
        let mut touched = TOUCHED.take();
        (touched.addressed, touched.overfed) = (0, 0);
        let took = self.hand_out(&matches, message, None, &mut self.step_random(), &mut touched);
        // Who reads is not kept waiting for who does not.
        let crowded = touched.addressed > 0 && touched.overfed == touched.addressed;
        put_back(touched);
        Delivered { took, crowded }
    }

    fn is_crowded(&self, subject: &str) -> bool {
        // Each of them is asked, so that each of them tells.
        let asked = |target: &Target| match target {
            Target::Client(subscription) if subscription.is_alive() && subscription.is_addressed() => {
                Some(subscription.client.out.await_room())
            }
            _ => None,
        };
        let matches = self.clients_of(subject);
        let plain: Vec<bool> = matches.plain.iter().filter_map(asked).collect();
        // A group has room as long as one of its members has.
        let groups = matches.groups.iter().filter_map(|(_, members)| {
            let members: Vec<bool> = members.iter().filter_map(asked).collect();
            (!members.is_empty()).then(|| members.iter().all(|crowded| *crowded))
        });
        let all: Vec<bool> = plain.into_iter().chain(groups).collect();
        !all.is_empty() && all.iter().all(|crowded| *crowded)
    }

    fn flush(&self) {
        let mut touched = TOUCHED.take();
        self.flush_touched(&mut touched);
    }

    fn has_interest(&self, subject: &str, queue: Option<&str>) -> bool {
        let mut alive = false;
        self.matches(subject.as_bytes()).each_of(queue, |target| {
            alive |= matches!(target, Target::Client(subscription) if subscription.is_alive());
        });
        alive
    }

    fn tap(&self, pattern: &Pattern, tap: Arc<dyn Tap>) -> TapId {
        let id = self.next_id();
        lock(&self.taps).insert(id, pattern.clone());
        let tapped = Arc::new(Tapped { id, tap, touched: AtomicBool::new(false) });
        write(&self.subscriptions).insert(pattern.as_str().as_bytes(), None, id, Target::Tap(tapped));
        self.generation.fetch_add(1, Ordering::AcqRel);
        TapId(id)
    }

    fn untap(&self, id: TapId) {
        if let Some(pattern) = lock(&self.taps).remove(&id.0) {
            write(&self.subscriptions).remove(pattern.as_str().as_bytes(), id.0);
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn on_interest(&self, hook: InterestHook) {
        write(&self.hooks).push(hook);
    }

    fn on_room(&self, hook: RoomHook) {
        self.room.listen(hook);
    }
}

/// What was added meanwhile, by taps that delivered something, stays.
fn put_back(mut touched: Touched) {
    TOUCHED.with_borrow_mut(|more| {
        touched.clients.append(&mut more.clients);
        touched.taps.append(&mut more.taps);
        touched.ended.append(&mut more.ended);
        *more = touched;
    });
}
