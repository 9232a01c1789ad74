//! Who gets in.

use std::sync::Arc;
use std::time::Duration;

use bartizan_bus::nats::auth::{Credential, User, Users};
use bartizan_bus::nats::{CloseReason, ServerConfig};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::server::{Kind, Server, config};
use crate::wire::Wire;
use crate::{Outcome, Test, same, tests};

pub(crate) fn tests() -> impl IntoIterator<Item = Test> {
    tests!(
        auth::a_token,
        auth::a_hashed_token,
        auth::users_and_passwords,
        auth::an_nkey,
        auth::a_nonce_is_for_one_connection,
        auth::first_comes_connect,
        auth::nobody_without_a_login_makes_the_server_wait_for_a_payload,
        auth::a_login_that_does_not_come,
        auth::half_a_login_that_does_not_end,
        auth::a_second_login_that_fails,
        auth::a_second_login_drops_what_the_first_asked_for,
        auth::jwt_is_refused,
        auth::async_nats_logs_in,
    )
}

pub(crate) const REFUSED: &str = "-ERR 'Authorization Violation'\r\n<EOF>";

pub(crate) fn password(user: &str, password: &str) -> User {
    User::with(Credential::Password { user: user.to_owned(), password: password.to_owned() })
}

fn users(users: Vec<User>) -> ServerConfig {
    ServerConfig { users: Users(users), ..config() }
}

/// Says CONNECT with these fields, and expects to be let in, or not.
async fn login(server: &Server, fields: &str, wanted: bool) -> Outcome {
    let mut wire = server.client(fields).await?;
    same!(wire.info["auth_required"], true);
    let expected = if wanted { "PONG\r\n" } else { REFUSED };
    wire.says("PING\r\n", expected).await.map_err(|error| format!("{fields}: {error}").into())
}

async fn logins(server: &Server, all: &[(&str, bool)]) -> Outcome {
    for (fields, wanted) in all {
        login(server, fields, *wanted).await?;
    }
    server.counted(CloseReason::AuthenticationFailed).await
}

pub(crate) async fn a_token(kind: Kind) -> Outcome {
    let server = Server::start(kind, users(vec![User::with(Credential::Token("s3cr3t".to_owned()))])).await?;
    let tokens = [
        (",\"auth_token\":\"s3cr3t\"", true),
        (",\"auth_token\":\"s3cr3\"", false),
        (",\"auth_token\":\"s3cr3tt\"", false),
        (",\"auth_token\":\"\"", false),
        (",\"auth_token\":null", false),
        ("", false),
        (",\"user\":\"s3cr3t\"", false),
        (",\"user\":\"x\",\"pass\":\"s3cr3t\"", false),
    ];
    logins(&server, &tokens).await
}

pub(crate) async fn a_hashed_token(kind: Kind) -> Outcome {
    let hash = bcrypt::hash_with_result("a token that is long enough", 4)?.format_for_version(bcrypt::Version::TwoA);
    let hashed = format!(",\"auth_token\":{hash:?}");
    let server = Server::start(kind, users(vec![User::with(Credential::Token(hash))])).await?;
    let tokens =
        [(",\"auth_token\":\"a token that is long enough\"", true), (",\"auth_token\":\"a token that is not\"", false), (&*hashed, false)];
    logins(&server, &tokens).await
}

pub(crate) async fn users_and_passwords(kind: Kind) -> Outcome {
    let hash = bcrypt::hash_with_result("hunter2", 4)?.format_for_version(bcrypt::Version::TwoA);
    let server = Server::start(kind, users(vec![password("derek", "pw"), password("eve", &hash)])).await?;
    let all = [
        (",\"user\":\"derek\",\"pass\":\"pw\"", true),
        (",\"user\":\"eve\",\"pass\":\"hunter2\"", true),
        (",\"user\":\"derek\",\"pass\":\"hunter2\"", false),
        (",\"user\":\"derek\",\"pass\":\"PW\"", false),
        (",\"user\":\"derek\",\"pass\":\"\"", false),
        (",\"user\":\"derek\"", false),
        (",\"user\":\"derek\",\"pass\":null", false),
        (",\"user\":\"Derek\",\"pass\":\"pw\"", false),
        (",\"user\":\"eve\",\"pass\":\"hunter\"", false),
        (",\"user\":\"nobody\",\"pass\":\"pw\"", false),
        (",\"user\":\"\",\"pass\":\"pw\"", false),
        (",\"auth_token\":\"pw\"", false),
        ("", false),
    ];
    logins(&server, &all).await
}

