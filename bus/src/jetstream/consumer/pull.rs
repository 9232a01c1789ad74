//! Pull: requests wait in line, each for some messages, some bytes, some time.

use serde::Deserialize;

use super::super::config;
use super::{Consumer, HeldUp, Output, Sent, Time, send_status, status};
use crate::nats::route::Routed;
use crate::store::Store;

/// What a client asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    batch: i64,
    expires: i64,
    no_wait: bool,
    max_bytes: i64,
    idle_heartbeat: i64,
}

/// A request that waits.
#[derive(Debug, Clone)]
pub(crate) struct PullRequest {
    pub(crate) reply: String,
    batch: u64,
    /// Bytes left; 0 for any number.
    max_bytes: u64,
    limited: bool,
    no_wait: bool,
    expires_ns: Option<u64>,
    heartbeat: u64,
    next_heartbeat_ns: u64,
    /// It got something.
    served: bool,
    /// Who asked has too much to read.
    crowded: bool,
}

impl PullRequest {
    /// When it must be looked at again.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        let heartbeat = (self.heartbeat > 0).then_some(self.next_heartbeat_ns);
        [self.expires_ns, heartbeat].into_iter().flatten().min()
    }

    /// How much of it was not given.
    fn pending_headers(&self) -> [(&'static str, String); 2] {
        [("Nats-Pending-Messages", self.batch.to_string()), ("Nats-Pending-Bytes", self.max_bytes.to_string())]
    }
}

