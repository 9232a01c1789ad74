//! TLS: who is shown which certificate, and when.

use std::sync::Arc;
use std::time::Duration;

use bartizan_bus::nats::{CloseReason, ServerConfig, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;

use crate::server::{Kind, Server, config, file};
use crate::wire::{EOF, Wire};
use crate::{Failure, Outcome, Test, same, tests};

pub(crate) fn tests() -> impl IntoIterator<Item = Test> {
    tests!(
        tls::info_then_tls,
        tls::tls_then_info,
        tls::plain_talk_is_refused,
        tls::plain_talk_before_tls_is_refused,
        tls::a_handshake_that_does_not_come,
        tls::client_certificates,
        tls::large_messages,
        tls::slow_consumer,
        tls::a_protocol_error_ends_it,
        tls::async_nats_over_tls,
    )
}

/// An authority, and what it signed.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Result<Self, Failure> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// Certificate and key.
    fn signs(&self, usage: ExtendedKeyUsagePurpose) -> Result<(String, String), Failure> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.extended_key_usages = vec![usage];
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

struct Files {
    authority: Authority,
    dir: tempfile::TempDir,
    tls: TlsConfig,
}

fn files() -> Result<Files, Failure> {
    let (authority, dir) = (Authority::new()?, tempfile::tempdir()?);
    let (cert, key) = authority.signs(ExtendedKeyUsagePurpose::ServerAuth)?;
    let (cert, key) = (file(&dir, "cert.pem", &cert)?, file(&dir, "key.pem", &key)?);
    let tls = TlsConfig { cert, key, client_ca: None, handshake_first: false, timeout: Duration::from_secs(10) };
    Ok(Files { authority, dir, tls })
}

fn with(tls: TlsConfig) -> ServerConfig {
    ServerConfig { tls: Some(tls), ..config() }
}

/// Does the handshake on a socket of which the plain INFO is read, if there is one.
async fn handshake(socket: TcpStream, authority: &Authority, own: Option<&(String, String)>) -> Result<Wire, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes())?)?;
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let client = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes())?],
            PrivateKeyDer::from_pem_slice(key.as_bytes())?,
        )?,
    };
    let stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(ServerName::try_from("localhost")?, socket).await?;
    Ok(Wire::over(stream))
}

/// Reads the plain INFO, byte by byte so that nothing of TLS is taken, and gives it.
async fn plain_info(socket: &mut TcpStream) -> Result<serde_json::Value, Failure> {
    use tokio::io::AsyncReadExt;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(socket.read_u8().await?);
    }
    Ok(serde_json::from_slice(line.strip_prefix(b"INFO ").ok_or("not INFO")?.trim_ascii())?)
}

/// A client of a server that says INFO first.
async fn client(server: &Server, authority: &Authority, own: Option<&(String, String)>) -> Result<Wire, Failure> {
    let mut socket = TcpStream::connect(server.address).await?;
    let info = plain_info(&mut socket).await?;
    same_tls(&info)?;
    let mut wire = handshake(socket, authority, own).await?;
    wire.send("CONNECT {\"verbose\":false,\"headers\":true}\r\n").await?;
    Ok(wire)
}

fn same_tls(info: &serde_json::Value) -> Outcome {
    same!(info["tls_required"], true);
    Ok(())
}

pub(crate) async fn info_then_tls(kind: Kind) -> Outcome {
    let Files { authority, tls, dir: _dir } = files()?;
    let server = Server::start(kind, with(tls)).await?;
    let mut socket = TcpStream::connect(server.address).await?;
    let info = plain_info(&mut socket).await?;
    same!((&info["tls_required"], info.get("tls_verify")), (&true.into(), None));
    let mut wire = handshake(socket, &authority, None).await?;
    // No INFO before CONNECT, and the second one as ever.
    wire.says("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n", "PONG\r\nINFO\r\n").await?;
    wire.says("SUB a 1\r\nPUB a 2\r\nhi\r\n", "MSG a 1 2\r\nhi\r\n").await?;
    wire.silent().await
}

pub(crate) async fn tls_then_info(kind: Kind) -> Outcome {
    let Files { authority, tls, dir: _dir } = files()?;
    let server = Server::start(kind, with(TlsConfig { handshake_first: true, ..tls })).await?;
    let mut wire = handshake(TcpStream::connect(server.address).await?, &authority, None).await?;
    wire.expect("INFO\r\n").await?;
    same!(wire.info["tls_required"], true);
    wire.says("CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 2\r\nhi\r\nPING\r\n", "MSG a 1 2\r\nhi\r\nPONG\r\n").await
}

pub(crate) async fn plain_talk_is_refused(kind: Kind) -> Outcome {
    let Files { tls, .. } = files_kept()?;
    let server = Server::start(kind, with(tls)).await?;
    let mut wire = server.wire().await?;
    wire.expect("INFO\r\n").await?;
    wire.send("CONNECT {\"verbose\":false}\r\nPING\r\n").await?;
    ends_without_a_pong(&mut wire).await?;
    server.counted(CloseReason::TlsFailed).await
}

pub(crate) async fn plain_talk_before_tls_is_refused(kind: Kind) -> Outcome {
    let Files { tls, .. } = files_kept()?;
    let server = Server::start(kind, with(TlsConfig { handshake_first: true, ..tls })).await?;
    let mut wire = server.wire().await?;
    wire.send("CONNECT {\"verbose\":false}\r\nPING\r\n").await?;
    ends_without_a_pong(&mut wire).await?;
    server.counted(CloseReason::TlsFailed).await
}

