//! The credential that is made at first start, and the users that modules get.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::StreamName;
use crate::files;
use crate::nats::auth::{Credential, Permission, User};
use crate::pattern::Pattern;

/// In the data folder.
const FILE: &str = "nats-credentials.toml";
/// Letters of a password: 62^32 is more than 2^190.
const PASSWORD: usize = 32;

/// A name and a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Name of the user who is made at first start, and may do everything.
pub const GENERATED_USER: &str = "bartizan";

/// A credential that cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the NATS credential {path}: {reason}; delete the file to have a new one made", path = path.display())]
pub struct CredentialsError {
    action: &'static str,
    path: PathBuf,
    reason: String,
}

impl Credentials {
    /// Where they are kept.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(FILE)
    }

    /// Reads the credential of a data folder, or makes one: readable by its owner only.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn of(data_dir: &Path) -> Result<Self, CredentialsError> {
        let path = Self::path(data_dir);
        let fail = |action, reason: String| CredentialsError { action, path: path.clone(), reason };
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| fail("read", error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = Self { user: GENERATED_USER.to_owned(), password: password().map_err(|error| fail("make", error))? };
                let text = toml::to_string(&made).map_err(|error| fail("make", error.to_string()))?;
                files::replace(&path, text.as_bytes(), true).map_err(|error| fail("write", error.to_string()))?;
                Ok(made)
            }
            Err(error) => Err(fail("read", error.to_string())),
        }
    }

    /// The user who may do everything.
    pub fn to_user(&self) -> User {
        User::with(Credential::Password { user: self.user.clone(), password: self.password.clone() })
    }
}

fn password() -> Result<String, String> {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut letters = String::with_capacity(PASSWORD);
    let mut bytes = [0; 64];
    while letters.len() < PASSWORD {
        getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
        // Without those that would make some letters likelier than others.
        let fair = bytes.iter().filter(|byte| usize::from(**byte) < 256 / LETTERS.len() * LETTERS.len());
        letters.extend(fair.take(PASSWORD - letters.len()).map(|byte| LETTERS[usize::from(*byte) % LETTERS.len()] as char));
    }
    Ok(letters)
}

/// A custom module's user: it reads events, alerts and matches, makes consumers for them, and publishes alerts under its own name.
/// Nothing else: see [`User::module`] too. `None` where the name is no subject token.
pub fn module_user(name: &str, credential: Credential) -> Option<User> {
    let pattern = |text: &str| text.parse::<Pattern>().ok();
    let literal = pattern(name).filter(|name| name.is_literal() && !name.as_str().contains('.'))?;
    let mut publish = vec![
        format!("sec.alerts.*.{literal}"),
        "$JS.API.INFO".to_owned(),
        "$JS.API.STREAM.NAMES".to_owned(),
        "$JS.API.STREAM.LIST".to_owned(),
    ];
    for stream in [StreamName::Events, StreamName::Alerts, StreamName::Matches] {
        // Consumers of these streams alone. Written out: in `CONSUMER.*.*.EVENTS.>` another stream's consumer may be called EVENTS.
        for verb in ["CREATE", "INFO", "DELETE", "NAMES", "LIST", "PAUSE"] {
            publish.extend([format!("$JS.API.CONSUMER.{verb}.{stream}"), format!("$JS.API.CONSUMER.{verb}.{stream}.>")]);
        }
        publish.extend(["DURABLE.CREATE", "MSG.NEXT"].map(|verb| format!("$JS.API.CONSUMER.{verb}.{stream}.>")));
        publish.extend([format!("$JS.API.STREAM.INFO.{stream}"), format!("$JS.ACK.{stream}.>"), format!("$JS.FC.{stream}.>")]);
    }
    let subscribe = ["sec.events.>", "sec.alerts.>", "sec.matches.>", "_INBOX.>"];
    Some(User {
        credential,
        publish: Permission { allow: publish.iter().filter_map(|text| pattern(text)).collect(), deny: Vec::new() },
        subscribe: Permission { allow: subscribe.iter().filter_map(|text| pattern(text)).collect(), deny: Vec::new() },
        module: Some(name.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn made_once_and_private() {
        let dir = tempfile::tempdir().expect("folder");
        let made = Credentials::of(dir.path()).expect("made");
        assert_eq!((made.password.len(), &*made.user), (PASSWORD, "bartizan"));
        assert_eq!(Credentials::of(dir.path()).expect("read"), made);
        let mode = std::fs::metadata(Credentials::path(dir.path())).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{made:?}").contains(&made.password));
        std::fs::write(Credentials::path(dir.path()), "user = 1").expect("write");
        let error = Credentials::of(dir.path()).expect_err("damaged").to_string();
        assert!(error.contains("nats-credentials.toml") && error.contains("delete the file"), "{error}");
    }

    #[test]
    fn a_module_publishes_alerts_under_its_own_name_and_nothing_else() {
        let user = module_user("scanner", Credential::Token("t".to_owned())).expect("a name");
        assert!(user.publish.allows("sec.alerts.high.scanner") && user.subscribe.allows("sec.events.process.exec"));
        for forbidden in [
            "sec.alerts.high.other",
            "sec.events.process.exec",
            "$JS.API.STREAM.DELETE.ALERTS",
            "$JS.API.STREAM.CREATE.X",
            "$JS.API.STREAM.INFO.OTHER",
            "$JS.API.CONSUMER.CREATE.OTHER.EVENTS.x",
            "$JS.API.CONSUMER.MSG.NEXT.RESPONSES.c",
            "$JS.ACK.OTHER.c.1",
            "a",
        ] {
            assert!(!user.publish.allows(forbidden), "{forbidden}");
        }
        assert!(!user.subscribe.allows("$SYS.x") && !user.subscribe.allows("sec.responses.kill"));
        assert!(
            module_user("a.b", Credential::Token("t".to_owned())).is_none()
                && module_user("*", Credential::Token("t".to_owned())).is_none()
        );
    }
}
