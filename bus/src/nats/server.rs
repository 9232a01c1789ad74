//! The edge: sockets, TLS, timers. What the bytes mean is `connection`'s business.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::auth::Users;
use super::config::ServerConfig;
use super::connection::{Client, Connection, Described, Next};
use super::outbound::{CloseReason, Outbound};
use super::route::Router;
use super::shared::{ServerStats, Shared, Touched};
use super::tls;
use crate::log::lock;

/// A read buffer begins with this and grows while it is filled, up to the other.
const READ_MIN: usize = 4 * 1024;
const READ_MAX: usize = 512 * 1024;
/// How often pings, stale connections and forgotten logins are looked for.
const TICK: Duration = Duration::from_millis(250);
/// What a connection that is closed with an error has to take it.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Bytes that a client of a TLS connection must take within the write deadline.
const TLS_PIECE: usize = 128 * 1024;
/// A publisher whose receivers are crowded waits so long at most before it reads on.
const CROWDED_WAIT: Duration = Duration::from_millis(10);

/// A server that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is not to be had.
    #[error("cannot listen on {address}: {source}; is another server running there? Choose another address or port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// TLS files that do not do.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// Randomness is missing.
    #[error("cannot make a server id: {0}")]
    Id(String),
    /// A limit out of range.
    #[error("max_payload is {0} bytes, and at most 8 MiB are possible: set a smaller one")]
    MaxPayload(usize),
}

