//! Certificates and NATS logins made for one test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bartizan_forward::FilePath;
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair as TlsKey};

/// Writes a file that only its owner can read.
pub(crate) fn private(dir: &Path, name: &str, content: &str) -> FilePath {
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    FilePath::try_from(path.to_str().unwrap().to_owned()).unwrap()
}

/// A private certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, TlsKey>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = TlsKey::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for these names and its key, both PEM.
    pub(crate) fn sign(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = TlsKey::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// RFC 4648 §5 without padding, as JWTs have it.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        text.extend((0..=chunk.len()).map(|at| char::from(ALPHABET[(bits >> (18 - 6 * at)) as usize & 63])));
    }
    text
}

/// A NATS JWT: `claims` about `subject`, signed by `signer`.
fn jwt(signer: &KeyPair, subject: &str, name: &str, claims: serde_json::Value) -> String {
    let claims = serde_json::json!({ "jti": "test", "iat": 1_700_000_000, "iss": signer.public_key(), "name": name, "sub": subject, "nats": claims });
    let signed = format!("{}.{}", base64url(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#), base64url(claims.to_string().as_bytes()));
    let signature = base64url(&signer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

/// An operator with one account that has JetStream.
pub(crate) struct Operator {
    account: KeyPair,
    /// The server's configuration.
    pub(crate) config: String,
}

impl Operator {
    pub(crate) fn new() -> Self {
        let (operator, account, system) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        let limits = |storage: i64| {
            serde_json::json!({
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
                "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage
            })
        };
        let of_account = |key: &KeyPair, name: &str, storage| {
            jwt(&operator, &key.public_key(), name, serde_json::json!({ "type": "account", "version": 2, "limits": limits(storage) }))
        };
        let config = format!(
            "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n  {}: {}\n  {}: {}\n}}\n",
            jwt(&operator, &operator.public_key(), "op", serde_json::json!({ "type": "operator", "version": 2 })),
            system.public_key(),
            account.public_key(),
            of_account(&account, "edge", -1),
            system.public_key(),
            of_account(&system, "SYS", 0),
        );
        Self { account, config }
    }

    /// A credentials file's content for a new user, as `nsc generate creds` writes it.
    pub(crate) fn creds(&self) -> String {
        Self::creds_of(&self.account)
    }

    /// The same from an account that the server does not know.
    pub(crate) fn foreign_creds() -> String {
        Self::creds_of(&KeyPair::new_account())
    }

    fn creds_of(account: &KeyPair) -> String {
        let user = KeyPair::new_user();
        let claims = serde_json::json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {} });
        let jwt = jwt(account, &user.public_key(), "bartizan", claims);
        let seed = user.seed().unwrap();
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}