fn signature(pair: &nkeys::KeyPair, wire: &Wire) -> Result<Vec<u8>, crate::Failure> {
    let nonce = wire.info["nonce"].as_str().ok_or("no nonce")?;
    same_len(nonce)?;
    Ok(pair.sign(nonce.as_bytes())?)
}

fn same_len(nonce: &str) -> Outcome {
    same!(nonce.len(), 15);
    Ok(())
}

async fn with_nkey(server: &Server, sign: impl FnOnce(&Wire) -> Result<String, crate::Failure>, wanted: bool) -> Outcome {
    let mut wire = server.wire().await?;
    wire.expect("INFO\r\n").await?;
    let fields = sign(&wire)?;
    let expected = if wanted { "PONG\r\n" } else { REFUSED };
    wire.says(&format!("CONNECT {{\"verbose\":false{fields}}}\r\nPING\r\n"), expected)
        .await
        .map_err(|error| format!("{fields}: {error}").into())
}

pub(crate) async fn an_nkey(kind: Kind) -> Outcome {
    let (pair, other) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let key = pair.public_key();
    let server = Server::start(kind, users(vec![User::with(Credential::Nkey(key.clone()))])).await?;
    let say = |key: &str, sig: String| format!(",\"nkey\":\"{key}\",\"sig\":\"{sig}\"");
    with_nkey(&server, |wire| Ok(say(&key, URL_SAFE_NO_PAD.encode(signature(&pair, wire)?))), true).await?;
    with_nkey(&server, |wire| Ok(say(&key, STANDARD.encode(signature(&pair, wire)?))), true).await?;
    with_nkey(&server, |wire| Ok(say(&key, URL_SAFE_NO_PAD.encode(signature(&other, wire)?))), false).await?;
    with_nkey(&server, |wire| Ok(say(&other.public_key(), URL_SAFE_NO_PAD.encode(signature(&other, wire)?))), false).await?;
    with_nkey(&server, |_| Ok(say(&key, URL_SAFE_NO_PAD.encode(pair.sign(b"something else")?))), false).await?;
    with_nkey(&server, |_| Ok(say(&key, URL_SAFE_NO_PAD.encode(pair.sign(b"")?))), false).await?;
    with_nkey(&server, |_| Ok(say(&key, String::new())), false).await?;
    with_nkey(&server, |_| Ok(say(&key, "!".to_owned())), false).await?;
    with_nkey(&server, |_| Ok(format!(",\"nkey\":\"{key}\"")), false).await?;
    with_nkey(&server, |_| Ok(format!(",\"user\":\"{key}\",\"pass\":\"\"")), false).await?;
    with_nkey(&server, |_| Ok(String::new()), false).await
}

pub(crate) async fn a_nonce_is_for_one_connection(kind: Kind) -> Outcome {
    let pair = nkeys::KeyPair::new_user();
    let server = Server::start(kind, users(vec![User::with(Credential::Nkey(pair.public_key()))])).await?;
    let (mut first, mut second) = (server.wire().await?, server.wire().await?);
    first.expect("INFO\r\n").await?;
    second.expect("INFO\r\n").await?;
    if first.info["nonce"] == second.info["nonce"] {
        return Err("two connections have one nonce".into());
    }
    let sig = URL_SAFE_NO_PAD.encode(signature(&pair, &first)?);
    let connect = format!("CONNECT {{\"verbose\":false,\"nkey\":\"{}\",\"sig\":\"{sig}\"}}\r\nPING\r\n", pair.public_key());
    second.says(&connect, REFUSED).await?;
    first.says(&connect, "PONG\r\n").await
}

