//! The syslog sink: RFC 5424 over plain TCP.

use std::sync::Arc;

use crate::config::{Address, DurationSetting, SinkType, SyslogConfig};
use crate::sink::{Description, Item, Sink, SinkCounts, SinkError};
use crate::syslog::SyslogEncoder;
use crate::tcp::{TcpLink, TcpOptions};

/// Frames are gathered up to about this many bytes for one write.
const GATHER_BYTES: usize = 64 * 1024;

/// Alerts as JSON in RFC 5424 messages on a TCP connection.
#[derive(Debug)]
pub struct SyslogTcp {
    address: Address,
    encoder: SyslogEncoder,
    options: TcpOptions,
    link: Option<TcpLink>,
    shrunk: u64,
}

impl SyslogTcp {
    /// A sink that delivers to `address` as configured. `process_id` becomes the PROCID of every message.
    pub fn new(address: &Address, connect_timeout: DurationSetting, config: &SyslogConfig, process_id: u32) -> Self {
        let SyslogConfig { facility, app_name, framing, max_message_bytes, write_timeout, confirm_after } = config;
        Self {
            address: address.clone(),
            encoder: SyslogEncoder {
                facility: *facility,
                app_name: app_name.clone(),
                process_id,
                framing: *framing,
                max_message_bytes: *max_message_bytes,
            },
            options: TcpOptions { connect_timeout: connect_timeout.0, write_timeout: write_timeout.0, confirm_after: confirm_after.0 },
            link: None,
            shrunk: 0,
        }
    }
}

fn no_session() -> SinkError {
    SinkError::retry("there is no connection")
}

impl Sink for SyslogTcp {
    fn describe(&self) -> Description {
        Description { kind: SinkType::Syslog.as_str(), address: self.address.to_string() }
    }

    fn counts(&self) -> SinkCounts {
        SinkCounts { shrunk: self.shrunk, duplicates: 0 }
    }

    fn warning(&self) -> Option<String> {
        None
    }

    async fn open(&mut self) -> Result<(), SinkError> {
        self.link = None;
        self.link = Some(TcpLink::connect(&self.address, self.options).await?);
        Ok(())
    }

    async fn send(&mut self, items: &[Arc<Item>]) -> Result<(), SinkError> {
        let link = self.link.as_mut().ok_or_else(no_session)?;
        let mut frames = Vec::new();
        for item in items {
            let start = frames.len();
            if self.encoder.encode(&item.alert, item.seq, &mut frames).is_some() {
                self.shrunk += 1;
            }
            link.queue(item.seq, frames.len() - start);
            if frames.len() >= GATHER_BYTES {
                link.write(&frames).await?;
                frames.clear();
            }
        }
        link.write(&frames).await
    }

    async fn confirmed(&mut self) -> Result<Vec<u64>, SinkError> {
        self.link.as_mut().ok_or_else(no_session)?.confirmed().await
    }

    async fn close(&mut self) {
        if let Some(link) = self.link.take() {
            link.close().await;
        }
    }
}
