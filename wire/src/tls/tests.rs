//! Hellos of real clients and servers, copied from the wire; the examples that JA3 and JA4 are published with; and what no honest peer sends.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::Parsed;
use crate::fuzzing::{self, beginning};
use crate::testing::unhex;

/// A hello, and what it was copied from.
macro_rules! captured {
    ($name:literal) => {
        unhex(include_str!(concat!("../../fixtures/", $name, ".hex")))
    };
}

fn clients() -> [(&'static str, Vec<u8>); 8] {
    [
        ("openssl s_client 3.0.19", captured!("client_openssl")),
        ("openssl s_client 3.0.19 -tls1_2", captured!("client_openssl_tls12")),
        ("openssl s_client 3.0.19 -max_send_frag 512: two records", captured!("client_openssl_two_records")),
        ("curl 7.88.1 with OpenSSL", captured!("client_curl")),
        ("git with curl and GnuTLS 3.7", captured!("client_git_gnutls")),
        ("Python 3.11", captured!("client_python")),
        ("Node.js", captured!("client_node")),
        ("Java", captured!("client_java")),
    ]
}

fn servers() -> [Vec<u8>; 3] {
    [captured!("server_openssl_tls13"), captured!("server_openssl_tls12"), captured!("server_openssl_retry")]
}

fn client(bytes: &[u8]) -> ClientHello {
    match client_hello(bytes) {
        Parsed::Complete(hello) => hello,
        other => panic!("{other:?}"),
    }
}

fn server(bytes: &[u8]) -> ServerHello {
    match server_hello(bytes) {
        Parsed::Complete(hello) => hello,
        other => panic!("{other:?}"),
    }
}

/// A handshake message in records of so many bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message
        .chunks(size)
        .flat_map(|part| [&[0x16, 3, 1][..], &u16::try_from(part.len()).expect("short").to_be_bytes(), part].concat())
        .collect()
}

/// What is in the first records, put together.
fn content(mut stream: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let [0x16, _, _, high, low, rest @ ..] = stream {
        let (content, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        all.extend(content);
        stream = rest;
    }
    all
}

/// Two bytes each, behind their length.
fn list(numbers: &[u16]) -> Vec<u8> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], &bytes].concat()
}

/// A ClientHello with these; `None`: without extensions, and without their length.
fn made(version: u16, suites: &[u16], extensions: Option<&[(u16, Vec<u8>)]>) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([9; 32]);
    body.push(0);
    body.extend(list(suites));
    body.extend([1, 0]);
    if let Some(extensions) = extensions {
        let mut all = Vec::new();
        for (number, content) in extensions {
            all.extend(number.to_be_bytes());
            all.extend(u16::try_from(content.len()).expect("short").to_be_bytes());
            all.extend(content);
        }
        body.extend(u16::try_from(all.len()).expect("short").to_be_bytes());
        body.extend(all);
    }
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    records(&[&[1][..], &length[1..], &body].concat(), 16_384)
}

/// The extensions of the browser that JA4 is described with, in its order, and with these signature algorithms.
fn browser(signatures: &[u16]) -> Vec<(u16, Vec<u8>)> {
    let numbers = [0x1b, 0, 0x33, 0x10, 0x4469, 0x17, 0x2d, 0x0d, 5, 0x23, 0x12, 0x2b, 0xff01, 0x0b, 0x0a, 0x15];
    let content = |number| match number {
        0 => b"\x00\x0e\x00\x00\x0bexample.com".to_vec(),
        0x10 => b"\x00\x0c\x02h2\x08http/1.1".to_vec(),
        0x0d => list(signatures),
        0x2b => vec![6, 0xba, 0xba, 3, 4, 3, 3],
        0x0a => list(&[0x2a2a, 29, 23, 24]),
        0x0b => vec![1, 0],
        0x33 => [&[0, 11][..], &[0x2a, 0x2a, 0, 1, 0], &[0, 29, 0, 2, 7, 7]].concat(),
        _ => Vec::new(),
    };
    // GREASE at both ends, as browsers have it.
    let mut extensions = vec![(0x3a3a, Vec::new())];
    extensions.extend(numbers.map(|number| (number, content(number))));
    extensions.push((0xdada, vec![0]));
    extensions
}

