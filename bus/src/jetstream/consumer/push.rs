//! Push: messages go to a subject as long as somebody listens there and keeps up.

use super::pull::headers_only;
use super::{Consumer, HeldUp, Output, Sent, Time, send_status, status};
use crate::nats::route::Routed;
use crate::store::Store;

/// The window begins with this, and doubles with every answer up to the other: nats-server's own numbers
/// (<https://github.com/nats-io/nats-server/blob/v2.14.5/server/consumer.go>, `JsFlowControlMaxPending`).
const WINDOW_START: u64 = WINDOW_MAX / 16;
const WINDOW_MAX: u64 = 32 * 1024 * 1024;

/// Flow control of one consumer.
#[derive(Debug)]
pub(crate) struct Flow {
    window: u64,
    /// Bytes sent and not confirmed.
    sent: u64,
    /// The question that is out, and the bytes that its answer confirms.
    asked: Option<(String, u64)>,
    number: u64,
}

impl Default for Flow {
    fn default() -> Self {
        Self { window: WINDOW_START, sent: 0, asked: None, number: 0 }
    }
}

impl Flow {
    fn is_stalled(&self) -> bool {
        self.sent > self.window
    }
}

impl Consumer {
    fn group(&self) -> Option<&str> {
        Some(self.config.deliver_group.as_str()).filter(|group| !group.is_empty())
    }

    /// Whether somebody listens.
    pub(crate) fn is_bound(&self, out: &mut dyn Output) -> bool {
        out.interest(&self.config.deliver_subject, self.group())
    }

    pub(super) fn pump_push(&mut self, store: &dyn Store, time: Time, out: &mut dyn Output) {
        if !self.is_bound(out) {
            // Who comes back starts with an open window.
            self.flow = Flow { number: self.flow.number, ..Flow::default() };
            self.held_up = HeldUp::Unbound;
            return;
        }
        self.used_ns = time.ns;
        let to = self.config.deliver_subject.clone();
        let mut crowded = self.crowded && out.is_crowded(&to);
        while !(crowded || self.is_paused(time) || self.config.flow_control && self.flow.is_stalled()) {
            let Some(candidate) = self.candidate(store, time, out) else { break };
            let message = &candidate.message;
            let ack = self.ack_subject(&candidate, self.left_behind(&candidate));
            let rendered = if self.config.headers_only { std::borrow::Cow::default() } else { out.render(message) };
            let sized;
            let headers = if self.config.headers_only {
                sized = headers_only(message.headers(), message.payload().len());
                &sized[..]
            } else {
                message.headers()
            };
            let size = (message.subject().len() + ack.len() + headers.len() + rendered.len()) as u64;
            match out.send(&to, &Routed { subject: message.subject(), reply: Some(&ack), headers, payload: &rendered, module: None }) {
                Sent::Nobody => {
                    self.untaken(&candidate);
                    self.held_up = HeldUp::Unbound;
                    break;
                }
                Sent::Taken => {}
                Sent::Crowded => crowded = out.is_crowded(&to),
            }
            self.commit(&candidate, time);
            self.heartbeat_ns = time.ns;
            if self.config.flow_control {
                self.flow.sent += size;
                self.ask(&to, out);
            }
        }
        self.crowded = crowded;
        if crowded {
            self.held_up = HeldUp::Unbound;
        } else if self.config.flow_control && self.flow.is_stalled() {
            self.held_up = HeldUp::Waits;
        }
        let heartbeat = u64::try_from(self.config.idle_heartbeat).unwrap_or(0);
        if heartbeat > 0 && time.ns >= self.heartbeat_ns.saturating_add(heartbeat) {
            self.heartbeat_ns = time.ns;
            let (cseq, sseq) = (self.delivered.0.to_string(), self.delivered.1.to_string());
            let mut headers = vec![("Nats-Last-Consumer", cseq.as_str()), ("Nats-Last-Stream", sseq.as_str())];
            if let Some((question, _)) = self.flow.asked.as_ref().filter(|_| self.flow.is_stalled()) {
                headers.push(("Nats-Consumer-Stalled", question));
            }
            send_status(out, &to, None, &status("100 Idle Heartbeat", &headers));
        }
    }

    /// Asks the client to say that it has come so far, when half of the window is used.
    fn ask(&mut self, to: &str, out: &mut dyn Output) {
        if self.flow.asked.is_some() || self.flow.sent <= self.flow.window / 2 {
            return;
        }
        self.flow.number += 1;
        let question = format!("$JS.FC.{}.{}.{:04x}", self.stream, self.name, self.flow.number & 0xffff);
        send_status(out, to, Some(&question), &status("100 FlowControl Request", &[]));
        self.flow.asked = Some((question, self.flow.sent));
    }

