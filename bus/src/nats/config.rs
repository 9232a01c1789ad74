//! The server's settings, with nats-server's defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::auth::Users;

/// TLS settings.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// PEM file with the server's certificate, then those that signed it.
    pub cert: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM file with certificates that client certificates must be signed by; asks for them when set.
    pub client_ca: Option<PathBuf>,
    /// The handshake comes before INFO.
    pub handshake_first: bool,
    /// A handshake takes at most so long.
    pub timeout: Duration,
}

/// The server's settings.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Its name in INFO; also of the JetStream leader it claims to be.
    pub name: String,
    /// Largest headers and payload together. 1 MiB; at most 8 MiB.
    pub max_payload: usize,
    /// Longest line of arguments. 4 KiB.
    pub max_control_line: usize,
    /// A connection that has more than this to be sent is closed as a slow consumer. 64 MiB.
    pub max_pending: usize,
    /// Connections at a time. 65,536.
    pub max_connections: usize,
    /// Subscriptions of one connection. Unlimited in nats-server; 100,000 here.
    pub max_subscriptions: usize,
    /// How often an idle connection is pinged. 2 minutes.
    pub ping_interval: Duration,
    /// Pings that may be unanswered. 2.
    pub ping_max: u32,
    /// A connection authenticates within this time. 2 s.
    pub auth_timeout: Duration,
    /// A write that does not get on for so long closes the connection. 10 s.
    pub write_deadline: Duration,
    /// Lame duck: how long clients are given to leave by themselves. 10 s.
    pub lame_duck_grace: Duration,
    /// Who may connect.
    pub users: Users,
    /// TLS, where wanted.
    pub tls: Option<TlsConfig>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 4222).into(),
            name: "bartizan".to_owned(),
            max_payload: 1024 * 1024,
            max_control_line: 4096,
            max_pending: 64 * 1024 * 1024,
            max_connections: 64 * 1024,
            max_subscriptions: 100_000,
            ping_interval: Duration::from_secs(120),
            ping_max: 2,
            auth_timeout: Duration::from_secs(2),
            write_deadline: Duration::from_secs(10),
            lame_duck_grace: Duration::from_secs(10),
            users: Users::default(),
            tls: None,
        }
    }
}