/// A running server. Dropping the handle does not stop it; [`Server::shutdown`] does.
pub struct Server {
    shared: Arc<Shared>,
    stop: Arc<watch::Sender<bool>>,
    listener: Mutex<Option<(TcpListener, Option<tokio_rustls::TlsAcceptor>)>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("listen", &self.shared.listen).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens and serves, on the tokio runtime this is called in.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: ServerConfig) -> Result<Self, StartError> {
        let server = Self::bind(config)?;
        server.serve();
        Ok(server)
    }

    /// Listens, so that clients wait instead of failing, and serves nobody before [`Server::serve`]: JetStream is opened in between.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn bind(config: ServerConfig) -> Result<Self, StartError> {
        if config.max_payload > crate::log::record::MAX_PAYLOAD {
            return Err(StartError::MaxPayload(config.max_payload));
        }
        let acceptor = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let address = config.listen;
        let listener = listen(address).map_err(|source| StartError::Listen { address, source })?;
        let listen = listener.local_addr().map_err(|source| StartError::Listen { address, source })?;
        let id = nkeys::KeyPair::new_server().public_key();
        let shared = Arc::new(Shared::new(config, id, listen));
        let stop = Arc::new(watch::Sender::new(false));
        Ok(Self { shared, stop, listener: Mutex::new(Some((listener, acceptor))), tasks: Mutex::default() })
    }

    /// Serves from now on. Calling it twice does nothing.
    pub fn serve(&self) {
        let Some((listener, acceptor)) = lock(&self.listener).take() else { return };
        let accepting = tokio::spawn(accept(listener, Arc::clone(&self.shared), acceptor, Arc::clone(&self.stop)));
        let ticking = tokio::spawn(tick(Arc::clone(&self.shared)));
        info!(listen = %self.shared.listen, "NATS clients are served");
        lock(&self.tasks).extend([accepting, ticking]);
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.listen
    }

    /// Core NATS for the process itself.
    pub fn router(&self) -> Arc<dyn Router> {
        Arc::clone(&self.shared) as Arc<dyn Router>
    }

    /// Says in INFO that there is JetStream.
    pub fn set_jetstream(&self, enabled: bool) {
        self.shared.jetstream.store(enabled, Ordering::Relaxed);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.config.name
    }

    /// Other users from now on. Who is connected stays.
    pub fn set_users(&self, users: Users) {
        self.shared.set_users(users);
    }

    /// The server in numbers.
    pub fn stats(&self) -> ServerStats {
        self.shared.stats()
    }

    /// Accepts nobody any more and asks clients to leave, then waits until they have, or until the grace is over.
    pub async fn lame_duck(&self) {
        self.shared.lame_duck.store(true, Ordering::Relaxed);
        self.stop.send_replace(true);
        let clients: Vec<Arc<Client>> = self.clients();
        for client in clients.iter().filter(|client| client.async_info.load(Ordering::Relaxed)) {
            let info = self.shared.info(client, "", false);
            client.out.push(|out| out.extend_from_slice(info.as_bytes()));
            client.out.flush();
        }
        let end = Instant::now() + self.shared.config.lame_duck_grace;
        while !self.clients().is_empty() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn clients(&self) -> Vec<Arc<Client>> {
        self.shared.clients.read().map(|clients| clients.values().cloned().collect()).unwrap_or_default()
    }

    /// Closes all connections and ends.
    pub async fn shutdown(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.stop.send_replace(true);
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
        for client in self.clients() {
            client.out.close(CloseReason::ServerShutdown);
        }
        let end = Instant::now() + 2 * LAST_WORDS;
        while !self.clients().is_empty() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
    // A server that was killed and started again finds its port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, acceptor: Option<tokio_rustls::TlsAcceptor>, stop: Arc<watch::Sender<bool>>) {
    let mut warned: Option<Instant> = None;
    let mut stopped = stop.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match accepted {
            Ok((socket, address)) => {
                shared.counters.connections.fetch_add(1, Ordering::Relaxed);
                let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                tokio::spawn(async move { serve(socket, address, shared, acceptor).await });
            }
            Err(error) => {
                // Too many open files, most likely: those who are connected go on, others are tried again.
                shared.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
                if warned.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                    warn!(%error, "cannot accept a connection: trying again; raise the limit of open files if this stays");
                    warned = Some(Instant::now());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Pings, stale connections, logins that do not come.
async fn tick(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        let clients: Vec<Arc<Client>> = shared.clients.read().map(|clients| clients.values().cloned().collect()).unwrap_or_default();
        for client in clients {
            look_after(&shared, &client);
        }
    }
}

fn look_after(shared: &Shared, client: &Client) {
    let config = &shared.config;
    let age = client.since.elapsed();
    if !client.authenticated.load(Ordering::Relaxed) {
        if age > config.auth_timeout {
            client.error("Authentication Timeout");
            client.out.close(CloseReason::AuthenticationTimeout);
        }
        return;
    }
    let silent = age.saturating_sub(Duration::from_millis(client.last_heard_ms.load(Ordering::Relaxed)));
    let unanswered = client.pings_out.load(Ordering::Relaxed);
    // The first ping comes soon and once: it measures the way. Who talks without answering it is asked again when it is silent.
    let unmeasured = client.rtt_us.load(Ordering::Relaxed) == 0 && client.ping_sent_us.load(Ordering::Relaxed) == 0;
    let first = unmeasured && age > Duration::from_secs(1).min(config.ping_interval);
    if first || silent > config.ping_interval * (unanswered + 1) {
        if unanswered >= config.ping_max {
            client.error("Stale Connection");
            client.out.close(CloseReason::Stale);
            return;
        }
        client.pings_out.store(unanswered + 1, Ordering::Relaxed);
        client.ping_sent_us.store(age.as_micros() as u64, Ordering::Relaxed);
        if client.out.push(|out| out.extend_from_slice(b"PING\r\n")) {
            client.out.flush();
        }
    }
}

/// Somebody who just came.
pub(crate) fn new_client(shared: &Shared, address: SocketAddr, socket: Option<Arc<TcpStream>>) -> Arc<Client> {
    Arc::new(Client {
        id: shared.next_id(),
        address,
        since: Instant::now(),
        out: Outbound::new(socket, shared.config.max_pending, Arc::clone(&shared.spare), Arc::clone(&shared.room)),
        echo: AtomicBool::new(true),
        headers: AtomicBool::new(false),
        async_info: AtomicBool::new(false),
        authenticated: AtomicBool::new(!shared.users().required()),
        received_messages: AtomicU64::new(0),
        received_bytes: AtomicU64::new(0),
        subscriptions: AtomicU64::new(0),
        some_ended: AtomicBool::new(false),
        pings_out: AtomicU32::new(0),
        last_heard_ms: AtomicU64::new(0),
        rtt_us: AtomicU64::new(0),
        ping_sent_us: AtomicU64::new(0),
        described: Mutex::new(Described::default()),
    })
}

fn nonce(shared: &Shared) -> String {
    use base64::Engine;
    if !shared.users().nonce_wanted() {
        return String::new();
    }
    let mut bytes = [0; 11];
    match getrandom::fill(&mut bytes) {
        Ok(()) => base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes),
        Err(error) => {
            warn!(%error, "cannot make a nonce: nobody can log in with an nkey");
            String::new()
        }
    }
}

async fn serve(socket: TcpStream, address: SocketAddr, shared: Arc<Shared>, acceptor: Option<tokio_rustls::TlsAcceptor>) {
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    let nonce = nonce(&shared);
    match (acceptor, &shared.config.tls) {
        (Some(acceptor), Some(tls)) => {
            let client = new_client(&shared, address, None);
            let (first, timeout) = (tls.handshake_first, tls.timeout);
            let mut socket = socket;
            if !first && socket.write_all(shared.info(&client, &nonce, false).as_bytes()).await.is_err() {
                return;
            }
            // Each of them costs a key exchange: who comes in is counted before it has come in.
            let Ok(shaking) = shared.handshakes.try_acquire() else {
                debug!(%address, "too many TLS handshakes at a time");
                *lock(&shared.counters.closed).entry(CloseReason::TooMany).or_default() += 1;
                return;
            };
            let accepted = tokio::time::timeout(timeout, acceptor.accept(socket)).await;
            drop(shaking);
            match accepted {
                Ok(Ok(mut stream)) => {
                    if first && stream.write_all(shared.info(&client, &nonce, false).as_bytes()).await.is_err() {
                        return;
                    }
                    let (reader, writer) = tokio::io::split(stream);
                    let writing = tokio::spawn(write_stream(Arc::clone(&client), writer, shared.config.write_deadline));
                    run(Connection::new(client, Arc::clone(&shared), nonce), Reader::Stream(Box::new(reader)), writing).await;
                }
                Ok(Err(error)) => {
                    debug!(%address, %error, "TLS handshake failed");
                    *lock(&shared.counters.closed).entry(CloseReason::TlsFailed).or_default() += 1;
                }
                Err(_) => *lock(&shared.counters.closed).entry(CloseReason::TlsFailed).or_default() += 1,
            }
        }
        _ => {
            let socket = Arc::new(socket);
            let client = new_client(&shared, address, Some(Arc::clone(&socket)));
            let info = shared.info(&client, &nonce, false);
            client.out.push(|out| out.extend_from_slice(info.as_bytes()));
            client.out.flush();
            let writing = tokio::spawn(write_socket(Arc::clone(&client), Arc::clone(&socket), shared.config.write_deadline));
            run(Connection::new(client, Arc::clone(&shared), nonce), Reader::Socket(socket), writing).await;
        }
    }
}

enum Reader {
    Socket(Arc<TcpStream>),
    Stream(Box<dyn AsyncRead + Send + Unpin>),
}

impl Reader {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => loop {
                socket.readable().await?;
                match socket.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return other,
                }
            },
            Self::Stream(stream) => stream.read(buffer).await,
        }
    }
}

