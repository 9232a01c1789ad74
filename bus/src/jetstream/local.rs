//! JetStream without a server: core NATS with one client that listens to everything, and streams in memory.

use std::sync::{Arc, Mutex};

use super::{StoreFactory, StreamConfig};
use crate::error::OpenError;
use crate::log::lock;
use crate::nats::route::{Delivered, InterestHook, RoomHook, Routed, Router, Tap, TapId};
use crate::pattern::Pattern;
use crate::store::{MemoryStore, Store};

/// Where that client wants its answers.
pub(crate) const REPLY: &str = "_INBOX.answer";

/// Opens streams in memory, whatever they ask for.
pub(crate) struct InMemory;

impl StoreFactory for InMemory {
    fn open(&self, config: &StreamConfig) -> Result<(Arc<dyn Store>, bool), OpenError> {
        Ok((Arc::new(MemoryStore::new(config.limits())), false))
    }
}

/// Who receives what is published on a pattern.
pub(crate) type Tapped = (TapId, Pattern, Arc<dyn Tap>);

/// Where to, headers, content.
type Sent = (String, Vec<u8>, Vec<u8>);

/// Core NATS with one client that listens to everything.
#[derive(Default)]
pub(crate) struct TestRouter {
    pub(crate) taps: Mutex<Vec<Tapped>>,
    made: Mutex<u64>,
    /// Where something was sent, and what.
    sent: Mutex<Vec<Sent>>,
}

impl TestRouter {
    fn tapped(&self, subject: &str) -> Vec<Arc<dyn Tap>> {
        lock(&self.taps).iter().filter(|(_, pattern, _)| pattern.matches(subject)).map(|(.., tap)| Arc::clone(tap)).collect()
    }

    /// As from a client whose socket has nothing more.
    pub(crate) fn client(&self, subject: &str, reply: Option<&str>, headers: &[u8], payload: &[u8]) {
        let taps = self.tapped(subject);
        taps.iter().for_each(|tap| tap.message(&Routed { subject, reply, headers, payload, module: None }));
        taps.iter().for_each(|tap| tap.batch_end());
    }

    /// What came to a subject since it was asked last.
    pub(crate) fn answers(&self, to: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        std::mem::take(&mut *lock(&self.sent))
            .into_iter()
            .filter(|(subject, ..)| subject == to)
            .map(|(_, headers, payload)| (headers, payload))
            .collect()
    }
}

impl Router for TestRouter {
    fn publish(&self, message: &Routed<'_>) -> usize {
        self.client(message.subject, message.reply, message.headers, message.payload);
        self.deliver(message.subject, message).took
    }

    fn deliver(&self, to: &str, message: &Routed<'_>) -> Delivered {
        lock(&self.sent).push((to.to_owned(), message.headers.to_vec(), message.payload.to_vec()));
        Delivered { took: 1, crowded: false }
    }

    fn is_crowded(&self, _: &str) -> bool {
        false
    }

    fn flush(&self) {}

    fn has_interest(&self, _: &str, _: Option<&str>) -> bool {
        true
    }

    fn tap(&self, pattern: &Pattern, tap: Arc<dyn Tap>) -> TapId {
        let mut made = lock(&self.made);
        *made += 1;
        lock(&self.taps).push((TapId(*made), pattern.clone(), tap));
        TapId(*made)
    }

    fn untap(&self, id: TapId) {
        lock(&self.taps).retain(|(of, ..)| *of != id);
    }

    fn on_interest(&self, _: InterestHook) {}

    fn on_room(&self, _: RoomHook) {}
}