/// Its cipher suites, GREASE first.
const SUITES: [u16; 16] =
    [0x4a4a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035];
const SIGNATURES: [u16; 8] = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];

#[test]
fn what_a_client_offers_is_read() {
    let hello = client(&captured!("client_openssl"));
    assert_eq!((hello.record_version, hello.version, hello.session_id_len), (0x0301, 0x0303, 32));
    assert_eq!(hello.server_name.as_deref(), Some("bartizan.example"));
    assert_eq!(hello.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert_eq!(hello.supported_versions, [0x0304, 0x0303, 0x0302, 0x0301]);
    assert_eq!((hello.cipher_suites.len(), hello.cipher_suites[0]), (31, 0x1302));
    assert_eq!(hello.extensions, [0, 11, 10, 35, 16, 22, 23, 13, 43, 45, 51]);
    assert_eq!(hello.groups, [29, 23, 30, 25, 24, 256, 257, 258, 259, 260]);
    assert_eq!((hello.point_formats.as_slice(), hello.compression.as_slice()), (&[0, 1, 2][..], &[0][..]));
    assert_eq!((hello.signature_algorithms.len(), hello.signature_algorithms[0]), (20, 0x0403));
    assert_eq!((hello.key_shares.as_slice(), hello.ech, hello.truncated, hello.malformed), (&[29][..], None, false, None));
    let java = client(&captured!("client_java"));
    assert_eq!((java.server_name, java.alpn.len()), (None, 0));
}

#[test]
fn what_a_server_chose_is_read() {
    let [tls13, tls12, retry] = servers().map(|bytes| server(&bytes));
    assert_eq!((tls13.version, tls13.negotiated(), tls13.cipher_suite, tls13.group), (0x0303, 0x0304, Some(0x1302), Some(29)));
    assert_eq!((tls13.alpn.as_deref(), tls13.hello_retry_request, tls13.malformed), (None, false, None));
    assert_eq!((tls12.negotiated(), tls12.selected_version, tls12.cipher_suite), (0x0303, None, Some(0xc02c)));
    assert_eq!(
        (tls12.alpn.as_deref(), tls12.compression, tls12.extensions.as_slice()),
        (Some(&b"http/1.1"[..]), Some(0), &[65281, 11, 35, 16, 23][..])
    );
    assert_eq!((retry.hello_retry_request, retry.negotiated(), retry.group, retry.malformed), (true, 0x0304, Some(24), None));
    // Those that salesforce/ja3's ja3s.py gives for the same bytes.
    assert_eq!(tls13.ja3s().as_deref(), Some("15af977ce25de452b96affa2addb1036"));
    assert_eq!(tls12.ja3s_text().as_deref(), Some("771,49196,65281-11-35-16-23"));
    assert_eq!(tls12.ja3s().as_deref(), Some("e195432758194ce2d482396b82e0d48e"));
}

#[test]
fn clients_have_the_fingerprints_that_other_programs_find() {
    // JA3 by salesforce/ja3's ja3.py.
    let found = clients().map(|(_, bytes)| client(&bytes).ja3().expect("whole"));
    assert_eq!(
        found,
        [
            "5a1edc7f170af1014fc65c994878e63c",
            "22558766122974704364c9c75c5cce0a",
            "350ef4fc9e3ef1256a7ad9d8c20dd120",
            "0149f47eabf9a20d0893e2a44e5a6323",
            "8662467bc96db2d387755570446a7946",
            "93c7d42c0df602fb91589311534831f5",
            "1a28e69016765d92e3b381168d68922c",
            "795a08fe385896aee616d3b7236502da",
        ]
    );
    // One program, whatever the name that it asks for; the version, the name's absence and ALPN are in the first section.
    let [openssl, tls12, two_records, curl, git, python, _, java] = clients().map(|(_, bytes)| client(&bytes).ja4().expect("whole"));
    assert_eq!(openssl, "t13d3111h2_e8f1e7e78f70_1f22a2ca17c4");
    assert_eq!(two_records, openssl);
    assert_eq!(tls12, "t12d2808h1_d943125447b4_e7e480e5a997");
    assert_eq!(curl, "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6");
    assert_eq!(git, "t13d2912h2_723694b0fccc_288f874c93d6");
    assert_eq!(python, "t13d181100_85036bcba153_d41ae481755e");
    assert_eq!(java, "t13i371100_db35923f8641_7c76daad20ec");
}

#[test]
fn ja4_is_that_of_its_description() {
    let hello = client(&made(0x0303, &SUITES, Some(&browser(&SIGNATURES))));
    assert_eq!((hello.malformed, hello.server_name.as_deref()), (None, Some("example.com")));
    assert_eq!(hello.ja4().as_deref(), Some("t13d1516h2_8daaf6152771_e5627efa2ab1"));
    assert_eq!(
        hello.ja4_raw().as_deref(),
        Some(
            "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_\
             0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_0403,0804,0401,0503,0805,0501,0806,0601"
        )
    );
    // GREASE among the signature algorithms does not count either, and is there all the same.
    let greased = client(&made(0x0303, &SUITES, Some(&browser(&[&[0x1a1a], &SIGNATURES[..]].concat()))));
    assert_eq!((greased.ja4(), greased.signature_algorithms[0]), (hello.ja4(), 0x1a1a));
    assert_eq!((greased.cipher_suites[0], greased.extensions[0], greased.key_shares.as_slice()), (0x4a4a, 0x3a3a, &[0x2a2a, 29][..]));
    // "If there are no signature algorithms".
    let hello = client(&made(0x0303, &SUITES, Some(&browser(&[]))));
    assert_eq!(hello.ja4().as_deref(), Some("t13d1516h2_8daaf6152771_6d807ffa2a79"));
    // "If there are no ciphers", "no extensions".
    let hello = client(&made(0x0302, &[0x0a0a], None));
    assert_eq!(hello.ja4().as_deref(), Some("t11i000000_000000000000_000000000000"));
    // "If there's > 99".
    let hello = client(&made(0x0303, &[0x1301; 120], None));
    assert!(hello.ja4().is_some_and(|ja4| ja4.starts_with("t12i990000_")));
}

#[test]
fn ja4_shows_a_protocol_as_its_description_does() {
    let shown: [(&[u8], &str); 13] = [
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"", "00"),
        (b"x", "xx"),
        (b"\xab", "ab"),
        (b"\x20", "20"),
        (b"\xab\xcd", "ad"),
        (b"\x20\x61", "21"),
        (b"\x30\xab", "3b"),
        (b"\x61\x20", "60"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
        (b"\x0a\x0a", "0a"),
    ];
    for (protocol, expected) in shown {
        let length = u8::try_from(protocol.len()).expect("short");
        let content = [&[0, length + 1, length], protocol].concat();
        let hello = client(&made(0x0303, &[1], Some(&[(16, content)])));
        assert!(hello.ja4().is_some_and(|ja4| ja4.get(8..10) == Some(expected)), "{protocol:?}: {:?}", hello.ja4());
    }
}

#[test]
fn ja3_is_that_of_its_description() {
    let suites = [47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4];
    let extensions = [(0, b"\x00\x04\x00\x00\x01a".to_vec()), (10, list(&[23, 24, 25])), (11, vec![1, 0])];
    let hello = client(&made(769, &suites, Some(&extensions)));
    assert_eq!(hello.ja3_text().as_deref(), Some("769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0"));
    assert_eq!(hello.ja3().as_deref(), Some("ada70206e40642a3e4461f35503241d5"));
    let hello = client(&made(769, &[4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99], None));
    assert_eq!(hello.ja3_text().as_deref(), Some("769,4-5-10-9-100-98-3-6-19-18-99,,,"));
    assert_eq!(hello.ja3().as_deref(), Some("de350869b8c85de67a350c8d186f11e6"));
    // Without GREASE.
    let hello = client(&made(0x0303, &SUITES, Some(&browser(&SIGNATURES))));
    let expected = "771,4865-4866-4867-49195-49199-49196-49200-52393-52392-49171-49172-156-157-47-53,\
                    27-0-51-16-17513-23-45-13-5-35-18-43-65281-11-10-21,29-23-24,0";
    assert_eq!(hello.ja3_text().as_deref(), Some(expected));
}

#[test]
fn grease_is_sixteen_values() {
    let all: Vec<u16> = (0..=u16::MAX).filter(|value| is_grease(*value)).collect();
    assert_eq!((all.len(), all[0], all[15]), (16, 0x0a0a, 0xfafa));
    assert!(all.iter().zip(0..).all(|(value, index): (_, u16)| *value == 0x0a0a + 0x1010 * index));
}

#[test]
fn every_cut_gives_a_beginning_and_the_last_byte_completes() {
    for (name, bytes) in clients() {
        for at in 0..=bytes.len() {
            beginning::check(client_hello, &bytes, at);
        }
        assert!((0..bytes.len()).all(|at| matches!(client_hello(&bytes[..at]), Parsed::Incomplete(_))), "{name}");
        let more = [&bytes, &b"\x14\x03\x03\x00\x01\x01"[..]].concat();
        assert_eq!(client(&more), client(&bytes), "{name}");
    }
    for bytes in servers() {
        for at in 0..=bytes.len() {
            beginning::check(server_hello, &bytes, at);
        }
        assert!((0..bytes.len()).all(|at| matches!(server_hello(&bytes[..at]), Parsed::Incomplete(_))));
        assert!(matches!(server_hello(&bytes), Parsed::Complete(_)));
    }
}

#[test]
fn a_hello_that_is_cut_gives_what_came_and_no_fingerprint() {
    let bytes = captured!("client_openssl");
    // Behind the extension with the name, in the one with groups.
    let Parsed::Incomplete(Some(part)) = client_hello(&bytes[..190]) else { panic!("in part") };
    assert_eq!(part.server_name.as_deref(), Some("bartizan.example"));
    assert!(part.truncated && part.malformed.is_none());
    assert_eq!((part.ja3(), part.ja4(), part.ja4_raw()), (None, None, None));
    assert!(part.alpn.is_empty() && part.cipher_suites.len() == 31);
}

#[test]
fn what_stands_behind_a_hello_is_not_read() {
    // A certificate message that begins in the record in which the hello ends.
    let message = [content(&captured!("server_openssl_tls12")), vec![11, 0, 0, 3, 0, 0, 0]].concat();
    for size in [16_384, 60, 1] {
        let hello = server(&records(&message, size));
        assert_eq!((hello.malformed, hello.cipher_suite, hello.extensions.len()), (None, Some(0xc02c), 5));
    }
}

#[test]
fn encrypted_client_hello_is_told() {
    let with = |content: &[u8]| client(&made(0x0303, &[0x1301], Some(&[(0xfe0d, content.to_vec())])));
    assert_eq!(with(b"\x00\x00\x01\x00\x01rest").ech, Some(Ech::Outer));
    assert_eq!(with(b"\x01").ech, Some(Ech::Inner));
    let wrong = with(b"\x02");
    assert_eq!((wrong.ech, wrong.malformed), (None, Some("an extension's content is not what its number demands")));
}

#[test]
fn what_is_not_a_hello_is_told() {
    let not = |bytes: &[u8]| match client_hello(bytes) {
        Parsed::NotThis(why) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(not(b"GET / HTTP/1.1\r\n"), "not a handshake record");
    assert_eq!(not(b"\x15\x03\x03\x00\x02\x02\x28"), "an alert instead of a hello");
    assert_eq!(not(b"\x16\x02"), "a record of no version of TLS");
    assert_eq!(not(b"\x16\x03\x01\x00\x00"), "a handshake record of a length that none has");
    assert_eq!(not(b"\x16\x03\x01\x40\x01"), "a handshake record of a length that none has");
    assert_eq!(not(&captured!("server_openssl_tls13")), "a handshake that begins with another message");
    assert_eq!(not(b"\x16\x03\x01\x00\x04\x01\x02\x01\x46"), "a hello longer than any can be");
    let mut bytes = made(0x0303, &[1], None);
    // The session id's length.
    bytes[5 + 4 + 34] = 33;
    assert_eq!(not(&bytes), "a session id longer than 32 bytes");
    // Cipher suites beyond the message.
    let mut bytes = made(0x0303, &[1], None);
    bytes[5 + 4 + 35] = 1;
    assert_eq!(not(&bytes), "a hello that ends within its fields");
    assert_eq!(client_hello(b""), Parsed::Incomplete(None));
    // The hello of a client in the server's direction.
    assert!(matches!(server_hello(&captured!("client_openssl")), Parsed::NotThis(_)));
}

#[test]
fn wrong_extensions_are_noted_and_the_rest_is_read() {
    let note = |extensions: &[(u16, Vec<u8>)]| client(&made(0x0303, &[1], Some(extensions)));
    let twice = note(&[(0, b"\x00\x04\x00\x00\x01a".to_vec()), (0, b"\x00\x04\x00\x00\x01b".to_vec()), (11, vec![1, 0])]);
    assert_eq!((twice.server_name.as_deref(), twice.malformed), (Some("a"), Some("an extension that is there twice")));
    assert_eq!((twice.extensions.as_slice(), twice.point_formats.as_slice()), (&[0, 0, 11][..], &[0][..]));
    for wrong in [vec![0, 5, 0, 29], vec![0, 3, 0, 29, 0], vec![0, 2, 0, 29, 0, 30], vec![0]] {
        let noted = note(&[(10, wrong.clone()), (11, vec![1, 0])]);
        assert_eq!(noted.malformed, Some("an extension's content is not what its number demands"), "{wrong:?}");
        assert_eq!(noted.point_formats, [0]);
    }
    let mut longer = made(0x0303, &[1], Some(&[(11, vec![1, 0])]));
    let last = longer.len() - 3;
    longer[last] = 9;
    assert_eq!(client(&longer).malformed, Some("an extension longer than the hello"));
    // A name that would steer a terminal.
    let steering = note(&[(0, b"\x00\x06\x00\x00\x03\x1b[m".to_vec())]);
    assert_eq!(steering.server_name.as_deref(), Some(r"\x1b[m"));
}

proptest! {
    #[test]
    fn a_hello_is_the_same_in_records_of_any_size(which in 0..8_usize, size in 1..600_usize) {
        let (name, bytes) = &clients()[which];
        prop_assert_eq!(client(&records(&content(bytes), size)), client(&records(&content(bytes), 16_384)), "{}", name);
    }

    #[test]
    fn any_bytes_are_taken(bytes in vec(any::<u8>(), 0..600)) {
        fuzzing::tls(&bytes);
        let hello = [&[0, 9, 0x16, 3, 1][..], &bytes].concat();
        fuzzing::tls(&hello);
    }

    #[test]
    fn captured_hellos_with_other_bytes_in_them_are_taken(
        which in 0..11_usize, at in any::<prop::sample::Index>(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)
    ) {
        let all: Vec<_> = clients().into_iter().map(|(_, bytes)| bytes).chain(servers()).collect();
        let mut bytes = all[which].clone();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        fuzzing::tls(&fuzzing::with_cut(&bytes, at.index(bytes.len() + 1)));
    }
}