/// Reads until the client goes or must go.
async fn run(mut connection: Connection, mut reader: Reader, writing: JoinHandle<()>) {
    let (client, shared) = (Arc::clone(&connection.client), Arc::clone(&connection.shared));
    let _known = Known { client: Arc::clone(&client), shared: Arc::clone(&shared) };
    let too_many = {
        match shared.clients.write() {
            Ok(mut clients) => {
                clients.insert(client.id, Arc::clone(&client));
                clients.len() > shared.config.max_connections
            }
            Err(_) => true,
        }
    };
    if shared.closing.load(Ordering::Acquire) {
        // It was on its way in (a TLS handshake, perhaps) when the server ended.
        client.out.close(CloseReason::ServerShutdown);
    } else if too_many {
        client.error("maximum connections exceeded");
        client.out.close(CloseReason::TooMany);
    }
    let mut buffer = vec![0; READ_MIN];
    let (mut start, mut end) = (0, 0);
    let mut touched = Touched::default();
    while !client.out.is_closed() {
        let read = tokio::select! {
            biased;
            read = reader.read(&mut buffer[end..]) => read,
            () = client.out.ended.notified() => continue,
        };
        let room = buffer.len() - end;
        match read {
            Ok(0) | Err(_) => {
                client.out.close(CloseReason::ClientClosed);
                break;
            }
            Ok(read) => {
                end += read;
                client.last_heard_ms.store(client.since.elapsed().as_millis() as u64, Ordering::Relaxed);
                client.pings_out.store(0, Ordering::Relaxed);
            }
        }
        let filled = end - start == buffer.len() || end == buffer.len() && room > 0;
        let needed = loop {
            let (next, done) = connection.process(&buffer[start..end], &mut touched);
            start += done;
            shared.flush_touched(&mut touched);
            match next {
                Next::Read(needed) => break needed,
                Next::Authenticate(_) => authenticate(&mut connection).await,
                Next::Close => break 0,
            }
        };
        wait_while_crowded(&mut touched).await;
        make_room(&mut buffer, &mut start, &mut end, needed, filled);
    }
    drop(connection);
    client.out.ready.notify_one();
    let writer = writing.abort_handle();
    if tokio::time::timeout(LAST_WORDS, writing).await.is_err() {
        debug!(cid = client.id, "the client did not take its last words");
        // It would hold the socket for as long as the client takes a byte now and then.
        writer.abort();
    }
}

