//! From the publisher to whoever listens in this process: a reference each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::read::Read;
use super::recent::Recent;
use super::subscription::{Overflow, Subscriber, SubscriptionInfo};
use crate::log::lock;
use crate::message::{Delivery, Message, Value};
use crate::pattern::Filter;

/// Who gets what is published, and what those who are not far behind still find in memory.
#[derive(Debug, Default)]
pub(crate) struct Fan {
    /// Consumers and subscriptions that read [`Recent`]; without any it stays empty.
    readers: AtomicUsize,
    recent: Mutex<Recent>,
    subscribers: Mutex<Vec<Arc<Subscriber>>>,
}

/// A queue that has no room for a batch, and whose subscriber is waited for.
pub(super) struct Full {
    subscriber: Arc<Subscriber>,
    wanted: usize,
}

impl Full {
    /// Until there is room, or nobody to make some.
    pub(super) fn wait(self) {
        self.subscriber.wait_for_room(self.wanted);
    }
}

impl Fan {
    /// Somebody reads what was published last.
    pub(crate) fn enter(&self) {
        self.readers.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn leave(&self) {
        if self.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            lock(&self.recent).clear();
        }
    }

    /// What is found in memory; `None` where only the log can tell.
    pub(super) fn recent(&self, from: u64, max: usize, filter: &Filter, last_seq: u64) -> Option<Read> {
        lock(&self.recent).read(from, max, filter, last_seq)
    }

    pub(super) fn add(&self, subscriber: Arc<Subscriber>) {
        if subscriber.overflow() == Overflow::Spill {
            self.enter();
        }
        lock(&self.subscribers).push(subscriber);
    }

    pub(super) fn remove(&self, subscriber: &Arc<Subscriber>) {
        lock(&self.subscribers).retain(|other| !Arc::ptr_eq(other, subscriber));
        if subscriber.overflow() == Overflow::Spill {
            self.leave();
        }
        subscriber.close();
    }

    /// No publisher waits for a queue any more.
    pub(super) fn close(&self) {
        lock(&self.subscribers).iter().for_each(|subscriber| subscriber.close());
    }

    /// A subscriber that wants publishers to wait and has no room for these.
    pub(super) fn full(&self, messages: &[Message]) -> Option<Full> {
        let subscribers = lock(&self.subscribers);
        subscribers.iter().filter(|subscriber| subscriber.overflow() == Overflow::Block).find_map(|subscriber| {
            let wanted = messages.iter().filter(|message| subscriber.wants(message.subject.as_str())).count();
            (!subscriber.has_room(wanted)).then(|| Full { subscriber: Arc::clone(subscriber), wanted })
        })
    }

    /// Hands out what was just written. The caller holds the stream's publishing lock, so that all see the same order.
    pub(super) fn out<'a>(&self, published: impl Iterator<Item = (u64, &'a Message, Value)>) {
        let reading = self.readers.load(Ordering::Acquire) > 0;
        let subscribers = lock(&self.subscribers);
        if !reading && subscribers.is_empty() {
            return;
        }
        let mut recent = lock(&self.recent);
        for (seq, message, value) in published {
            let delivery = Arc::new(Delivery::published(seq, message, value));
            for subscriber in subscribers.iter().filter(|subscriber| subscriber.wants(message.subject.as_str())) {
                subscriber.offer(&delivery);
            }
            if reading {
                recent.push(delivery);
            }
        }
    }

    pub(super) fn infos(&self) -> Vec<SubscriptionInfo> {
        lock(&self.subscribers).iter().map(|subscriber| subscriber.info()).collect()
    }
}
