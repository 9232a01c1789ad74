//! What clients say about messages they were given.

use super::super::config::AckPolicy;
use super::{Consumer, Output, Time};

/// An acknowledgement's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ack {
    /// Done.
    Done,
    /// Deliver it again after so many nanoseconds.
    Nak(u64),
    InProgress,
    Term(String),
    /// Acknowledged, and this is the next pull request.
    Next(Vec<u8>),
}

impl Ack {
    /// Reads it; `None` for anything else.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?.trim();
        let rest = |prefix: &str| text.strip_prefix(prefix).map(str::trim);
        match text {
            "" | "+ACK" | "+OK" => return Some(Self::Done),
            "+WPI" => return Some(Self::InProgress),
            _ => {}
        }
        if let Some(delay) = rest("-NAK") {
            return Some(Self::Nak(delay_ns(delay).unwrap_or(0)));
        }
        if let Some(reason) = rest("+TERM") {
            return Some(Self::Term(reason.to_owned()));
        }
        rest("+NXT").map(|request| Self::Next(request.as_bytes().to_vec()))
    }
}

/// `{"delay": ns}` or a Go duration such as `5s`.
fn delay_ns(text: &str) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Delay {
        delay: u64,
    }
    if text.starts_with('{') {
        return serde_json::from_str::<Delay>(text).ok().map(|delay| delay.delay);
    }
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..unit].parse().ok()?;
    let factor = match &text[unit..] {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

impl Consumer {
    /// Does what an acknowledgement of this stream sequence says, with deliveries and consumer sequence as the acknowledgement has them. False for a sequence that was never delivered: nobody is answered.
    pub(crate) fn acknowledge(&mut self, seq: u64, (deliveries, cseq): (u64, u64), ack: &Ack, time: Time, out: &mut dyn Output) -> bool {
        if seq > self.delivered.1 {
            return false;
        }
        self.used_ns = time.ns;
        match ack {
            Ack::Done | Ack::Next(_) => {
                self.last_acked_ns = Some(time.wall_ns);
                if self.config.ack_policy == AckPolicy::All {
                    let through: Vec<u64> = self.pending.range(..=seq).map(|(seq, _)| *seq).collect();
                    for seq in through {
                        self.settle(seq);
                    }
                } else {
                    self.settle(seq);
                }
            }
            Ack::Nak(delay_ns) => self.due_at(seq, time.ns.saturating_add(*delay_ns)),
            Ack::InProgress => {
                let wait_ns = self.pending.get(&seq).map(|pending| self.wait_ns(pending.deliveries));
                if let Some(wait_ns) = wait_ns {
                    self.due_at(seq, time.ns.saturating_add(wait_ns));
                }
            }
            Ack::Term(reason) => {
                if self.settle(seq) {
                    out.advisory(
                        "MSG_TERMINATED",
                        serde_json::json!({
                            "type": "io.nats.jetstream.advisory.v1.terminated",
                            "stream": self.stream, "consumer": self.name, "consumer_seq": cseq,
                            "stream_seq": seq, "deliveries": deliveries, "reason": reason,
                        }),
                    );
                }
            }
        }
        true
    }

    fn due_at(&mut self, seq: u64, due_ns: u64) {
        if let Some(pending) = self.pending.get_mut(&seq) {
            self.due.remove(&(pending.due_ns, seq));
            pending.due_ns = due_ns;
            self.due.insert((due_ns, seq));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (body, ack) in [
            (&b""[..], Ack::Done),
            (b"+ACK", Ack::Done),
            (b"-NAK", Ack::Nak(0)),
            (b"-NAK {\"delay\": 5000}", Ack::Nak(5000)),
            (b"-NAK 5s", Ack::Nak(5_000_000_000)),
            (b"-NAK 5x", Ack::Nak(0)),
            (b"+WPI", Ack::InProgress),
            (b"+TERM", Ack::Term(String::new())),
            (b"+TERM bad data", Ack::Term("bad data".to_owned())),
            (b"+NXT 5", Ack::Next(b"5".to_vec())),
        ] {
            assert_eq!(Ack::parse(body), Some(ack), "{}", body.escape_ascii());
        }
        assert_eq!(Ack::parse(b"hello"), None);
        assert_eq!(Ack::parse(&[0xff]), None);
    }
}
