//! What is written reads back, and nothing that is read makes the parser panic.

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use support::strategies as any;
use wire::message::{self, Header, Message};
use wire::payload::Payload;
use wire::registry::{ExchangeType, PayloadType};

/// Everything that is done with a message whose sender is not known; errors are as good as success.
fn chew(bytes: &[u8]) {
    let _ = Header::parse(bytes);
    let _ = wire::datagram::classify(bytes);
    if let Ok(message) = message::parse(bytes) {
        assert!(message.payloads.len() <= wire::payload::MAX_PAYLOADS);
        let _ = message.to_string();
        let _ = wire::pretty::detail(&message.header, &message.payloads);
        if message.sk.is_none() {
            stable(&message);
        }
    }
    for kind in 0..=255 {
        if let Ok(payload) = Payload::parse(PayloadType(kind), false, bytes) {
            let _ = format!("{payload:?}");
        }
    }
}

/// Writing what was read gives what reads the same, and from then on the same bytes.
fn stable(message: &Message<'_>) {
    let once = message::encode_plain(&message.header, &message.payloads);
    let again = message::parse(&once).expect("what was written reads");
    for (a, b) in again.payloads.iter().zip(&message.payloads) {
        if !has_unknown_attribute(b) {
            assert_eq!(a, b);
        }
    }
    assert_eq!(message::encode_plain(&again.header, &again.payloads), once);
}

fn has_unknown_attribute(payload: &Payload) -> bool {
    match payload {
        Payload::Sa(proposals) => {
            proposals.iter().any(|p| p.transforms.iter().any(|t| t.unknown_attribute))
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn header(h in any::header()) {
        let mut bytes = Vec::new();
        h.write(&mut bytes);
        prop_assert_eq!(bytes.len(), Header::LEN);
        prop_assert_eq!(Header::parse(&bytes), Ok(h));
    }

    #[test]
    fn one_payload(p in any::payload()) {
        let (first, bytes) = message::encode_payloads(std::slice::from_ref(&p));
        prop_assert_eq!(first, p.kind());
        prop_assert_eq!(message::parse_payloads(first, &bytes), Ok(vec![p.clone()]));
        let mut body = Vec::new();
        p.write_body(&mut body);
        prop_assert_eq!(&bytes[4..], &body[..]);
    }

    #[test]
    fn plain_message(h in any::header(), payloads in vec(any::payload(), 0..10)) {
        let bytes = message::encode_plain(&h, &payloads);
        let read = message::parse(&bytes).unwrap();
        prop_assert_eq!(read.header.length as usize, bytes.len());
        prop_assert_eq!(
            Header { next_payload: h.next_payload, length: h.length, ..read.header },
            h
        );
        prop_assert_eq!(read.payloads, payloads);
        prop_assert_eq!(read.sk, None);
    }

    #[test]
    fn encrypted_message(
        h in any::header(),
        inside in any::<u8>(),
        fragment in proptest::option::of((1..=9_u16, 9..=20_u16)),
        body in any::bytes(400),
    ) {
        let h = Header { exchange: ExchangeType::IKE_AUTH, ..h };
        let prefix = message::encode_sk_prefix(&h, PayloadType(inside), fragment, body.len());
        let mut bytes = prefix.clone();
        bytes.extend(&body);
        let read = message::parse(&bytes).unwrap();
        let sk = read.sk.unwrap();
        prop_assert_eq!(sk.aad, &prefix[..]);
        prop_assert_eq!(sk.body, &body[..]);
        prop_assert_eq!(sk.fragment, fragment);
        prop_assert_eq!(sk.first, PayloadType(inside));
        prop_assert!(read.payloads.is_empty());
    }

    #[test]
    fn arbitrary_bytes(bytes in any::bytes(300)) {
        chew(&bytes);
    }

    #[test]
    fn arbitrary_bytes_after_a_good_header(h in any::header(), first in 33..55_u8, bytes in any::bytes(300)) {
        let mut all = Vec::new();
        let length = (Header::LEN + bytes.len()) as u32;
        Header { next_payload: PayloadType(first), length, ..h }.write(&mut all);
        all.extend(bytes);
        chew(&all);
    }

    #[test]
    fn mutated_messages(
        h in any::header(),
        payloads in vec(any::payload(), 1..6),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = message::encode_plain(&h, &payloads);
        for (at, value) in flips {
            // Not the header's length field: it would hide the rest.
            let at = at.index(bytes.len());
            if !(24..28).contains(&at) {
                bytes[at] = value;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
            let len = bytes.len() as u32;
            if let Some(field) = bytes.get_mut(24..28) {
                field.copy_from_slice(&len.to_be_bytes());
            }
        }
        chew(&bytes);
    }
}

#[test]
fn every_prefix_of_published_messages() {
    for (_, hex) in support::messages::ALL {
        let bytes = support::messages::hex(hex);
        for n in 0..bytes.len() {
            assert!(message::parse(&bytes[..n]).is_err(), "{n} bytes of it read");
            let mut cut = bytes[..n].to_vec();
            if let Some(field) = cut.get_mut(24..28) {
                field.copy_from_slice(&(n as u32).to_be_bytes());
            }
            chew(&cut);
        }
    }
}