fn end(out: &mut dyn Output, request: &PullRequest, line: &str) {
    let [(messages, n), (bytes, b)] = request.pending_headers();
    send_status(out, &request.reply, None, &status(line, &[(messages, &n), (bytes, &b)]));
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `2ms`.
pub(in super::super) fn go_duration(ns: i64) -> String {
    let (unit, name) = match ns {
        ..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let (whole, rest) = (ns / unit, ns % unit);
    let digits = unit.ilog10() as usize;
    let fraction = if rest == 0 { String::new() } else { format!(".{rest:0digits$}").trim_end_matches('0').to_owned() };
    match (whole / 3600, whole / 60 % 60) {
        (0, 0) => format!("{whole}{fraction}{name}"),
        _ if name != "s" => format!("{whole}{fraction}{name}"),
        (0, minutes) => format!("{minutes}m{}{fraction}s", whole % 60),
        (hours, minutes) => format!("{hours}h{minutes}m{}{fraction}s", whole % 60),
    }
}

impl Consumer {
    /// A request came; it is answered at once where it cannot wait.
    pub(crate) fn request(&mut self, body: &[u8], reply: &str, time: Time, out: &mut dyn Output) {
        self.used_ns = time.ns;
        let refuse = |out: &mut dyn Output, line: &str| {
            send_status(out, reply, None, &status(line, &[]));
        };
        if self.is_push() {
            return refuse(out, "409 Consumer is push based");
        }
        let text = body.trim_ascii();
        let wanted: Body = if text.starts_with(b"{") {
            match config::read(text) {
                Ok(wanted) => wanted,
                Err(error) => return refuse(out, &format!("400 Bad Request - {}", error.description)),
            }
        } else {
            // A number, or anything else for one message.
            let batch = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(1);
            Body { batch, ..Body::default() }
        };
        let batch = wanted.batch.max(1);
        let limits = &self.config;
        if limits.max_batch > 0 && batch > limits.max_batch {
            return refuse(out, &format!("409 Exceeded MaxRequestBatch of {}", limits.max_batch));
        }
        if limits.max_expires > 0 && wanted.expires > limits.max_expires {
            return refuse(out, &format!("409 Exceeded MaxRequestExpires of {}", go_duration(limits.max_expires)));
        }
        if limits.max_bytes > 0 && wanted.max_bytes > limits.max_bytes {
            return refuse(out, &format!("409 Exceeded MaxRequestMaxBytes of {}", limits.max_bytes));
        }
        // Also where nothing expires, as in nats-server.
        if wanted.idle_heartbeat > 0 && wanted.idle_heartbeat.saturating_mul(2) > wanted.expires.max(0) {
            return refuse(out, "400 Bad Request - heartbeat value too large");
        }
        if self.waiting.len() as i64 >= self.config.max_waiting {
            self.waiting.retain(|request| out.interest(&request.reply, None));
            if self.waiting.len() as i64 >= self.config.max_waiting {
                if wanted.idle_heartbeat <= 0 {
                    refuse(out, "409 Exceeded MaxWaiting");
                }
                return;
            }
        }
        let heartbeat = u64::try_from(wanted.idle_heartbeat).unwrap_or(0);
        let max_bytes = u64::try_from(wanted.max_bytes).unwrap_or(0);
        self.waiting.push_back(PullRequest {
            reply: reply.to_owned(),
            batch: batch as u64,
            max_bytes,
            limited: max_bytes > 0,
            no_wait: wanted.no_wait,
            expires_ns: u64::try_from(wanted.expires).ok().filter(|expires| *expires > 0).map(|expires| time.ns.saturating_add(expires)),
            heartbeat,
            next_heartbeat_ns: time.ns.saturating_add(heartbeat),
            served: false,
            // A client that asks for messages one by one is not read for it.
            crowded: self.crowded && out.is_crowded(reply),
        });
    }

    pub(super) fn pump_pull(&mut self, store: &dyn Store, time: Time, out: &mut dyn Output) {
        self.end_requests(time, out);
        if self.crowded && !self.waiting.is_empty() {
            self.waiting.iter_mut().filter(|request| request.crowded).for_each(|request| request.crowded = out.is_crowded(&request.reply));
            self.crowded = self.waiting.iter().any(|request| request.crowded);
        }
        if !self.is_paused(time) {
            while self.waiting.iter().any(|request| !request.crowded) {
                let Some(candidate) = self.candidate(store, time, out) else { break };
                self.serve(&candidate, time, out);
            }
        }
        if !self.waiting.is_empty() && self.waiting.iter().all(|request| request.crowded) {
            self.held_up = HeldUp::Unbound;
        }
        // Nothing more is there right now; who could not be given what is there is another matter.
        let mut n = 0;
        while let Some(request) = self.waiting.get(n) {
            if request.no_wait && !request.crowded && (request.served || request.expires_ns.is_none()) {
                send_status(out, &request.reply, None, &status("404 No Messages", &[]));
                self.waiting.remove(n);
            } else {
                n += 1;
            }
        }
    }

    /// Gives a message to the first request that can have it.
    fn serve(&mut self, candidate: &super::Candidate, time: Time, out: &mut dyn Output) {
        let message = &candidate.message;
        let left = self.left_behind(candidate);
        let ack = self.ack_subject(candidate, left);
        let rendered = if self.config.headers_only { std::borrow::Cow::default() } else { out.render(message) };
        let sized;
        let headers = if self.config.headers_only {
            sized = headers_only(message.headers(), message.payload().len());
            &sized[..]
        } else {
            message.headers()
        };
        let size = (message.subject().len() + ack.len() + headers.len() + rendered.len()) as u64;
        for _ in 0..self.waiting.len() {
            let Some(mut request) = self.waiting.pop_front() else { break };
            if request.crowded {
                self.waiting.push_back(request);
                continue;
            }
            if request.limited && size > request.max_bytes {
                end(out, &request, "409 Message Size Exceeds MaxBytes");
                continue;
            }
            let routed = Routed { subject: message.subject(), reply: Some(&ack), headers, payload: &rendered, module: None };
            match out.send(&request.reply, &routed) {
                Sent::Nobody => continue,
                Sent::Taken => {}
                Sent::Crowded => {
                    request.crowded = out.is_crowded(&request.reply);
                    self.crowded |= request.crowded;
                }
            }
            request.served = true;
            request.batch -= 1;
            if request.limited {
                request.max_bytes -= size;
            }
            request.next_heartbeat_ns = time.ns.saturating_add(request.heartbeat);
            if request.batch > 0 {
                self.waiting.push_back(request);
            } else if request.limited && request.max_bytes > 0 {
                end(out, &request, "409 Batch Completed");
            }
            self.used_ns = time.ns;
            self.commit(candidate, time);
            return;
        }
        self.untaken(candidate);
    }

    /// Ends requests whose time is over; tells the others that all is well.
    fn end_requests(&mut self, time: Time, out: &mut dyn Output) {
        if self.waiting.iter().all(|request| request.deadline_ns().is_none_or(|deadline| deadline > time.ns)) {
            return;
        }
        let (cseq, sseq) = (self.delivered.0.to_string(), self.delivered.1.to_string());
        self.waiting.retain_mut(|request| {
            if request.expires_ns.is_some_and(|expires| expires <= time.ns) {
                end(out, request, "408 Request Timeout");
                return false;
            }
            if request.heartbeat > 0 && request.next_heartbeat_ns <= time.ns {
                request.next_heartbeat_ns = time.ns.saturating_add(request.heartbeat);
                let block = status("100 Idle Heartbeat", &[("Nats-Last-Consumer", &cseq), ("Nats-Last-Stream", &sseq)]);
                return send_status(out, &request.reply, None, &block);
            }
            true
        });
    }

    /// The consumer ends: nobody waits for it any longer.
    pub(crate) fn end_all(&mut self, line: &str, out: &mut dyn Output) {
        for request in std::mem::take(&mut self.waiting) {
            send_status(out, &request.reply, None, &status(line, &[]));
        }
    }
}

/// The headers of a message whose content is left out, with its size.
pub(super) fn headers_only(headers: &[u8], size: usize) -> Vec<u8> {
    let head = headers.strip_suffix(b"\r\n").filter(|head| !head.is_empty()).unwrap_or(b"NATS/1.0\r\n");
    [head, format!("Nats-Msg-Size: {size}\r\n\r\n").as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::super::config::{ConsumerConfig, StreamConfig};
    use super::*;
    use crate::store::{Limits, MemoryStore, Put};

    /// Messages and statuses by inbox; those that take more only up to a number.
    #[derive(Default)]
    struct Clients {
        messages: BTreeMap<String, u64>,
        statuses: Vec<(String, String)>,
        room: BTreeMap<String, u64>,
    }

    impl Clients {
        fn got(&self, inbox: &str) -> u64 {
            self.messages.get(inbox).copied().unwrap_or(0)
        }
    }

    impl Output for Clients {
        fn send(&mut self, to: &str, message: &Routed<'_>) -> Sent {
            if message.payload.is_empty() {
                let line = String::from_utf8_lossy(message.headers).lines().next().unwrap_or_default().to_owned();
                self.statuses.push((to.to_owned(), line));
            } else {
                *self.messages.entry(to.to_owned()).or_default() += 1;
            }
            if self.is_crowded(to) { Sent::Crowded } else { Sent::Taken }
        }

        fn is_crowded(&mut self, to: &str) -> bool {
            self.room.get(to).is_some_and(|room| self.got(to) >= *room)
        }

        fn interest(&mut self, _: &str, _: Option<&str>) -> bool {
            true
        }

        fn advisory(&mut self, kind: &str, _: serde_json::Value) {
            panic!("{kind}");
        }
    }

    #[test]
    fn a_request_of_who_has_too_much_to_read_waits_and_holds_nobody_up() {
        let store = MemoryStore::new(Limits::default());
        for _ in 0..100 {
            store.append(&[Put { subject: "s", headers: b"", payload: b"x", time_ns: 1 }]).expect("append");
        }
        let stream = StreamConfig { name: "S".to_owned(), ..Default::default() }.checked().expect("a stream");
        let config = ConsumerConfig { durable_name: "c".to_owned(), ack_policy: super::super::AckPolicy::Explicit, ..Default::default() };
        let mut time = Time { ns: 1, wall_ns: 1 };
        let mut consumer = Consumer::new("S", "c", config.checked(&stream).expect("fine"), &store, time).expect("made");
        let mut clients = Clients::default();
        clients.room.insert("slow".to_owned(), 5);
        let request = |consumer: &mut Consumer, body: &str, inbox: &str, time: Time, clients: &mut Clients| {
            consumer.request(body.as_bytes(), inbox, time, clients);
            consumer.pump(&store, time, clients);
        };
        request(&mut consumer, r#"{"batch":30,"no_wait":true,"expires":5000000000}"#, "slow", time, &mut clients);
        assert_eq!((clients.got("slow"), clients.statuses.len(), consumer.num_waiting()), (5, 0, 1), "no 404: there is more");
        assert!(consumer.deadline_ns(time).is_some_and(|at| at >= time.ns + 1_000_000_000), "the clock changes nothing");
        request(&mut consumer, r#"{"batch":1}"#, "slow", time, &mut clients);
        assert_eq!((clients.got("slow"), consumer.num_waiting()), (5, 2), "another request of theirs is no way round");
        request(&mut consumer, r#"{"batch":40}"#, "quick", time, &mut clients);
        assert_eq!((clients.got("slow"), clients.got("quick"), consumer.num_waiting()), (5, 40, 2));
        clients.room.clear();
        consumer.pump(&store, time, &mut clients);
        assert_eq!((clients.got("slow"), consumer.num_waiting()), (31, 0));
        // One that does not read until its request is over is told so.
        clients.room.insert("gone".to_owned(), 1);
        request(&mut consumer, r#"{"batch":10,"expires":1000000000}"#, "gone", time, &mut clients);
        time.ns += 1_000_000_000;
        consumer.pump(&store, time, &mut clients);
        assert_eq!(clients.statuses, [("gone".to_owned(), "NATS/1.0 408 Request Timeout".to_owned())]);
        assert_eq!((clients.got("gone"), consumer.num_waiting(), consumer.num_ack_pending()), (1, 0, 72));
    }

    #[test]
    fn durations_are_printed_as_go_does() {
        for (ns, text) in [
            (1_000_000_000, "1s"),
            (90_000_000_000, "1m30s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (1_500_000_000, "1.5s"),
            (90_050_000_000, "1m30.05s"),
            (1_500_000, "1.5ms"),
            (100_000_000, "100ms"),
        ] {
            assert_eq!(go_duration(ns), text);
        }
    }
}
