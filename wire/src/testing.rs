//! What the tests share.

/// The bytes of hexadecimal digits, with line ends anywhere.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| u8::try_from(16 * pair[0] + pair[1]).expect("two digits")).collect()
}
