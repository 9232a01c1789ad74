//! Fingerprints of hellos: JA3 and JA3S, and JA4 of clients.
//!
//! JA3 and JA3S are those of <https://github.com/salesforce/ja3>, decimal numbers under MD5. JA4 is that of
//! <https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md>, which FoxIO gives under the BSD 3-Clause License. JA4S, JA4H, JA4X and the
//! others of "JA4+" are under the FoxIO License 1.1, which is none for software that others sell: they are left out on purpose.
//!
//! Of a protocol that is no ASCII, FoxIO's own programs still write `99` where their description wants hexadecimal digits (June 2026): this follows
//! the description.

use std::fmt::Write;

use md5::Md5;
use sha2::{Digest, Sha256};

use super::{ClientHello, ServerHello, extension, is_grease};

/// What JA4 writes instead of the hash of an empty list.
const EMPTY: &str = "000000000000";
/// The highest number that its two digits can show.
const MOST: usize = 99;

impl ClientHello {
    /// The text that JA3 is the MD5 of: legacy version, cipher suites, extensions, groups, point formats. `None`: the hello was cut.
    pub fn ja3_text(&self) -> Option<String> {
        if self.truncated {
            return None;
        }
        let formats = self.point_formats.iter().map(|format| u16::from(*format));
        Some(format!(
            "{},{},{},{},{}",
            self.version,
            dashed(self.cipher_suites.iter().copied()),
            dashed(self.extensions.iter().copied()),
            dashed(self.groups.iter().copied()),
            dashed(formats),
        ))
    }

    /// JA3: 32 hexadecimal digits. `None`: the hello was cut.
    pub fn ja3(&self) -> Option<String> {
        Some(hex(&Md5::digest(self.ja3_text()?)))
    }

    /// JA4, such as `t13d1516h2_8daaf6152771_e5627efa2ab1`. `None`: the hello was cut.
    pub fn ja4(&self) -> Option<String> {
        let (a, b, c) = self.ja4_parts()?;
        Some(format!("{a}_{}_{}", hash12(&b), hash12(&c)))
    }

    /// JA4 with the lists themselves instead of their hashes ("`JA4_r`"). `None`: the hello was cut.
    pub fn ja4_raw(&self) -> Option<String> {
        let (a, b, c) = self.ja4_parts()?;
        Some(format!("{a}_{b}_{c}"))
    }

    /// The first section, the cipher suites, and the extensions with the signature algorithms.
    fn ja4_parts(&self) -> Option<(String, String, String)> {
        if self.truncated {
            return None;
        }
        let mut suites = real(&self.cipher_suites);
        let mut extensions = real(&self.extensions);
        let (suite_count, extension_count) = (suites.len().min(MOST), extensions.len().min(MOST));
        let version = ja4_version(real(&self.supported_versions).into_iter().max().unwrap_or(self.version));
        let sni = if extensions.contains(&extension::SERVER_NAME) { 'd' } else { 'i' };
        let [first, last] = ja4_alpn(self.alpn.first().map_or(&[], Vec::as_slice));
        suites.sort_unstable();
        extensions.retain(|number| !matches!(*number, extension::SERVER_NAME | extension::ALPN));
        extensions.sort_unstable();
        let mut c = hex_list(&extensions);
        let signatures = real(&self.signature_algorithms);
        if !signatures.is_empty() {
            c.push('_');
            c.push_str(&hex_list(&signatures));
        }
        Some((format!("t{version}{sni}{suite_count:02}{extension_count:02}{first}{last}"), hex_list(&suites), c))
    }
}

impl ServerHello {
    /// The text that JA3S is the MD5 of: legacy version, cipher suite, extensions. `None`: the hello was cut.
    pub fn ja3s_text(&self) -> Option<String> {
        if self.truncated {
            return None;
        }
        let numbers: Vec<String> = self.extensions.iter().map(u16::to_string).collect();
        Some(format!("{},{},{}", self.version, self.cipher_suite?, numbers.join("-")))
    }

    /// JA3S: 32 hexadecimal digits. `None`: the hello was cut.
    pub fn ja3s(&self) -> Option<String> {
        Some(hex(&Md5::digest(self.ja3s_text()?)))
    }
}

/// Without GREASE, in their order.
fn real(numbers: &[u16]) -> Vec<u16> {
    numbers.iter().copied().filter(|number| !is_grease(*number)).collect()
}

/// Decimal, without GREASE, with a dash between two.
fn dashed(numbers: impl Iterator<Item = u16>) -> String {
    let mut text = String::new();
    for number in numbers.filter(|number| !is_grease(*number)) {
        let dash = if text.is_empty() { "" } else { "-" };
        // A String takes all that is written to it.
        let _ = write!(text, "{dash}{number}");
    }
    text
}

/// Four hexadecimal digits each, with a comma between two.
fn hex_list(numbers: &[u16]) -> String {
    let mut text = String::with_capacity(5 * numbers.len());
    for number in numbers {
        if !text.is_empty() {
            text.push(',');
        }
        push_hex(&mut text, &number.to_be_bytes());
    }
    text
}

/// Two characters for a version.
fn ja4_version(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        0xfeff => "d1",
        0xfefd => "d2",
        0xfefc => "d3",
        _ => "00",
    }
}

/// First and last character of the first protocol; of one that does not begin and end with a letter or digit, of its hexadecimal form.
fn ja4_alpn(protocol: &[u8]) -> [char; 2] {
    let (Some(&first), Some(&last)) = (protocol.first(), protocol.last()) else { return ['0', '0'] };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(first), char::from(last)];
    }
    [digit(first >> 4), digit(last & 0xf)]
}

/// The first twelve digits of the SHA-256, or what JA4 writes for nothing.
fn hash12(list: &str) -> String {
    match list.is_empty() {
        true => EMPTY.to_owned(),
        false => hex(Sha256::digest(list).get(..6).unwrap_or_default()),
    }
}

/// Two digits a byte.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    push_hex(&mut text, bytes);
    text
}

/// Appends two digits a byte.
fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.extend([digit(byte >> 4), digit(byte & 0xf)]);
    }
}

/// The hexadecimal digit of half a byte.
fn digit(half: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(half & 0xf)])
}
