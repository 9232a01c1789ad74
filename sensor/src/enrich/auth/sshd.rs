//! sshd's own words, as OpenSSH writes them (`auth_log` in auth.c, `getpwnamallow` in auth.c).
//!
//! The user name in them is the client's and may hold anything, ` from 192.0.2.1 port 22` too. So a line is read from its end, which
//! is sshd's own: what stands last counts.

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// `Accepted` or `Failed METHOD for [invalid user ]USER from HOST port N ssh2[: KEY]`.
    Attempt {
        /// It succeeded.
        accepted: bool,
        /// `publickey`, `password`, `keyboard-interactive/pam` ...
        method: String,
        /// Who and whence.
        client: Client,
        /// sshd says that there is no such user, or that it may not log in.
        invalid_user: bool,
    },
    /// `Invalid user USER from HOST port N`.
    InvalidUser(Client),
}

/// The client of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    /// As the client named it.
    pub(super) user: String,
    /// Address, or `UNKNOWN`.
    pub(super) host: String,
    /// Its port.
    pub(super) port: u16,
}

/// Reads a line; `None` for one that says nothing of these. `Partial` and `Postponed` are steps on the way and no verdict, and the method
/// `none` is a client's question for the methods.
pub(super) fn parse(text: &str) -> Option<Line> {
    if let Some(rest) = text.strip_prefix("Invalid user ") {
        return client(rest, "").map(Line::InvalidUser);
    }
    let (accepted, rest) = match (text.strip_prefix("Accepted "), text.strip_prefix("Failed ")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return None,
    };
    let (method, rest) = rest.split_once(" for ")?;
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '/' | '@' | '.');
    if method.is_empty() || method == "none" || !method.chars().all(known) {
        return None;
    }
    let (invalid_user, rest) = match rest.strip_prefix("invalid user ") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let client = client(rest, " ssh2")?;
    Some(Line::Attempt { accepted, method: method.to_owned(), client, invalid_user })
}

/// `USER from HOST port N<end>`, for attempts with `: KEY` behind it. From the last ` from ` on everything must fit.
fn client(text: &str, end: &str) -> Option<Client> {
    text.rmatch_indices(" from ").find_map(|(at, from)| {
        let (host, rest) = text[at + from.len()..].split_once(" port ")?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let port = rest[..digits].parse().ok()?;
        let tail = rest[digits..].strip_prefix(end)?;
        let fits = tail.is_empty() || (!end.is_empty() && tail.starts_with(": "));
        let host_fits = !host.is_empty() && !host.contains(' ');
        (fits && host_fits).then(|| Client { user: text[..at].to_owned(), host: host.to_owned(), port })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attempt(text: &str) -> (bool, String, String, String, u16, bool) {
        match parse(text) {
            Some(Line::Attempt { accepted, method, client: Client { user, host, port }, invalid_user }) => {
                (accepted, method, user, host, port, invalid_user)
            }
            other => panic!("{text:?} gives {other:?}"),
        }
    }

    #[test]
    fn openssh_s_lines_are_read() {
        let key = "Failed publickey for root from 192.0.2.7 port 50022 ssh2: ED25519 SHA256:abc";
        assert_eq!(attempt(key), (false, "publickey".into(), "root".into(), "192.0.2.7".into(), 50022, false));
        let pam = "Failed keyboard-interactive/pam for invalid user bob from 2001:db8::1 port 9 ssh2";
        assert_eq!(attempt(pam), (false, "keyboard-interactive/pam".into(), "bob".into(), "2001:db8::1".into(), 9, true));
        assert_eq!(attempt("Accepted password for a b from 192.0.2.7 port 1 ssh2").2, "a b");
        let Some(Line::InvalidUser(client)) = parse("Invalid user  from 192.0.2.7 port 4") else { panic!("an empty name is one") };
        assert_eq!((client.user.as_str(), client.port), ("", 4));
    }

    #[test]
    fn a_user_name_cannot_put_another_address_into_the_line() {
        let evil = "Failed password for invalid user x from 10.0.0.1 port 22 ssh2 from 192.0.2.7 port 4711 ssh2";
        assert_eq!(attempt(evil).3, "192.0.2.7");
        assert_eq!(attempt(evil).2, "x from 10.0.0.1 port 22 ssh2");
        let Some(Line::InvalidUser(client)) = parse("Invalid user x from 10.0.0.1 port 22 from 192.0.2.7 port 4711") else { panic!() };
        assert_eq!(client.host, "192.0.2.7");
        // With a key behind it, sshd's part begins later.
        let key = "Failed publickey for x from 10.0.0.1 port 22 ssh2: y from 192.0.2.7 port 4711 ssh2: RSA SHA256:abc";
        assert_eq!(attempt(key).3, "192.0.2.7");
    }

    #[test]
    fn what_is_no_verdict_says_nothing() {
        for text in [
            "",
            "Failed none for invalid user x from 192.0.2.7 port 4711 ssh2",
            "Postponed keyboard-interactive for root from 192.0.2.7 port 4711 ssh2",
            "Partial publickey for root from 192.0.2.7 port 4711 ssh2",
            "Connection closed by 192.0.2.7 port 4711 [preauth]",
            "Failed password for root from 192.0.2.7 port 99999 ssh2",
            "Failed password for root from 192.0.2.7 port 22",
            "Failed pass word for root from 192.0.2.7 port 22 ssh2",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not(text in "\\PC{0,80}", words in "(Failed|Accepted|Invalid user)( \\PC{0,30})?( for| from| port| ssh2| [0-9]{1,6}){0,8}") {
            let _ = parse(&text);
            let _ = parse(&words);
        }

        #[test]
        fn whatever_the_user_is_called_the_address_is_sshd_s(user in "\\PC{0,100}") {
            let line = format!("Failed password for invalid user {user} from 192.0.2.7 port 4711 ssh2");
            let (_, _, read, host, port, _) = attempt(&line);
            prop_assert_eq!((read, host.as_str(), port), (user, "192.0.2.7", 4711));
        }
    }
}