/// Whatever alert TLS sends, the connection ends, and nothing of NATS was answered.
async fn ends_without_a_pong(wire: &mut Wire) -> Outcome {
    loop {
        let unit = wire.unit().await?;
        same!((unit.contains("PONG"), unit.contains("INFO")), (false, false));
        if unit.ends_with(EOF) {
            return Ok(());
        }
    }
}

/// As [`files`], kept until the process ends.
fn files_kept() -> Result<Files, Failure> {
    let mut files = files()?;
    files.dir.disable_cleanup(true);
    Ok(files)
}

pub(crate) async fn a_handshake_that_does_not_come(kind: Kind) -> Outcome {
    let Files { tls, dir: _dir, .. } = files()?;
    let server = Server::start(kind, with(TlsConfig { timeout: Duration::from_millis(300), ..tls })).await?;
    let mut wire = server.wire().await?;
    wire.expect("INFO\r\n").await?;
    ends_without_a_pong(&mut wire).await?;
    server.counted(CloseReason::TlsFailed).await
}

pub(crate) async fn client_certificates(kind: Kind) -> Outcome {
    let Files { authority, dir, tls } = files()?;
    let client_ca = Some(file(&dir, "ca.pem", &authority.pem)?);
    let server = Server::start(kind, with(TlsConfig { client_ca, ..tls })).await?;
    let mut socket = TcpStream::connect(server.address).await?;
    let info = plain_info(&mut socket).await?;
    same!((&info["tls_required"], &info["tls_verify"]), (&true.into(), &true.into()));
    let own = authority.signs(ExtendedKeyUsagePurpose::ClientAuth)?;
    let mut wire = handshake(socket, &authority, Some(&own)).await?;
    wire.says("CONNECT {\"verbose\":false}\r\nPING\r\n", "PONG\r\n").await?;
    let stranger = Authority::new()?.signs(ExtendedKeyUsagePurpose::ClientAuth)?;
    let for_servers = authority.signs(ExtendedKeyUsagePurpose::ServerAuth)?;
    for own in [None, Some(&stranger), Some(&for_servers)] {
        // TLS 1.3 tells a client after its side of the handshake.
        let Ok(mut wire) = client(&server, &authority, own).await else { continue };
        if wire.says("PING\r\n", "PONG\r\n").await.is_ok() {
            return Err("a client without a good certificate was let in".into());
        }
    }
    server.counted(CloseReason::TlsFailed).await
}

pub(crate) async fn large_messages(kind: Kind) -> Outcome {
    let Files { authority, tls, dir: _dir } = files()?;
    let server = Server::start(kind, with(tls)).await?;
    let (mut reading, mut writing) = (client(&server, &authority, None).await?, client(&server, &authority, None).await?);
    reading.says("SUB big 1\r\nPING\r\n", "PONG\r\n").await?;
    let payload = "y".repeat(1 << 20);
    let reader = tokio::spawn(async move {
        for n in 0..20 {
            let unit = reading.unit().await?;
            same!((n, unit.len()), (n, "MSG big 1 1048576\r\n\r\n".len() + (1 << 20)));
        }
        reading.silent().await
    });
    for _ in 0..20 {
        writing.send(format!("PUB big {}\r\n{payload}\r\n", payload.len())).await?;
    }
    writing.silent().await?;
    reader.await?
}

pub(crate) async fn slow_consumer(kind: Kind) -> Outcome {
    let Files { authority, tls, dir: _dir } = files()?;
    let server = Server::start(kind, ServerConfig { max_pending: 4 << 20, ..with(tls) }).await?;
    let mut slow = client(&server, &authority, None).await?;
    slow.says("SUB much 1\r\nPING\r\n", "PONG\r\n").await?;
    let mut publisher = client(&server, &authority, None).await?;
    let message = format!("PUB much 1000000\r\n{}\r\n", "x".repeat(1_000_000));
    for _ in 0..40 {
        publisher.send(&message).await?;
    }
    publisher.silent().await?;
    server.counted(CloseReason::SlowConsumerPending).await
}

pub(crate) async fn a_protocol_error_ends_it(kind: Kind) -> Outcome {
    let Files { authority, tls, dir: _dir } = files()?;
    let server = Server::start(kind, with(tls)).await?;
    let mut wire = client(&server, &authority, None).await?;
    wire.says("FOO\r\n", &format!("-ERR 'Unknown Protocol Operation'\r\n{EOF}")).await
}

pub(crate) async fn async_nats_over_tls(kind: Kind) -> Outcome {
    let Files { authority, dir, tls } = files()?;
    let ca = file(&dir, "ca.pem", &authority.pem)?;
    let (cert, key) = authority.signs(ExtendedKeyUsagePurpose::ClientAuth)?;
    let (cert, key) = (file(&dir, "own.pem", &cert)?, file(&dir, "own.key", &key)?);
    for first in [false, true] {
        let server = Server::start(kind, with(TlsConfig { client_ca: Some(ca.clone()), handshake_first: first, ..tls.clone() })).await?;
        let mut options = async_nats::ConnectOptions::new().add_root_certificates(ca.clone()).require_tls(true);
        options = options.add_client_certificate(cert.clone(), key.clone());
        if first {
            options = options.tls_first();
        }
        let client = options.connect(format!("tls://localhost:{}", server.address.port())).await?;
        let mut sub = client.subscribe("a").await?;
        client.publish("a", "x".into()).await?;
        let message = tokio::time::timeout(Duration::from_secs(20), futures_util::StreamExt::next(&mut sub)).await?.ok_or("no message")?;
        same!(&*message.payload, b"x");
    }
    Ok(())
}
