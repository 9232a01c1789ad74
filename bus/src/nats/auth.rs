//! Who may connect, and what they may do.

use std::sync::Arc;

use serde::Deserialize;

use crate::pattern::Pattern;

/// What a user may publish to or subscribe to: what `allow` has (everything when it is empty), without what `deny` has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permission {
    /// Allowed patterns; none means everything.
    pub allow: Vec<Pattern>,
    /// Denied patterns; they win.
    pub deny: Vec<Pattern>,
}

impl Permission {
    /// Whether a concrete subject is allowed.
    pub(crate) fn allows(&self, subject: &str) -> bool {
        (self.allow.is_empty() || self.allow.iter().any(|pattern| pattern.matches(subject)))
            && !self.deny.iter().any(|pattern| pattern.matches(subject))
    }

    /// Whether a subscription to this pattern is allowed. What it shares with `deny` is not delivered.
    pub(crate) fn allows_pattern(&self, wanted: &Pattern) -> bool {
        (self.allow.is_empty() || self.allow.iter().any(|pattern| pattern.covers(wanted)))
            && !self.deny.iter().any(|pattern| pattern.covers(wanted))
    }

    fn is_everything(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

/// What proves who somebody is.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A token alone; plain, or a bcrypt hash (`$2a$…`).
    Token(String),
    /// A name and a password; plain, or a bcrypt hash (`$2a$…`).
    Password {
        /// User name.
        user: String,
        /// Password or its hash.
        password: String,
    },
    /// A public user nkey (`U…`).
    Nkey(String),
}

impl std::fmt::Debug for Credential {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token"),
            Self::Password { user, .. } => write!(f, "Password({user:?})"),
            Self::Nkey(key) => write!(f, "Nkey({key})"),
        }
    }
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// How it proves who it is.
    pub credential: Credential,
    /// What it may publish.
    pub publish: Permission,
    /// What it may subscribe to.
    pub subscribe: Permission,
    /// The name of a custom module, which is kept to itself besides: answers and deliveries go to its own inbox only, it cannot listen to
    /// the inboxes of others (their names are not to be guessed), and it sees no consumers but those that it made.
    pub module: Option<String>,
}

impl User {
    /// A user who may do everything.
    pub fn with(credential: Credential) -> Self {
        Self { credential, publish: Permission::default(), subscribe: Permission::default(), module: None }
    }

    /// How it is called in statistics.
    pub fn name(&self) -> &str {
        match &self.credential {
            Credential::Token(_) => "token",
            Credential::Password { user, .. } => user,
            Credential::Nkey(key) => key,
        }
    }
}

/// All users. Without any, everybody may connect and do everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users(pub Vec<User>);

/// What the client says in CONNECT. `null` is as good as nothing everywhere.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Connect {
    pub(crate) verbose: Option<bool>,
    pub(crate) pedantic: Option<bool>,
    pub(crate) echo: Option<bool>,
    pub(crate) auth_token: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) pass: Option<String>,
    pub(crate) nkey: Option<String>,
    pub(crate) sig: Option<String>,
    pub(crate) jwt: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) lang: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) protocol: Option<i64>,
    pub(crate) headers: Option<bool>,
    pub(crate) no_responders: Option<bool>,
    pub(crate) account: Option<String>,
    pub(crate) new_account: Option<bool>,
}

impl Users {
    /// Whether a credential is asked for.
    pub(crate) fn required(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether somebody signs a nonce.
    pub(crate) fn nonce_wanted(&self) -> bool {
        self.0.iter().any(|user| matches!(user.credential, Credential::Nkey(_)))
    }

    /// Whether telling takes a slow hash: then not on the reactor.
    pub(crate) fn is_slow(&self) -> bool {
        let hashed = |secret: &str| is_bcrypt(secret);
        self.0.iter().any(|user| match &user.credential {
            Credential::Token(token) => hashed(token),
            Credential::Password { password, .. } => hashed(password),
            Credential::Nkey(_) => false,
        })
    }

    /// Who this is; `None` for nobody known.
    pub(crate) fn authenticate(&self, connect: &Connect, nonce: &str) -> Option<User> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(key) = filled(&connect.nkey) {
            let user = self.0.iter().find(|user| matches!(&user.credential, Credential::Nkey(known) if *known == key))?;
            return signed(&key, connect.sig.as_deref()?, nonce).then(|| user.clone());
        }
        if let Some(name) = filled(&connect.user) {
            let given = connect.pass.clone().unwrap_or_default();
            let user = self.0.iter().find(|user| matches!(&user.credential, Credential::Password { user, .. } if *user == name))?;
            let Credential::Password { password, .. } = &user.credential else { return None };
            return same_secret(password, &given).then(|| user.clone());
        }
        let given = filled(&connect.auth_token)?;
        self.0.iter().find(|user| matches!(&user.credential, Credential::Token(token) if same_secret(token, &given))).cloned()
    }
}

