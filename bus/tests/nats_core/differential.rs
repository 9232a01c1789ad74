//! What nobody thought of: random conversations, the same ones with both servers, which must say the same.
//!
//! A conversation is sent at once, then the client's side is shut, and everything up to the end is compared; what comes between two PONGs
//! is compared without its order, of which NATS promises none between subscriptions. `BARTIZAN_SEED=N` runs one conversation alone.

use crate::server::{Kind, Server, config};
use crate::wire::EOF;
use crate::{Failure, Outcome};

const CONVERSATIONS: u64 = 1500;

/// Runs all of them.
pub(crate) async fn run(filter: &str) -> Vec<(String, Outcome)> {
    const NAME: &str = "differential::random_conversations";
    if !NAME.contains(filter) {
        return Vec::new();
    }
    vec![(NAME.to_owned(), all().await)]
}

async fn all() -> Outcome {
    let (theirs, ours) = (Server::start(Kind::NatsServer, config()).await?, Server::start(Kind::Ours, config()).await?);
    let only: Option<u64> = std::env::var("BARTIZAN_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..CONVERSATIONS, |seed| seed..seed + 1);
    let mut differing = Vec::new();
    for seed in seeds {
        let said = conversation(&mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1));
        let (expected, found) = tokio::try_join!(answers(&theirs, &said), answers(&ours, &said))?;
        if expected != found {
            differing.push(format!("BARTIZAN_SEED={seed}\n  said      {said:?}\n  expected  {expected:?}\n  found     {found:?}"));
        }
    }
    if differing.is_empty() {
        return Ok(());
    }
    let some = differing[..differing.len().min(5)].join("\n");
    Err(format!("{} conversations differ, such as\n{some}", differing.len()).into())
}

async fn answers(server: &Server, said: &str) -> Result<Vec<String>, Failure> {
    let mut wire = server.wire().await?;
    wire.expect("INFO\r\n").await?;
    wire.send(said).await?;
    wire.shut().await?;
    let (mut answers, mut part) = (Vec::new(), Vec::new());
    loop {
        let mut unit = wire.unit().await?;
        if unit.contains("NATS/1.0 503")
            && let [op, reply, _sid, rest] = unit.splitn(4, ' ').collect::<Vec<_>>()[..]
        {
            // Which of several subscriptions is told that nobody is there is chance.
            unit = format!("{op} {reply} ? {rest}");
        }
        let (end, pong) = (unit.ends_with(EOF), unit == "PONG\r\n");
        if !end && !pong {
            part.push(unit);
            continue;
        }
        part.sort_unstable();
        answers.append(&mut part);
        answers.push(unit);
        if end {
            return Ok(answers);
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

const SUBJECTS: &[&str] = &["a", "b", "a.b", "a.c", "a.b.c", "b.a", "A", "a.", ".a", "a..b", "a.*", "a.>", "é", "a.*.b", "x*y", "-"];
const PATTERNS: &[&str] = &["a", "b", "a.b", "a.*", "a.>", "*.b", "*", ">", "*.*", "a.*.c", "a..b", "a.>.b", ">.a", "*a", "a.b.", "é"];
const SIDS: &[&str] = &["1", "2", "3", "x", "01"];

fn conversation(random: &mut Random) -> String {
    let mut said = String::new();
    if !random.once_in(10) {
        said += "CONNECT {";
        let mut fields = Vec::new();
        for field in ["verbose", "pedantic", "echo", "headers", "no_responders"] {
            if !random.once_in(6) {
                fields.push(format!("\"{field}\":{}", random.of(&["true", "false", "false", "null"])));
            }
        }
        if random.once_in(4) {
            fields.push(format!("\"protocol\":{}", random.below(2)));
        }
        said += &fields.join(",");
        said += "}\r\nPING\r\n";
    }
    for _ in 0..1 + random.below(14) {
        let blank = if random.once_in(12) { random.of(&["\t", "  ", " \t "]) } else { " " };
        let mut op = match random.below(12) {
            0..=2 => vec!["SUB", random.of(PATTERNS), random.of(SIDS)],
            // Each in a group of its own: which member of one gets a message is chance.
            3 => vec!["SUB", random.of(PATTERNS), "", ""],
            4 => vec!["UNSUB", random.of(SIDS)],
            5 => vec!["UNSUB", random.of(SIDS), random.of(&["0", "1", "2", "3"])],
            6 => vec!["PING"],
            7 => vec!["PONG"],
            8 => vec!["HPUB", random.of(SUBJECTS), "12", "14"],
            9 => vec!["PUB", random.of(SUBJECTS), random.of(&["a", "r", "a.b", "_R_.x"]), "2"],
            _ => vec!["PUB", random.of(SUBJECTS), "2"],
        };
        if op.len() == 4 && op[0] == "SUB" {
            let at = random.below(SIDS.len());
            (op[2], op[3]) = (["g", "h.>", "a..b", "*", "é"][at], SIDS[at]);
        }
        let payload = match op[0] {
            "PUB" => "hi\r\n",
            "HPUB" => "NATS/1.0\r\n\r\nhi\r\n",
            _ => "",
        };
        if random.once_in(40) {
            // An argument too many or too few.
            let at = random.below(op.len());
            if random.once_in(2) {
                op.insert(at + 1, "y");
            } else {
                op.remove(at);
            }
        }
        let mut line = op.join(blank) + if random.once_in(12) { "\n" } else { "\r\n" };
        if random.once_in(10) {
            line = line.to_lowercase();
        }
        if random.once_in(60) {
            // A letter too few or twice.
            // Not in a size: what a pedantic server says of a subject when it has no payload yet is not compared.
            let at = random.below(if payload.is_empty() { line.len() } else { 5 });
            if line.is_char_boundary(at) && line.is_char_boundary(at + 1) {
                let letter = line.remove(at);
                if random.once_in(2) {
                    line.insert(at, letter);
                    line.insert(at, letter);
                }
            }
        }
        said += &line;
        said += payload;
        if random.once_in(3) {
            said += "PING\r\n";
        }
    }
    said + "PING\r\n"
}
