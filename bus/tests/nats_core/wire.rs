//! A client that knows where one thing that the server says ends and the next begins, and nothing more.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Failure, Outcome};

/// Nothing that a test waits for takes so long; it ends a test that would wait for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// How an end of the connection is written in what is expected.
pub(crate) const EOF: &str = "<EOF>";

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// A connection.
pub(crate) struct Wire {
    stream: Box<dyn Both>,
    bytes: Vec<u8>,
    /// The last INFO.
    pub(crate) info: serde_json::Value,
    /// PINGs from the server, which are not part of what is expected: when they come is the clock's business.
    pub(crate) pings: u64,
    /// Answers them.
    pub(crate) answers_pings: bool,
    /// Gives them as what the server says.
    pub(crate) shows_pings: bool,
}

impl Wire {
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self::over(stream)
    }

    pub(crate) fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            bytes: Vec::new(),
            info: serde_json::Value::Null,
            pings: 0,
            answers_pings: true,
            shows_pings: false,
        }
    }

    /// Writes.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Outcome {
        self.stream.write_all(bytes.as_ref()).await?;
        Ok(self.stream.flush().await?)
    }

    /// Says that nothing more will be said.
    pub(crate) async fn shut(&mut self) -> Outcome {
        Ok(self.stream.shutdown().await?)
    }

    /// Reads INFO and says CONNECT, not verbose and not pedantic, with these fields too.
    pub(crate) async fn connect(&mut self, fields: &str) -> Outcome {
        self.expect("INFO\r\n").await?;
        self.send(format!("CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true{fields}}}\r\n")).await
    }

    /// More bytes; false at the end of the connection, however it ends.
    async fn more(&mut self) -> Result<bool, Failure> {
        let mut bytes = [0; 16 * 1024];
        match tokio::time::timeout(PATIENCE, self.stream.read(&mut bytes)).await {
            Err(_) => Err(format!("nothing comes, after {:?}", String::from_utf8_lossy(&self.bytes)).into()),
            Ok(Ok(0) | Err(_)) => Ok(false),
            Ok(Ok(n)) => {
                self.bytes.extend_from_slice(&bytes[..n]);
                Ok(true)
            }
        }
    }

    async fn upto(&mut self, len: usize) -> Result<bool, Failure> {
        while self.bytes.len() < len {
            if !self.more().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next thing that the server says: a line, or a message with what it holds. INFO without its content, which [`Wire::info`] has.
    pub(crate) async fn unit(&mut self) -> Result<String, Failure> {
        loop {
            let line = loop {
                if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                    break end + 1;
                }
                if !self.more().await? {
                    let left = String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned();
                    return Ok(left + EOF);
                }
            };
            let text = String::from_utf8_lossy(&self.bytes[..line]).into_owned();
            let mut len = line;
            if text.starts_with("MSG ") || text.starts_with("HMSG ") {
                len += text.trim_end().rsplit(' ').next().ok_or("no size")?.parse::<usize>()? + 2;
            }
            if !self.upto(len).await? {
                return Err(format!("it ends in the middle of {:?}", String::from_utf8_lossy(&self.bytes)).into());
            }
            let unit = String::from_utf8_lossy(&self.bytes.drain(..len).collect::<Vec<u8>>()).into_owned();
            if unit == "PING\r\n" {
                self.pings += 1;
                if self.answers_pings {
                    self.send("PONG\r\n").await?;
                }
                if !self.shows_pings {
                    continue;
                }
            }
            if let Some(json) = unit.strip_prefix("INFO ") {
                self.info = serde_json::from_str(json.trim_end())?;
                return Ok("INFO\r\n".to_owned());
            }
            return Ok(unit);
        }
    }

    /// Reads as much as is expected, and says what came instead.
    pub(crate) async fn expect(&mut self, expected: &str) -> Outcome {
        let mut found = String::new();
        while found.len() < expected.len() && expected.starts_with(&found) {
            match self.unit().await {
                Ok(unit) => found += &unit,
                Err(error) => return Err(format!("{error}; it said {found:?}, expected {expected:?}").into()),
            }
        }
        if found == expected { Ok(()) } else { Err(format!("it says {found:?}, expected {expected:?}").into()) }
    }

    /// As [`Wire::expect`], in any order: NATS promises none between subscriptions.
    pub(crate) async fn expect_unordered(&mut self, expected: &[&str]) -> Outcome {
        let mut found = Vec::new();
        while found.len() < expected.len() {
            found.push(self.unit().await?);
        }
        let (mut sorted, mut wanted) = (found.clone(), expected.to_vec());
        sorted.sort_unstable();
        wanted.sort_unstable();
        if sorted == wanted { Ok(()) } else { Err(format!("it says {found:?}, expected in any order {expected:?}").into()) }
    }

    /// Reads, whatever it is, until the connection ends. Gives how many bytes it was.
    pub(crate) async fn end(&mut self) -> Result<usize, Failure> {
        let mut read = 0;
        loop {
            read += std::mem::take(&mut self.bytes).len();
            if !self.more().await? {
                return Ok(read);
            }
        }
    }

    /// Nothing more was said up to now: PING is answered by PONG alone.
    pub(crate) async fn silent(&mut self) -> Outcome {
        self.send("PING\r\n").await?;
        self.expect("PONG\r\n").await
    }

    /// Says and expects.
    pub(crate) async fn says(&mut self, bytes: &str, expected: &str) -> Outcome {
        self.send(bytes).await?;
        self.expect(expected).await
    }
}
