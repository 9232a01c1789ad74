//! The delivery engine: one durable consumer, one sink, sessions, and a cursor that moves over what is settled.

use std::sync::Arc;
use std::time::Duration;

use bartizan_bus::event::{Severity, decode_alert};
use bartizan_bus::{Consumer, ConsumerConfig, DeliverPolicy, Delivery, OpenError, ReadError, Stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::backoff::Backoff;
use crate::config::{SinkName, Start};
use crate::sink::{Item, Sink, SinkCounts, SinkError};
use crate::status::{Poison, SinkState, StatusHandle};
use crate::window::Window;

/// Most alerts between the cursor and the newest fetched one. With a grace period of one second this is also the highest
/// rate in alerts a second; and it is the most that a crash makes a receiver see twice.
pub const WINDOW_ITEMS: usize = 4096;

/// No more is fetched while this many stored bytes are in flight.
pub const WINDOW_BYTES: usize = 8 << 20;

/// Alerts fetched and handed over at once.
const BATCH: usize = 64;

/// The window holds what is in flight and repeats it itself, so the consumer's own redelivery must not come before it.
const ACK_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// How the engine treats a sink.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Name of the sink; its consumer is `forward-<name>`.
    pub name: SinkName,
    /// Alerts below this are stepped over and counted.
    pub min_severity: Severity,
    /// Where a new consumer begins.
    pub start: Start,
    /// First pause between attempts.
    pub retry_min: Duration,
    /// Longest pause between attempts.
    pub retry_max: Duration,
    /// Pause after an error that somebody must mend.
    pub retry_config: Duration,
    /// Longest time from the request to stop to the end of [`Engine::run`].
    pub drain: Duration,
    /// Seed of the pauses' jitter.
    pub seed: u64,
}

/// An engine that cannot start or go on. Alerts stay in ALERTS.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The cursor cannot be opened.
    #[error("sink {name} cannot open its cursor: {source}")]
    Open {
        /// Sink.
        name: SinkName,
        /// Why.
        source: OpenError,
    },
    /// The bus was closed while the engine ran.
    #[error("sink {name} cannot read ALERTS any more: {source}")]
    Read {
        /// Sink.
        name: SinkName,
        /// Why.
        source: ReadError,
    },
    /// The sink cannot go on in this process.
    #[error("sink {name} gave up: {reason}; its alerts stay in ALERTS, restart Bartizan to try again")]
    Fatal {
        /// Sink.
        name: SinkName,
        /// Why.
        reason: String,
    },
    /// Writing the cursor panicked, or the runtime is going down.
    #[error("sink {name} lost the thread that writes its cursor: restart Bartizan; alerts since the last cursor are sent again")]
    CursorThread {
        /// Sink.
        name: SinkName,
    },
}

/// Delivers ALERTS to one sink.
#[derive(Debug)]
pub struct Engine<S> {
    sink: S,
    options: EngineOptions,
    status: StatusHandle,
    /// Out only while a blocking thread writes the cursor.
    consumer: Option<Consumer>,
    window: Window,
    backoff: Backoff,
}

/// Why a session ended early.
enum Failure {
    Sink(SinkError),
    Engine(EngineError),
    /// The time to stop is over.
    Expired,
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        Self::Sink(error)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// The request to stop, and the time that is left after it.
struct Stop {
    requested: watch::Receiver<bool>,
    drain: Duration,
    deadline: Option<Instant>,
}

impl Stop {
    /// Waits for the request. A sender that is gone can never ask, so its end is a request too.
    async fn requested(&mut self) {
        if self.deadline.is_none() {
            let _gone = self.requested.wait_for(|stop| *stop).await;
            self.deadline = Some(Instant::now() + self.drain);
        }
    }

