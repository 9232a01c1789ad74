//! Replies of dnsmasq 2.90 to dig 9.18, copied from the wire; packets of python-zeroconf; and what no honest sender sends.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::fuzzing;
use crate::testing::unhex;

/// dig's query for WWW.example.test, with EDNS and a cookie.
const QUERY: &str = "21180120000100000000000103575757076578616d706c650474657374000001000100002904d000000000000c000a0008ed08845dc0392ad7";
const A: &str =
    "21188580000100010000000103575757076578616d706c6504746573740000010001c00c00010001000000000004c000020700002904d0000000000000";
const AAAA: &str = "1e498580000100010000000103777777076578616d706c65047465737400001c0001c00c001c000100000000001020010db800000000000000000000000700002904d0000080000000";
const CNAME: &str = "b63b8580000100020000000105616c696173076578616d706c6504746573740000010001c00c0005000100000000001304686f7374076578616d706c65047465737400c03000010001000000000004c000020900002904d0000000000000";
const MX: &str = "aea585800001000200000001076578616d706c65047465737400000f0001c00c000f00010000000000170014066261636b7570076578616d706c65047465737400c00c000f0001000000000015000a046d61696c076578616d706c6504746573740000002904d0000000000000";
const TXT: &str = "0b2f858000010001000000010374756e076578616d706c6504746573740000100001c00c0010000100000000001a0b763d73706631202d616c6c0d7365636f6e6420737472696e6700002904d0000000000000";
const SRV: &str = "0d6f85800001000100000003055f6c646170045f746370076578616d706c6504746573740000210001c00c0021000100000000001900050007018504686f7374076578616d706c65047465737400c03b00010001000000000004c0000209c03b001c000100000000001020010db800000000000000000000000900002904d0000000000000";
const PTR: &str = "f797858000010001000000010139013201300331393207696e2d61646472046172706100000c0001c00c000c000100000000001304686f7374076578616d706c6504746573740000002904d0000000000000";
const HTTPS: &str = "63248580000100010000000103737663076578616d706c6504746573740000410001c00c004100010000000000120001000001000302683200040004c000020700002904d0000000000000";
const NO_SUCH_NAME: &str = "14ec81830001000000000000046e6f7065076578616d706c6504746573740000010001";
/// Announcement of a service, by python-zeroconf.
const MDNS: &str = "000084000000000400000000045f737368045f746370056c6f63616c00000c000100001194000a0742c3bc726f2031c00cc0270021800100000078000e00000000001605627565726fc016c0270010800100001194000403613d62c04300018001000000780004c0000209";
/// Question for services, unicast answer wanted.
const MDNS_QUERY: &str = "000000000001000000000000045f737368045f746370056c6f63616c00000c8001";
const CAPTURED: [&str; 12] = [QUERY, A, AAAA, CNAME, MX, TXT, SRV, PTR, HTTPS, NO_SUCH_NAME, MDNS, MDNS_QUERY];

fn read(hex: &str) -> Message {
    message(&unhex(hex)).expect("DNS")
}

/// A header that announces so much, and what follows.
fn made(announced: [u16; 4], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0x81, 0x80];
    bytes.extend(announced.iter().flat_map(|count| count.to_be_bytes()));
    bytes.extend(rest);
    bytes
}

#[test]
fn a_query_is_read() {
    let query = read(QUERY);
    assert_eq!((query.id, query.response, query.opcode, query.recursion_desired), (0x2118, false, 0, true));
    assert_eq!(query.questions, [Question { name: "www.example.test".to_owned(), qtype: 1, qclass: 1, unicast: false }]);
    // A cookie.
    assert_eq!(query.edns, Some(Edns { udp_payload: 1232, version: 0, dnssec: false, options: vec![(10, 8)], left_out: 0 }));
    assert_eq!((query.truncated, query.malformed, query.trailing, query.left_out), (false, None, 0, 0));
}

#[test]
fn answers_are_read_by_type() {
    let name = |name: &str| name.to_owned();
    let first = |hex: &str| read(hex).answers[0].data.clone();
    assert_eq!(first(A), Data::A([192, 0, 2, 7].into()));
    assert_eq!(first(AAAA), Data::Aaaa("2001:db8::7".parse().expect("an address")));
    assert_eq!(first(CNAME), Data::Cname(name("host.example.test")));
    assert_eq!(first(MX), Data::Mx { preference: 20, exchange: name("backup.example.test") });
    assert_eq!(first(TXT), Data::Txt { strings: 2, len: 24, text: name("v=spf1 -allsecond string") });
    assert_eq!(first(SRV), Data::Srv { priority: 5, weight: 7, port: 389, target: name("host.example.test") });
    assert_eq!(first(PTR), Data::Ptr(name("host.example.test")));
    assert_eq!(first(HTTPS), Data::Svcb { priority: 1, target: name("."), hints: vec![[192, 0, 2, 7].into()], left_out: 0 });
    let cname = read(CNAME);
    assert_eq!(cname.answers[0].name, "alias.example.test");
    assert_eq!((cname.answers[1].name.as_str(), cname.answers[1].rtype, cname.answers[1].len), ("host.example.test", 1, 4));
    assert_eq!(read(SRV).additionals.len(), 2);
    assert_eq!(read(NO_SUCH_NAME).rcode, 3);
    assert!(read(AAAA).edns.expect("EDNS").dnssec);
}

