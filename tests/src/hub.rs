//! A real nats-server with JetStream, and a look into its stream.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::need::need;
use crate::port::free_port;
use crate::process::Group;
use crate::wait::wait_until;

/// A nats-server whose stream is in `folder`, and stays there while the server is down.
#[derive(Debug)]
pub struct Hub {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    group: Option<Group>,
}

impl Hub {
    /// One that does not run yet. `current` is the one of PyPI that `cargo xtask test packages` puts into `target/`, else Debian's.
    ///
    /// # Panics
    /// It is not there.
    #[track_caller]
    pub fn new(folder: &Path, current: bool) -> Self {
        let program = if current { fetched() } else { need("nats-server", "nats-server") };
        let folder = folder.join("hub");
        fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("cannot make {}: {error}", folder.display()));
        Self { program, folder, port: free_port(), group: None }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Panics
    /// It does not come up.
    #[track_caller]
    pub fn start(&mut self) {
        let log = self.folder.join("log");
        let open = fs::OpenOptions::new().create(true).append(true).open(&log);
        let open = open.unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()));
        let mut command = Command::new(&self.program);
        command.args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-js", "-sd"]).arg(self.folder.join("js")).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(open);
        let mut group = Group::start(&mut command);
        wait_until("a listening nats-server", || {
            assert!(!group.ended(), "nats-server ended: {}", fs::read_to_string(&log).unwrap_or_default());
            TcpStream::connect(self.address()).is_ok()
        });
        self.group = Some(group);
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.group = None;
    }

    /// Messages in the stream, as (`Nats-Msg-Id`, payload), oldest first. Empty while there is no stream or no server.
    pub fn messages(&self, stream: &str) -> Vec<(String, Value)> {
        let Some(mut client) = Client::connect(self.address()) else { return Vec::new() };
        let info = client.ask(&format!("$JS.API.STREAM.INFO.{stream}"), "");
        let last = info["state"]["last_seq"].as_u64().unwrap_or(0);
        let get = |seq| client.ask(&format!("$JS.API.STREAM.MSG.GET.{stream}"), &json!({ "seq": seq }).to_string());
        let messages: Vec<Value> = (1..=last).map(get).collect();
        let read = |answer: Value| {
            let header = String::from_utf8(decode(answer["message"]["hdrs"].as_str()?)).ok()?;
            let id = header.lines().find_map(|line| line.strip_prefix("Nats-Msg-Id:"))?.trim().to_owned();
            Some((id, serde_json::from_slice(&decode(answer["message"]["data"].as_str()?)).ok()?))
        };
        messages.into_iter().filter_map(read).collect()
    }
}

/// The nats-server that xtask fetched: in the folder of the build's own output.
#[track_caller]
fn fetched() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    // target/debug/deps/TEST
    let target = own.ancestors().nth(3).map(|target| target.join("nats-server")).unwrap_or_default();
    let found =
        fs::read_dir(&target).into_iter().flatten().flatten().map(|entry| entry.path().join("nats-server")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no nats-server below {}: run `cargo xtask test packages`", target.display()))
}

/// Just enough of the protocol to ask for an answer.
struct Client {
    stream: BufReader<TcpStream>,
    asked: u64,
}

impl Client {
    fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let mut client = Self { stream: BufReader::new(stream), asked: 0 };
        client.say("CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\nSUB answers.* 1\r\n");
        Some(client)
    }

    fn say(&mut self, words: &str) {
        // A server that is gone shows in the answer that does not come.
        let _ = self.stream.get_mut().write_all(words.as_bytes());
    }

    /// The JSON answer to a request; null when none came.
    fn ask(&mut self, subject: &str, payload: &str) -> Value {
        self.asked += 1;
        self.say(&format!("PUB {subject} answers.{} {}\r\n{payload}\r\n", self.asked, payload.len()));
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).map_or(true, |read| read == 0) {
                return Value::Null;
            }
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words[..] {
                ["PING"] => self.say("PONG\r\n"),
                // MSG subject sid [reply] length
                ["MSG", .., length] => {
                    let mut bytes = vec![0; length.parse::<usize>().unwrap_or(0) + 2];
                    return match self.stream.read_exact(&mut bytes) {
                        Ok(()) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
                        Err(_) => Value::Null,
                    };
                }
                // No responders: a status and no body.
                ["HMSG", ..] => return Value::Null,
                _ => {}
            }
        }
    }
}

/// Base64 as JetStream's API has it, RFC 4648 §4; what is none of its letters is passed over.
fn decode(text: &str) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for six in text.bytes().filter_map(|byte| LETTERS.iter().position(|letter| *letter == byte)) {
        bits = bits << 6 | six as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn base64_is_read() {
        assert_eq!((decode("TkFUUy8xLjA="), decode("YQ=="), decode("")), (b"NATS/1.0".to_vec(), b"a".to_vec(), Vec::new()));
    }
}