    /// Waits for the request and then for the end of the time that it leaves.
    async fn expired(&mut self) {
        self.requested().await;
        if let Some(deadline) = self.deadline {
            sleep_until(deadline).await;
        }
    }
}

impl<S: Sink> Engine<S> {
    /// Opens the sink's cursor on `stream` (ALERTS), which fixes where a new sink begins. Sends nothing yet.
    ///
    /// # Errors
    /// [`EngineError::Open`].
    pub fn new(stream: Stream, sink: S, options: EngineOptions) -> Result<Self, EngineError> {
        let config = ConsumerConfig {
            deliver: match options.start {
                Start::All => DeliverPolicy::All,
                Start::New => DeliverPolicy::New,
            },
            ack_wait: ACK_WAIT,
            max_deliver: None,
            max_ack_pending: WINDOW_ITEMS + BATCH,
            sync_acks: true,
        };
        let consumer =
            stream.consumer(&options.name.consumer(), config).map_err(|source| EngineError::Open { name: options.name.clone(), source })?;
        let status = StatusHandle::new(options.name.to_string(), sink.describe(), stream);
        status.update(|status| status.cursor = consumer.ack_floor());
        let backoff = Backoff::new(options.retry_min, options.retry_max, options.seed);
        Ok(Self { sink, options, status, consumer: Some(consumer), window: Window::default(), backoff })
    }

    /// The sink's state, also while [`run`](Self::run) runs and after it.
    pub fn status(&self) -> StatusHandle {
        self.status.clone()
    }

    /// Delivers until `shutdown` becomes true (or its sender is gone), then waits at most `drain` for confirmations.
    /// Dropping the future is like a crash: alerts since the last cursor are sent again by the next engine.
    ///
    /// # Errors
    /// [`EngineError`]; errors of the receiver are no errors of the engine, which goes on trying.
    pub async fn run(mut self, shutdown: watch::Receiver<bool>) -> Result<(), EngineError> {
        let mut stop = Stop { requested: shutdown, drain: self.options.drain, deadline: None };
        let result = self.sessions(&mut stop).await;
        self.sink.close().await;
        match &result {
            Ok(()) => self.status.set_state(SinkState::Stopped),
            Err(error) => {
                tracing::error!(sink = %self.options.name, "{error}");
                self.status.set_error(error.to_string());
                self.status.set_state(SinkState::Failed);
            }
        }
        result
    }