    /// The client has come so far.
    pub(crate) fn flow_answer(&mut self, question: &str) {
        if let Some((_, bytes)) = self.flow.asked.take_if(|(asked, _)| asked == question) {
            self.flow.sent = self.flow.sent.saturating_sub(bytes);
            self.flow.window = (self.flow.window * 2).min(WINDOW_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::config::{ConsumerConfig, StreamConfig};
    use super::super::LOOK_FOR_INTEREST_NS;
    use super::*;
    use crate::store::{Limits, MemoryStore, Put};

    const BEAT: u64 = 500_000_000;

    /// What came: headers of status messages, sizes of others; and where answers go.
    #[derive(Default)]
    struct Client {
        statuses: Vec<String>,
        question: Option<String>,
        messages: u64,
        bytes: u64,
        left: bool,
        /// It has too much to read from this message on.
        room: Option<u64>,
    }

    impl Output for Client {
        fn send(&mut self, _: &str, message: &Routed<'_>) -> Sent {
            if message.payload.is_empty() {
                self.statuses.push(String::from_utf8_lossy(message.headers).into_owned());
                self.question = message.reply.map(str::to_owned).or(self.question.take());
            } else {
                self.messages += 1;
                self.bytes += message.payload.len() as u64;
            }
            if self.is_crowded("") { Sent::Crowded } else { Sent::Taken }
        }

        fn is_crowded(&mut self, _: &str) -> bool {
            self.room.is_some_and(|room| self.messages >= room)
        }

        fn interest(&mut self, _: &str, _: Option<&str>) -> bool {
            !self.left
        }

        fn advisory(&mut self, kind: &str, _: serde_json::Value) {
            panic!("{kind}");
        }
    }

    #[test]
    fn who_has_too_much_to_read_gets_the_rest_later_and_heartbeats_meanwhile() {
        let store = MemoryStore::new(Limits::default());
        let more = |n: u64| {
            (0..n).for_each(|_| {
                store.append(&[Put { subject: "s", headers: b"", payload: b"x", time_ns: 1 }]).expect("append");
            });
        };
        more(10);
        let config = ConsumerConfig { deliver_subject: "d".to_owned(), idle_heartbeat: BEAT as i64, ..Default::default() };
        let stream = StreamConfig { name: "S".to_owned(), ..Default::default() }.checked().expect("a stream");
        let mut time = Time { ns: 1, wall_ns: 1 };
        let mut consumer = Consumer::new("S", "c", config.checked(&stream).expect("fine"), &store, time).expect("made");
        let mut client = Client { room: Some(3), ..Client::default() };
        consumer.pump(&store, time, &mut client);
        more(10);
        consumer.pump(&store, time, &mut client);
        assert_eq!(client.messages, 3, "also when there is more");
        assert_eq!(consumer.deadline_ns(time).map(|at| at >= time.ns + BEAT), Some(true), "the clock changes nothing");
        time.ns += BEAT;
        consumer.pump(&store, time, &mut client);
        assert_eq!((client.messages, client.statuses.len()), (3, 1));
        client.room = Some(12);
        consumer.pump(&store, time, &mut client);
        assert_eq!(client.messages, 12);
        client.room = None;
        consumer.pump(&store, time, &mut client);
        assert_eq!(client.messages, 20);
    }

    #[test]
    fn the_window_holds_opens_and_says_when_it_is_shut() {
        let store = MemoryStore::new(Limits::default());
        let payload = vec![7; 100_000];
        for _ in 0..100 {
            store.append(&[Put { subject: "s", headers: b"", payload: &payload, time_ns: 1 }]).expect("append");
        }
        let config =
            ConsumerConfig { deliver_subject: "d".to_owned(), flow_control: true, idle_heartbeat: BEAT as i64, ..Default::default() };
        let stream = StreamConfig { name: "S".to_owned(), ..Default::default() }.checked().expect("a stream");
        let mut time = Time { ns: 1, wall_ns: 1 };
        let mut consumer = Consumer::new("S", "c", config.checked(&stream).expect("fine"), &store, time).expect("made");
        let mut client = Client::default();
        consumer.pump(&store, time, &mut client);
        assert!(client.bytes > WINDOW_START - 100_000 && client.bytes < WINDOW_START + 100_000, "{}", client.bytes);
        assert_eq!(client.statuses, ["NATS/1.0 100 FlowControl Request\r\n\r\n"]);
        let question = client.question.clone().expect("asked");
        assert!(question.starts_with("$JS.FC.S.c.") && question.len() == "$JS.FC.S.c.".len() + 4, "{question}");
        let sent = client.messages;
        // Shut: the clock is not troubled before the heartbeat, which says why nothing comes.
        assert_eq!(consumer.deadline_ns(time).map(|at| at >= time.ns + BEAT), Some(true));
        time.ns += BEAT;
        consumer.pump(&store, time, &mut client);
        let beat = format!(
            "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: {sent}\r\nNats-Last-Stream: {sent}\r\nNats-Consumer-Stalled: {question}\r\n\r\n"
        );
        assert_eq!((client.messages, client.statuses.last()), (sent, Some(&beat)));
        consumer.flow_answer("$JS.FC.S.c.ffff");
        consumer.pump(&store, time, &mut client);
        assert_eq!(client.messages, sent, "an answer to another question opens nothing");
        consumer.flow_answer(&question);
        consumer.pump(&store, time, &mut client);
        assert!(client.messages > sent + 20, "twice the window: {}", client.messages);
        for _ in 0..10 {
            consumer.flow_answer(&client.question.clone().expect("asked"));
            consumer.pump(&store, time, &mut client);
        }
        assert_eq!(client.messages, 100);
        // Nobody there: it is looked for at times, not all the time, and only as long as there is something to give.
        client.left = true;
        time.ns += 100 * BEAT;
        consumer.pump(&store, time, &mut client);
        assert!(consumer.deadline_ns(time).is_none_or(|at| at >= time.ns + LOOK_FOR_INTEREST_NS));
        store.append(&[Put { subject: "s", headers: b"", payload: b"x", time_ns: 1 }]).expect("append");
        consumer.pump(&store, time, &mut client);
        assert_eq!(consumer.deadline_ns(time), Some(time.ns + LOOK_FOR_INTEREST_NS));
        assert_eq!(client.messages, 100);
    }
}