#[test]
fn multicast_takes_the_top_bit_of_a_class_out() {
    let message = multicast(&unhex(MDNS)).expect("mDNS");
    assert_eq!(message.answers[0].data, Data::Ptr(r"b\195\188ro\0321._ssh._tcp.local".to_owned()));
    let flush: Vec<_> = message.answers.iter().map(|record| (record.class, record.cache_flush)).collect();
    assert_eq!(flush, [(1, false), (1, true), (1, true), (1, true)]);
    assert_eq!(message.answers[1].data, Data::Srv { priority: 0, weight: 0, port: 22, target: "buero.local".to_owned() });
    let query = multicast(&unhex(MDNS_QUERY)).expect("mDNS");
    assert!(query.questions[0].unicast && query.questions[0].qclass == 1);
    assert_eq!(read(MDNS_QUERY).questions[0].qclass, 0x8001);
}

#[test]
fn names_are_lower_case_and_escaped() {
    let text = |wire: &[u8]| from_wire(wire).expect("a name");
    assert_eq!(text(b"\0"), ".");
    assert_eq!(text(b"\x03WwW\x02Ex\0"), "www.ex");
    assert_eq!(text(b"\x05a.b\\c\x03 \x00\xff\0"), r"a\.b\\c.\032\000\255");
}

#[test]
fn pointers_only_go_back() {
    // Header of 12 bytes, so that the question's name begins at 12.
    let tail = [0, 1, 0, 1];
    let question = |name: &[u8]| message(&made([1, 0, 0, 0], &[name, &tail].concat()));
    assert_eq!(question(&[0xc0, 12]), Err("a compression pointer does not go back"));
    assert_eq!(question(&[1, b'a', 0xc0, 12]), Err("a compression pointer does not go back"));
    assert_eq!(question(&[0xc0, 14]), Err("a compression pointer does not go back"));
    assert_eq!(question(&[0x40, 0]), Err("a label of an unknown type"));
    // Two that point at each other: the second question's first label is read, and stops there.
    let two = message(&made([2, 0, 0, 0], b"\x01a\x00\x00\x01\x00\x01\xc0\x15\x00\x01\x00\x01")).expect("DNS");
    assert_eq!((two.questions.len(), two.malformed), (1, Some("a compression pointer does not go back")));
    // A chain of pointers, each to the one before, ends.
    let mut chain = b"\x01a\x00\x00\x01\x00\x01".to_vec();
    for back in 0..40_u8 {
        let target = if back == 0 { 12 } else { 19 + 6 * (back - 1) };
        chain.extend([0xc0, target, 0, 1, 0, 1]);
    }
    let chained = message(&made([33, 0, 0, 0], &chain)).expect("DNS");
    assert_eq!((chained.questions.len(), chained.left_out, chained.malformed), (32, 1, None));
    assert!(chained.questions.iter().all(|question| question.name == "a"));
}

#[test]
fn a_name_has_at_most_255_bytes() {
    let label = |length: u8| [vec![length], vec![b'x'; length.into()]].concat();
    let longest = [label(63), label(63), label(63), label(61), vec![0]].concat();
    assert_eq!(longest.len(), 255);
    assert_eq!(from_wire(&longest).map(|name| name.len()), Some(253));
    let longer = [label(63), label(63), label(63), label(62), vec![0], vec![0, 1, 0, 1]].concat();
    assert_eq!(message(&made([1, 0, 0, 0], &longer)), Err("a name is longer than 255 bytes"));
}

#[test]
fn a_message_that_was_cut_gives_what_was_read() {
    let bytes = unhex(TXT);
    // Within the text: the record is there, without it.
    let cut = message(&bytes[..bytes.len() - 20]).expect("DNS");
    assert!(cut.truncated);
    assert_eq!((cut.answers[0].len, &cut.answers[0].data), (26, &Data::Cut));
    // Within the record's numbers.
    let cut = message(&bytes[..38]).expect("DNS");
    assert!(cut.truncated && cut.answers.is_empty() && cut.questions.len() == 1);
    assert_eq!(message(&bytes[..11]), Err("shorter than the header of a DNS message"));
}

#[test]
fn every_cut_gives_a_beginning() {
    for captured in CAPTURED {
        let bytes = unhex(captured);
        for at in 0..=bytes.len() {
            fuzzing::dns(&fuzzing::with_cut(&bytes, at));
        }
        assert!((12..bytes.len()).all(|at| message(&bytes[..at]).is_ok_and(|cut| cut.truncated)), "{captured}");
        assert!(!read(captured).truncated);
    }
}

