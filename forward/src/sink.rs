//! What the engine asks of a receiver's protocol.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bartizan_bus::event::Alert;

/// One alert on its way.
#[derive(Debug, PartialEq)]
pub struct Item {
    /// Sequence in ALERTS.
    pub seq: u64,
    /// The alert.
    pub alert: Alert,
    /// Size of the stored form in bytes: what the item counts against [`WINDOW_BYTES`](crate::WINDOW_BYTES).
    pub stored_bytes: usize,
}

/// An item that a receiver will never take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Sequence in ALERTS.
    pub seq: u64,
    /// The receiver's reason.
    pub reason: String,
}

/// Why a session ended. The class decides what the engine does; the reason is for the operator.
///
/// After any error the session is over: the engine sends everything unconfirmed again in a new one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Transient: try again, after `after` if the receiver said so, else after the engine's own pause.
    #[error("{reason}")]
    Retry {
        /// The receiver's wish.
        after: Option<Duration>,
        /// What happened.
        reason: String,
    },
    /// The receiver asks for less: try again after `after`. Not a sign of a broken receiver.
    #[error("{reason}")]
    Throttled {
        /// The receiver's wish.
        after: Duration,
        /// What happened.
        reason: String,
    },
    /// These items will never be taken; they are stepped over by name, and the rest is sent again at once.
    #[error("the receiver refused {} alerts for ever", items.len())]
    Poison {
        /// The items.
        items: Vec<Rejected>,
    },
    /// Somebody must change a setting here or at the receiver. Tried again at long intervals.
    #[error("{reason}")]
    Config {
        /// What to change.
        reason: String,
    },
    /// This process cannot go on with this sink.
    #[error("{reason}")]
    Fatal {
        /// What happened.
        reason: String,
    },
}

impl SinkError {
    /// A transient error without a wish for when.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { after: None, reason: reason.into() }
    }
}

/// What a status line says about a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Value of `type` in the configuration.
    pub kind: &'static str,
    /// Receiver.
    pub address: String,
}

/// What a sink has counted since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// Messages that were handed over with fields dropped to fit the receiver's limit, repeats included.
    pub shrunk: u64,
    /// Confirmations in which the receiver said that it had the alert already and did not store it again.
    pub duplicates: u64,
}

/// One receiver's protocol. A sink holds at most one session; the engine holds the stream, the cursor and the items
/// that are not confirmed, and sends those again in the next session.
pub trait Sink: Send {
    /// Type and receiver.
    fn describe(&self) -> Description;

    /// What only the sink can count.
    fn counts(&self) -> SinkCounts;

    /// What is not as it should be at the receiver although delivery works, as found by the last [`open`](Self::open).
    fn warning(&self) -> Option<String>;

    /// Ends the session, if there is one, forgets everything about it, and makes a new one. The engine may drop the
    /// returned future to give up.
    fn open(&mut self) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Hands items over, oldest first. Returns when the sink has taken them, which confirms nothing. The engine may drop
    /// the returned future when it gives the session up.
    fn send(&mut self, items: &[Arc<Item>]) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Waits for the next confirmations and returns their sequences, in any order; also watches an idle session and
    /// reports its end as an error. Cancel safe: dropping the future loses no confirmation.
    fn confirmed(&mut self) -> impl Future<Output = Result<Vec<u64>, SinkError>> + Send;

    /// Ends the session in good order, as well as the protocol can.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}
