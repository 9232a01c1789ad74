//! What an executable's contents are: the body of `process.hash`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

/// Why the contents of an executable are not hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum NotHashed {
    /// It is larger than `sensor.hash_max`.
    #[n(0)]
    TooLarge,
}

/// Body of `process.hash`: the subject runs a file that was not hashed before. `process.exe` names the file, with the hash. Told once for each
/// of the first processes that ran it; later execs of the same file have the hash in them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct ExeHash {
    /// SHA-256 of the contents, hex.
    #[n(0)]
    pub sha256: Option<String>,
    /// Bytes of the file.
    #[n(1)]
    pub size: u64,
    /// Why there is no hash.
    #[n(2)]
    pub not_hashed: Option<NotHashed>,
}