/// A connection that is known to others, until it ends, however that happens.
struct Known {
    client: Arc<Client>,
    shared: Arc<Shared>,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.client.out.hang_up();
        self.shared.gone(&self.client);
    }
}

/// Publishers do not run away from those they publish to.
async fn wait_while_crowded(touched: &mut Touched) {
    let end = Instant::now() + CROWDED_WAIT;
    for client in std::mem::take(&mut touched.crowded) {
        while client.out.is_crowded() && !client.out.is_closed() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Moves what is left to the front, and makes the buffer as large as it should be.
fn make_room(buffer: &mut Vec<u8>, start: &mut usize, end: &mut usize, needed: usize, filled: bool) {
    let left = *end - *start;
    let mut want = buffer.len();
    if filled && want < READ_MAX {
        want *= 4;
    } else if left == 0 && !filled && want > READ_MIN * 4 && *end < want / 8 {
        want /= 2;
    }
    let want = want.max(needed);
    if left > 0 && *start > 0 {
        buffer.copy_within(*start..*end, 0);
    }
    (*start, *end) = (0, left);
    if want > buffer.len() {
        buffer.resize(want, 0);
    } else if want < buffer.len() {
        buffer.truncate(want);
        buffer.shrink_to_fit();
    }
}

async fn authenticate(connection: &mut Connection) {
    let users = connection.shared.users();
    let user = match &connection.pending_connect {
        None => None,
        Some(connect) if connect.jwt.as_ref().is_some_and(|jwt| !jwt.is_empty()) => {
            debug!("a client came with a JWT, which this server does not know");
            None
        }
        Some(_) if users.is_slow() => {
            let Some(connect) = connection.pending_connect.take() else { return };
            let nonce = connection.nonce.clone();
            match tokio::task::spawn_blocking(move || {
                let user = users.authenticate(&connect, &nonce);
                (connect, user)
            })
            .await
            {
                Ok((connect, user)) => {
                    connection.pending_connect = Some(connect);
                    user
                }
                Err(_) => None,
            }
        }
        Some(connect) => users.authenticate(connect, &connection.nonce),
    };
    connection.authenticated(user.as_ref());
}

/// Writes what the publishers could not.
async fn write_socket(client: Arc<Client>, socket: Arc<TcpStream>, deadline: Duration) {
    loop {
        client.out.ready.notified().await;
        loop {
            match client.out.drain_socket() {
                Ok(false) => break,
                Ok(true) => match tokio::time::timeout(deadline, socket.writable()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return client.out.close(CloseReason::ClientClosed),
                    Err(_) => return client.out.close(CloseReason::SlowConsumerDeadline),
                },
                Err(_) => return,
            }
            if client.out.reason() == Some(CloseReason::SlowConsumerPending) {
                return;
            }
        }
        if client.out.is_closed() {
            return;
        }
    }
}

async fn write_stream(client: Arc<Client>, mut stream: impl AsyncWrite + Unpin, deadline: Duration) {
    loop {
        client.out.ready.notified().await;
        loop {
            let bytes = client.out.take();
            if bytes.is_empty() {
                break;
            }
            // Piece by piece, each with a deadline of its own: a client that reads slowly reads.
            for piece in bytes.chunks(TLS_PIECE) {
                let write = async {
                    stream.write_all(piece).await?;
                    stream.flush().await
                };
                match tokio::time::timeout(deadline, write).await {
                    Ok(Ok(())) => client.out.was_sent(piece.len()),
                    Ok(Err(_)) => return client.out.close(CloseReason::ClientClosed),
                    Err(_) => return client.out.close(CloseReason::SlowConsumerDeadline),
                }
            }
        }
        if client.out.is_closed() {
            // Best effort: the client may be gone already.
            let _ = tokio::time::timeout(LAST_WORDS, stream.shutdown()).await;
            return;
        }
    }
}
