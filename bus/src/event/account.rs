//! Who may be whom on this host: the body of `auth.account_change`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

/// A file of the host's accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum AccountFile {
    /// `/etc/passwd`: users.
    #[n(0)]
    Passwd,
    /// `/etc/group`: groups and their members.
    #[n(1)]
    Group,
    /// `/etc/shadow`: passwords and their ages.
    #[n(2)]
    Shadow,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum AccountAction {
    /// It was not there before.
    #[n(0)]
    Added,
    /// It is there no more.
    #[n(1)]
    Removed,
    /// It says something else.
    #[n(2)]
    Changed,
}

/// A field of an entry that says something else now.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct AccountField {
    /// Its name: `uid`, `gid`, `gecos`, `home`, `shell`, `password`, `member`, or one of shadow(5)'s: `last_change`, `min_age`, `max_age`,
    /// `warn`, `inactive`, `expires`.
    #[n(0)]
    pub name: String,
    /// Before; `None` where there was none. Of a password never the hash but `none` (empty: anybody may log in), `locked` (nobody can) or
    /// `set`; `set` twice means another one. The `x` of passwd(5), which says that it stands in shadow(5), is none. Of
    /// other values the first 256 bytes, and `malformed` for what its field cannot hold: a hash that stands in the wrong place is not told.
    #[n(1)]
    pub old: Option<String>,
    /// After, likewise.
    #[n(2)]
    pub new: Option<String>,
}

/// Body of `auth.account_change`: an entry of the host's account files is another one than before, whatever program wrote it. The files are
/// read when they change, so the event comes up to a second after the write, and changes that follow each other faster come as one. The
/// subject is the process that last wrote the file, or put it in its place, as far as that was seen; there is none (`unseen_writer`) of what
/// changed while Bartizan did not run, which is told at its next start.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct AccountChange {
    /// Where.
    #[n(0)]
    pub file: AccountFile,
    /// What became of the entry.
    #[n(1)]
    pub action: AccountAction,
    /// The user's or the group's name.
    #[n(2)]
    pub name: String,
    /// Its uid or gid, where the file tells it: the one after the change, or the last one.
    #[n(3)]
    pub id: Option<u32>,
    /// What it says, or said: of an entry that was added or removed all fields, else those that changed.
    #[n(4)]
    pub fields: Vec<AccountField>,
    /// Fields, members of a group among them, beyond the first 256.
    #[n(5)]
    #[cbor(default)]
    pub more_fields: u32,
}