pub(crate) async fn first_comes_connect(kind: Kind) -> Outcome {
    let server = Server::start(kind, users(vec![password("u", "p")])).await?;
    for said in [
        "PING\r\n",
        "PUB foo 2\r\nhi\r\n",
        "SUB > 1\r\n",
        "HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n",
        "FOO\r\n",
        "\r\n",
        "+OK\r\n",
        "INFO {}\r\n",
    ] {
        let mut wire = server.wire().await?;
        wire.expect("INFO\r\n").await?;
        wire.says(said, REFUSED).await.map_err(|error| format!("{said:?}: {error}"))?;
    }
    Ok(())
}

/// One byte of something else than CONNECT is enough: no payload of somebody unknown is kept in memory.
pub(crate) async fn nobody_without_a_login_makes_the_server_wait_for_a_payload(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { auth_timeout: Duration::from_secs(50), ..users(vec![password("u", "p")]) }).await?;
    for said in ["P", "PUB foo 1000000\r\nxxx", "SUB "] {
        let mut wire = server.wire().await?;
        wire.expect("INFO\r\n").await?;
        wire.says(said, REFUSED).await.map_err(|error| format!("{said:?}: {error}"))?;
    }
    Ok(())
}

const LATE: &str = "-ERR 'Authentication Timeout'\r\n<EOF>";

pub(crate) async fn a_login_that_does_not_come(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { auth_timeout: Duration::from_millis(300), ..users(vec![password("u", "p")]) }).await?;
    let mut wire = server.wire().await?;
    wire.expect(&format!("INFO\r\n{LATE}")).await?;
    server.counted(CloseReason::AuthenticationTimeout).await
}

pub(crate) async fn half_a_login_that_does_not_end(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { auth_timeout: Duration::from_millis(300), ..users(vec![password("u", "p")]) }).await?;
    let mut wire = server.wire().await?;
    wire.expect("INFO\r\n").await?;
    wire.says("CONNECT {\"verbose\":", LATE).await
}

pub(crate) async fn a_second_login_that_fails(kind: Kind) -> Outcome {
    let server = Server::start(kind, users(vec![password("u", "p")])).await?;
    let mut wire = server.client(",\"user\":\"u\",\"pass\":\"p\"").await?;
    wire.says("PING\r\n", "PONG\r\n").await?;
    wire.says("CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"x\"}\r\nPING\r\n", REFUSED).await
}

pub(crate) async fn a_second_login_drops_what_the_first_asked_for(kind: Kind) -> Outcome {
    let server = Server::start(kind, users(vec![password("u", "p"), password("v", "p")])).await?;
    let mut wire = server.client(",\"user\":\"u\",\"pass\":\"p\"").await?;
    wire.says("SUB foo 1\r\nPUB foo 1\r\na\r\n", "MSG foo 1 1\r\na\r\n").await?;
    wire.says("CONNECT {\"verbose\":false,\"user\":\"v\",\"pass\":\"p\"}\r\nPUB foo 1\r\nb\r\nPING\r\n", "PONG\r\n").await
}

pub(crate) async fn jwt_is_refused(kind: Kind) -> Outcome {
    let server = Server::start(kind, users(vec![password("u", "p")])).await?;
    login(&server, ",\"jwt\":\"eyJ0eXAiOiJKV1QifQ.e30.x\",\"sig\":\"x\"", false).await
}

pub(crate) async fn async_nats_logs_in(kind: Kind) -> Outcome {
    let pair = nkeys::KeyPair::new_user();
    let all = vec![password("u", "p"), User::with(Credential::Nkey(pair.public_key()))];
    let server = Server::start(kind, users(all)).await?;
    let address = server.address.to_string();
    let options = async_nats::ConnectOptions::with_user_and_password("u".into(), "p".into());
    let client = options.connect(&address).await?;
    client.publish("a", "x".into()).await?;
    client.flush().await?;
    let seed = Arc::new(pair.seed()?);
    async_nats::ConnectOptions::with_nkey(seed.to_string()).connect(&address).await?.flush().await?;
    let error =
        async_nats::ConnectOptions::with_user_and_password("u".into(), "x".into()).connect(&address).await.err().ok_or("it was let in")?;
    same!(error.kind(), async_nats::ConnectErrorKind::AuthorizationViolation);
    Ok(())
}