#[test]
fn tcp_gives_one_message_after_the_other() {
    let framed = |hex: &str| {
        let bytes = unhex(hex);
        [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], &bytes].concat()
    };
    let stream = [framed(CNAME), framed(TXT)].concat();
    let whole: Vec<_> = tcp(&stream).collect();
    assert_eq!(whole, [Parsed::Complete(read(CNAME)), Parsed::Complete(read(TXT))]);
    let cut: Vec<_> = tcp(&stream[..stream.len() - 1]).collect();
    assert_eq!(cut[0], Parsed::Complete(read(CNAME)));
    assert!(matches!(&cut[1], Parsed::Incomplete(Some(part)) if part.truncated && part.answers == read(TXT).answers));
    assert_eq!(tcp(&stream[..5]).collect::<Vec<_>>(), [Parsed::Incomplete(None)]);
    assert_eq!(tcp(&[]).count(), 0);
    assert_eq!(tcp(b"\x00\x05hello").collect::<Vec<_>>(), [Parsed::NotThis("a length that no DNS message has")]);
}

#[test]
fn what_is_not_dns_is_told() {
    assert_eq!(message(b"GET / HTTP/1.1\r\n\r\n"), Err("an operation that DNS does not have"));
    assert_eq!(message(&made([0; 4], b"x")), Err("bytes behind a header that announces nothing"));
    assert!(message(&made([0; 4], b"")).is_ok());
}

#[test]
fn data_that_do_not_fit_their_type_leave_the_rest() {
    // An A record with five bytes, then one with four; a TXT whose string is longer than the record.
    let rest = b"\x01a\x00\x00\x01\x00\x01\x00\x00\x00\x05\x00\x05\x01\x02\x03\x04\x05\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x01\x02\x03\x04\
        \xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x05\x00\x02\x09x\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x05\x00\x03\xc0\x0cx";
    let message = message(&made([0, 4, 0, 0], rest)).expect("DNS");
    let data: Vec<_> = message.answers.iter().map(|record| record.data.clone()).collect();
    assert_eq!(
        data,
        [
            Data::Malformed("an address that is not 4 bytes"),
            Data::A([1, 2, 3, 4].into()),
            Data::Malformed("the record's data end within a character string"),
            Data::Malformed("bytes follow the name in the record's data"),
        ]
    );
    assert_eq!((message.malformed, message.truncated, message.answers[0].ttl), (None, false, 5));
}

#[test]
fn limits_are_counted() {
    // 200 records of type 10 without data, then an OPT.
    let mut rest = Vec::new();
    for _ in 0..200 {
        rest.extend(b"\x00\x00\x0a\x00\x01\x00\x00\x00\x00\x00\x00");
    }
    rest.extend(b"\x00\x00\x29\x10\x00\x01\x00\x00\x00\x00\x44");
    for code in 0..17_u16 {
        rest.extend(code.to_be_bytes());
        rest.extend([0, 0]);
    }
    rest.extend(b"behind");
    let message = message(&made([0, 200, 0, 1], &rest)).expect("DNS");
    assert_eq!((message.answers.len(), message.left_out), (MAX_RECORDS, 200 - MAX_RECORDS));
    assert_eq!((message.answers[0].rtype, &message.answers[0].data), (10, &Data::Other));
    let edns = message.edns.expect("behind the limit");
    assert_eq!((edns.options.len(), edns.left_out, edns.udp_payload), (MAX_OPTIONS, 1, 4096));
    // The upper eight bits of the response code.
    assert_eq!((message.rcode, message.trailing), (0x10, 6));

    let long = [&[255][..], &[b'\n'; 255], &[255], &[b'b'; 255]].concat();
    let mut rest = b"\x00\x00\x10\x00\x01\x00\x00\x00\x00\x02\x00".to_vec();
    rest.extend(&long);
    let Data::Txt { strings, len, text } = &super::message(&made([0, 1, 0, 0], &rest)).expect("DNS").answers[0].data else { panic!("TXT") };
    assert_eq!((*strings, *len), (2, 510));
    assert_eq!(*text, r"\x0a".repeat(255) + "b");
}

proptest! {
    #[test]
    fn names_come_back_from_the_wire(labels in vec(vec(any::<u8>(), 1..=63), 0..6)) {
        let length = labels.iter().map(|label| label.len() + 1).sum::<usize>() + 1;
        prop_assume!(length <= 255);
        let mut wire = Vec::new();
        for label in &labels {
            wire.push(u8::try_from(label.len()).expect("short"));
            wire.extend(label);
        }
        wire.push(0);
        let text = from_wire(&wire).expect("a name");
        // A length byte is below the letters, so that all bytes may be made lower case.
        prop_assert_eq!(to_wire(&text), Some(wire.to_ascii_lowercase()));
    }

    #[test]
    fn any_bytes_are_taken(bytes in vec(any::<u8>(), 0..600)) {
        fuzzing::dns(&bytes);
    }

    #[test]
    fn captured_messages_with_other_bytes_in_them_are_taken(
        which in 0..CAPTURED.len(), at in any::<u16>(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)
    ) {
        let mut bytes = unhex(CAPTURED[which]);
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let at = usize::from(at) % (bytes.len() + 1);
        fuzzing::dns(&fuzzing::with_cut(&bytes, at));
    }
}
