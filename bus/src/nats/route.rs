//! How messages get from one to another inside the server: what JetStream and other parts of the process see of core NATS.

use std::sync::Arc;

use crate::pattern::Pattern;

/// A message on its way.
#[derive(Debug, Clone, Copy)]
pub struct Routed<'a> {
    /// The subject it was published on.
    pub subject: &'a str,
    /// Where an answer goes.
    pub reply: Option<&'a str>,
    /// NATS header block, from `NATS/1.0` to the blank line; empty for none.
    pub headers: &'a [u8],
    /// The content.
    pub payload: &'a [u8],
    /// The custom module that published it; `None` for everybody else.
    pub module: Option<&'a str>,
}

/// Something in this process that receives what is published on a pattern.
pub trait Tap: Send + Sync {
    /// A message. Called on the publisher's task, in the publisher's order: copies what it needs and never blocks. It may call
    /// [`Router`] methods.
    fn message(&self, message: &Routed<'_>);

    /// The publisher has nothing more right now (its socket's buffer is parsed to the end, or the in-process publisher flushed): write,
    /// acknowledge, wake. Called at least once after the last [`Tap::message`] of a batch.
    fn batch_end(&self);
}

/// Identifies a tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TapId(pub u64);

/// What became of a message that was handed to the subscriptions on a subject.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// How many got it (one per queue group).
    pub took: usize,
    /// All of them have so much to read now that it should get no more for a while: see [`Router::is_crowded`].
    pub crowded: bool,
}

/// Told when the first subscription of a client appears on a literal subject, or the last one goes.
pub type InterestHook = Arc<dyn Fn(&str, bool) + Send + Sync>;

/// Told that somebody who had too much to read has room again.
pub type RoomHook = Arc<dyn Fn() + Send + Sync>;

/// Core NATS as seen from inside the process.
pub trait Router: Send + Sync {
    /// Publishes as a client would: to subscriptions and taps on `message.subject`. Gives how many got it.
    fn publish(&self, message: &Routed<'_>) -> usize;

    /// Hands a message to the subscriptions on `to`, under its own subject and reply: JetStream's deliveries. Taps are not asked.
    fn deliver(&self, to: &str, message: &Routed<'_>) -> Delivered;

    /// Whether everybody who would get what is delivered to this concrete subject has too much to read already. If so, the hooks of
    /// [`Router::on_room`] are called when that is over. Who looks at everything (`>`) does not count.
    fn is_crowded(&self, subject: &str) -> bool;

    /// Wakes whoever has something to send because of `publish` and `deliver` before. Call it once behind a batch.
    fn flush(&self);

    /// Whether a client is subscribed to what matches this concrete subject (in that queue group, if one is given).
    fn has_interest(&self, subject: &str, queue: Option<&str>) -> bool;

    /// Receives what is published on the pattern.
    fn tap(&self, pattern: &Pattern, tap: Arc<dyn Tap>) -> TapId;

    /// No more.
    fn untap(&self, id: TapId);

    /// Calls this on every SUB, UNSUB and disconnect that changes whether somebody listens to a literal subject (one without wildcards).
    fn on_interest(&self, hook: InterestHook);

    /// Calls this when somebody who was said to be crowded has read most of it, or is gone. The hook must not block.
    fn on_room(&self, hook: RoomHook);
}