    async fn sessions(&mut self, stop: &mut Stop) -> Result<(), EngineError> {
        loop {
            let began = Instant::now();
            match self.session(stop).await {
                Ok(()) | Err(Failure::Expired) => return self.settle().await,
                Err(Failure::Engine(error)) => return Err(error),
                Err(Failure::Sink(error)) => {
                    self.settle().await?;
                    if began.elapsed() >= self.options.retry_max {
                        self.backoff.reset();
                    }
                    let Some((state, pause)) = self.judge(error)? else { continue };
                    self.status.set_waiting(state, pause);
                    tokio::select! {
                        () = stop.requested() => return Ok(()),
                        () = sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// What to do after an error: wait, go on at once (`None`), or end.
    fn judge(&mut self, error: SinkError) -> Result<Option<(SinkState, Duration)>, EngineError> {
        let name = &self.options.name;
        let text = error.to_string();
        self.status.set_error(text.clone());
        let (state, pause) = match error {
            SinkError::Retry { after, reason: _ } => (SinkState::Retrying, after.unwrap_or_else(|| self.backoff.next_pause())),
            SinkError::Throttled { after, reason: _ } => (SinkState::Throttled, after),
            SinkError::Config { reason: _ } => (SinkState::Misconfigured, self.options.retry_config),
            SinkError::Fatal { reason } => return Err(EngineError::Fatal { name: name.clone(), reason }),
            SinkError::Poison { items } => {
                let mut stepped_over = 0;
                for rejected in items {
                    let id = self.window.get(rejected.seq).map(|item| item.alert.msg_id());
                    if self.window.settle(rejected.seq) {
                        stepped_over += 1;
                        self.status.update(|status| status.refused += 1);
                        self.step_over(rejected.seq, id, rejected.reason);
                    }
                }
                if stepped_over > 0 {
                    return Ok(None);
                }
                // Refusing what was never sent would otherwise be repeated without a pause.
                (SinkState::Retrying, self.backoff.next_pause())
            }
        };
        self.status.update(|status| status.failed_attempts += 1);
        tracing::warn!(sink = %name, pause_ms = pause.as_millis() as u64, "{text}; alerts wait in ALERTS");
        Ok(Some((state, pause)))
    }

    /// One session: opens it, repeats what is in flight, goes on with the stream. `Ok` when asked to stop and drained.
    async fn session(&mut self, stop: &mut Stop) -> Result<(), Failure> {
        self.status.set_state(SinkState::Connecting);
        tokio::select! {
            biased;
            () = stop.requested() => return Ok(()),
            opened = self.sink.open() => opened?,
        }
        self.status.set_state(SinkState::Connected);
        self.show_warning();
        tracing::info!(sink = %self.options.name, in_flight = self.window.open(), "connected");

        let again = self.window.unsettled();
        for items in again.chunks(BATCH) {
            self.hand_over(items, stop).await?;
            self.status.update(|status| status.resent += items.len() as u64);
        }
        loop {
            self.settle().await?;
            let room = self.has_room();
            let Self { sink, consumer, options, .. } = self;
            let Some(consumer) = consumer.as_mut() else { return Err(cursor_thread(options).into()) };
            // Not biased: under load confirmations are always due, and would keep the next alerts from being fetched.
            tokio::select! {
                () = stop.requested() => return self.drain(stop).await,
                confirmed = sink.confirmed() => self.take_confirmed(confirmed?),
                fetched = consumer.fetch(BATCH), if room => self.forward(fetched, stop).await?,
            }
        }
    }

    fn has_room(&self) -> bool {
        self.window.entries() < WINDOW_ITEMS && self.window.bytes() < WINDOW_BYTES
    }

    /// Sends what is already stored and waits for confirmations, until all is settled or the time is over.
    async fn drain(&mut self, stop: &mut Stop) -> Result<(), Failure> {
        self.status.set_state(SinkState::Draining);
        let work = async {
            loop {
                self.settle().await?;
                if self.has_room() {
                    let Some(consumer) = self.consumer.as_mut() else { return Err(cursor_thread(&self.options).into()) };
                    let fetched = consumer.try_fetch(BATCH);
                    if !matches!(&fetched, Ok(deliveries) if deliveries.is_empty()) {
                        let items = self.take_in(fetched)?;
                        let sent = self.sink.send(&items).await;
                        self.count_hand_over(&sent, &items);
                        sent?;
                        continue;
                    }
                }
                if self.window.open() == 0 {
                    return Ok(());
                }
                let confirmed = self.sink.confirmed().await?;
                self.take_confirmed(confirmed);
            }
        };
        let result: Result<(), Failure> = tokio::select! {
            () = stop.expired() => Err(Failure::Expired),
            result = work => result,
        };
        match result {
            // There is no next session: what is unconfirmed is sent again at the next start.
            Err(Failure::Sink(error)) => {
                tracing::warn!(sink = %self.options.name, "while stopping: {error}");
                self.status.set_error(error.to_string());
                Err(Failure::Expired)
            }
            other => other,
        }
    }

    async fn forward(&mut self, fetched: Result<Vec<Delivery>, ReadError>, stop: &mut Stop) -> Result<(), Failure> {
        let items = self.take_in(fetched)?;
        self.hand_over(&items, stop).await
    }

    /// Decodes what was fetched into the window; what is not to be sent is settled at once.
    fn take_in(&mut self, fetched: Result<Vec<Delivery>, ReadError>) -> Result<Vec<Arc<Item>>, Failure> {
        let deliveries = match fetched {
            Ok(deliveries) => deliveries,
            Err(source @ ReadError::Closed { .. }) => {
                return Err(EngineError::Read { name: self.options.name.clone(), source }.into());
            }
            Err(error @ ReadError::Damaged { missing, .. }) => {
                tracing::error!(sink = %self.options.name, "{error}");
                self.status.set_error(error.to_string());
                self.status.update(|status| status.unreadable += missing);
                return Ok(Vec::new());
            }
            Err(error @ (ReadError::Io { .. } | ReadError::NoStream { .. } | ReadError::Version { .. })) => {
                return Err(SinkError::retry(error.to_string()).into());
            }
        };
        let mut items = Vec::with_capacity(deliveries.len());
        for Delivery { seq, msg_id, payload, .. } in deliveries {
            if self.window.has_seen(seq) {
                continue;
            }
            match decode_alert(&payload) {
                Ok(alert) if alert.severity < self.options.min_severity => {
                    self.window.push_settled(seq);
                    self.status.update(|status| status.below_min_severity += 1);
                }
                Ok(alert) => {
                    let item = Arc::new(Item { seq, alert, stored_bytes: payload.len() });
                    self.window.push(Arc::clone(&item));
                    items.push(item);
                }
                Err(error) => {
                    self.window.push_settled(seq);
                    self.status.update(|status| status.undecodable += 1);
                    self.step_over(seq, msg_id, error.to_string());
                }
            }
        }
        self.show_window();
        Ok(items)
    }

    fn step_over(&self, seq: u64, id: Option<String>, reason: String) {
        tracing::error!(
            sink = %self.options.name, seq, id = id.as_deref().unwrap_or("-"),
            "alert is not delivered and stays in ALERTS: {reason}"
        );
        self.status.add_poison(Poison { seq, id, reason });
    }

    async fn hand_over(&mut self, items: &[Arc<Item>], stop: &mut Stop) -> Result<(), Failure> {
        if items.is_empty() {
            return Ok(());
        }
        let sent = tokio::select! {
            biased;
            sent = self.sink.send(items) => sent,
            () = stop.expired() => return Err(Failure::Expired),
        };
        self.count_hand_over(&sent, items);
        Ok(sent?)
    }

    fn count_hand_over(&self, sent: &Result<(), SinkError>, items: &[Arc<Item>]) {
        let SinkCounts { shrunk, duplicates } = self.sink.counts();
        self.status.update(|status| {
            (status.shrunk, status.duplicates) = (shrunk, duplicates);
            if sent.is_ok() {
                status.sent += items.len() as u64;
            }
        });
    }

    fn take_confirmed(&mut self, seqs: Vec<u64>) {
        let settled = seqs.into_iter().filter(|seq| self.window.settle(*seq)).count() as u64;
        let SinkCounts { shrunk: _, duplicates } = self.sink.counts();
        self.status.update(|status| status.duplicates = duplicates);
        if settled > 0 {
            self.backoff.reset();
            self.status.update(|status| {
                status.confirmed += settled;
                status.failed_attempts = 0;
            });
        }
        self.show_window();
    }

    /// Shows what the session's opening found, and logs it when it is news.
    fn show_warning(&self) {
        let warning = self.sink.warning();
        let mut news = false;
        self.status.update(|status| {
            news = status.warning != warning;
            status.warning.clone_from(&warning);
        });
        if let Some(text) = warning.filter(|_| news) {
            tracing::warn!(sink = %self.options.name, "{text}");
        }
    }

    fn show_window(&self) {
        let open = self.window.open() as u64;
        self.status.update(|status| status.in_flight = open);
    }

    /// Moves the cursor over what is settled and writes it. A cursor that cannot be written is an older cursor after a
    /// crash, not a lost alert: it is counted, and written again with the next settlement.
    async fn settle(&mut self) -> Result<(), EngineError> {
        let Some(seq) = self.window.take_settled() else { return Ok(()) };
        let Some(mut consumer) = self.consumer.take() else { return Err(cursor_thread(&self.options)) };
        consumer.ack_through(seq);
        // fdatasync may take long, and the runtime's threads carry the sensor too.
        let written = tokio::task::spawn_blocking(move || {
            let result = consumer.flush_acks();
            (consumer, result)
        })
        .await;
        let Ok((consumer, result)) = written else { return Err(cursor_thread(&self.options)) };
        let fell_off = consumer.info().fell_off_retention;
        self.consumer = Some(consumer);
        self.status.update(|status| {
            status.cursor = seq;
            status.fell_off_retention = fell_off;
        });
        if let Err(error) = result {
            let text = format!("the cursor of sink {} cannot be written: {error}; check the disk", self.options.name);
            tracing::error!("{text}");
            self.status.set_error(text);
            self.status.update(|status| status.cursor_errors += 1);
        }
        Ok(())
    }
}

fn cursor_thread(options: &EngineOptions) -> EngineError {
    EngineError::CursorThread { name: options.name.clone() }
}
