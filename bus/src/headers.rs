//! NATS header blocks: `NATS/1.0`, lines of `name: value`, a blank line.

/// The first line of a block without status.
const FIRST_LINE: &[u8] = b"NATS/1.0\r\n";
/// What marks duplicates.
pub const MSG_ID: &str = "Nats-Msg-Id";

/// A block with nothing but a message id.
pub fn msg_id_block(id: &str) -> Vec<u8> {
    [FIRST_LINE, MSG_ID.as_bytes(), b": ", id.as_bytes(), b"\r\n\r\n"].concat()
}

/// The first value of a header in a block; names are compared exactly, as nats-server does.
pub fn get<'a>(block: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = block.split(|byte| *byte == b'\n').skip(1);
    let value = lines.find_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.strip_prefix(name.as_bytes())?.strip_prefix(b":")
    })?;
    std::str::from_utf8(value).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_value_by_its_exact_name() {
        let block = b"NATS/1.0\r\nNats-Msg-Idx: no\r\nNats-Msg-Id:  a b \r\nNats-Msg-Id: second\r\n\r\n";
        assert_eq!(get(block, MSG_ID), Some("a b"));
        assert_eq!(get(block, "nats-msg-id"), None);
        assert_eq!(get(b"", MSG_ID), None);
        assert_eq!(get(b"Nats-Msg-Id: 1", MSG_ID), None, "the first line is no header");
        assert_eq!(get(&msg_id_block("x/1"), MSG_ID), Some("x/1"));
    }
}