fn is_bcrypt(secret: &str) -> bool {
    ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| secret.starts_with(prefix))
}

/// Compares without telling by its time how much was right.
fn same_secret(known: &str, given: &str) -> bool {
    if is_bcrypt(known) {
        return bcrypt::verify(given, known).unwrap_or(false);
    }
    let (known, given) = (known.as_bytes(), given.as_bytes());
    let differing = known.iter().zip(given).fold(0, |differing, (a, b)| differing | (a ^ b));
    known.len() == given.len() && differing == 0
}

fn signed(key: &str, signature: &str, nonce: &str) -> bool {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature.trim_end_matches('=')).or_else(|_| STANDARD.decode(signature)) else {
        return false;
    };
    nkeys::KeyPair::from_public_key(key).is_ok_and(|pair| pair.verify(nonce.as_bytes(), &signature).is_ok())
}

/// A connection's permissions; `None` where everything is allowed.
#[derive(Debug, Clone)]
pub(crate) struct Permissions {
    pub(crate) publish: Permission,
    pub(crate) subscribe: Permission,
}

impl Permissions {
    pub(crate) fn of(user: &User) -> Option<Arc<Self>> {
        let User { publish, subscribe, .. } = user;
        (!publish.is_everything() || !subscribe.is_everything())
            .then(|| Arc::new(Self { publish: publish.clone(), subscribe: subscribe.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(json: &str) -> Connect {
        serde_json::from_str(json).expect("json")
    }

    #[test]
    fn everybody_proves_who_they_are_in_their_own_way() {
        let pair = nkeys::KeyPair::new_user();
        let hash = bcrypt::hash("s3cr3t", 4).expect("hash");
        let users = Users(vec![
            User::with(Credential::Token("tok".to_owned())),
            User::with(Credential::Password { user: "plain".to_owned(), password: "pw".to_owned() }),
            User::with(Credential::Password { user: "hashed".to_owned(), password: hash }),
            User::with(Credential::Nkey(pair.public_key())),
        ]);
        let who = |json: &str| users.authenticate(&connect(json), "nonce").map(|user| user.name().to_owned());
        assert_eq!(who(r#"{"auth_token":"tok","user":null}"#).as_deref(), Some("token"));
        assert_eq!(who(r#"{"user":"plain","pass":"pw"}"#).as_deref(), Some("plain"));
        assert_eq!(who(r#"{"user":"hashed","pass":"s3cr3t"}"#).as_deref(), Some("hashed"));
        for wrong in [
            r#"{}"#,
            r#"{"auth_token":"to"}"#,
            r#"{"user":"plain","pass":"pW"}"#,
            r#"{"user":"hashed","pass":"x"}"#,
            r#"{"user":"nobody"}"#,
        ] {
            assert_eq!(who(wrong), None, "{wrong}");
        }
        use base64::Engine;
        let sign = |nonce: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(pair.sign(nonce.as_bytes()).expect("signed"));
        let say = |signature: String| format!(r#"{{"nkey":"{}","sig":"{signature}"}}"#, pair.public_key());
        assert_eq!(who(&say(sign("nonce"))), Some(pair.public_key()));
        assert_eq!(who(&say(sign("other"))), None);
    }

    #[test]
    fn deny_wins() {
        let p = |text: &str| text.parse::<Pattern>().expect("a pattern");
        let permission = Permission { allow: vec![p("a.>")], deny: vec![p("a.secret.>")] };
        assert!(permission.allows("a.b") && !permission.allows("a.secret.b") && !permission.allows("b"));
        assert!(
            permission.allows_pattern(&p("a.*")) && !permission.allows_pattern(&p(">")) && !permission.allows_pattern(&p("a.secret.x"))
        );
    }
}
