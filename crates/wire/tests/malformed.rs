//! Each rule about what must not stand in a message, broken once.

mod support;

use support::messages::{self, hex};
use wire::message::{self, Flags, Header, IkeSpi, ParseError};
use wire::payload::*;
use wire::proposal::{Proposal, Transform};
use wire::registry::*;

fn header(exchange: ExchangeType) -> Header {
    Header {
        spi_i: IkeSpi(1),
        spi_r: IkeSpi(2),
        next_payload: PayloadType::NONE,
        version: Header::VERSION,
        exchange,
        flags: Flags { initiator: true, ..Flags::default() },
        message_id: 7,
        length: 0,
    }
}

fn body(kind: PayloadType, text: &str) -> Result<Payload, ParseError> {
    Payload::parse(kind, false, &hex(text))
}

#[test]
fn header_rules() {
    let good = hex(messages::WIRESHARK_CCM_INIT_REQUEST);
    assert_eq!(message::parse(&good[..27]), Err(ParseError::Truncated("header")));

    let mut v1 = good.clone();
    v1[17] = 0x10;
    assert_eq!(message::parse(&v1), Err(ParseError::MajorVersion(1)));
    let mut minor = good.clone();
    minor[17] = 0x2f;
    assert!(message::parse(&minor).is_ok(), "a higher minor version is ignored");

    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(message::parse(&longer), Err(ParseError::BadLength("header")));
    let mut shorter = good.clone();
    shorter[24..28].copy_from_slice(&27_u32.to_be_bytes());
    assert_eq!(message::parse(&shorter), Err(ParseError::BadLength("header")));

    let mut reserved = good;
    reserved[19] |= 0xc7;
    let flags = message::parse(&reserved).unwrap().header.flags;
    assert_eq!(flags, Flags { initiator: true, version: false, response: false });
}

#[test]
fn generic_header_rules() {
    let parse = |text: &str| message::parse_payloads(PayloadType::VENDOR_ID, &hex(text));
    assert_eq!(parse("00000004").unwrap(), [Payload::VendorId(Vec::new())]);
    assert_eq!(parse("00000003"), Err(ParseError::BadLength("generic payload header")));
    assert_eq!(parse("0000000500"), Ok(vec![Payload::VendorId(vec![0])]));
    assert_eq!(parse("00000006 00"), Err(ParseError::Truncated("payload")));
    assert_eq!(parse("00000004 00"), Err(ParseError::BadLength("payload")));
    assert_eq!(
        parse("2b000004"),
        Err(ParseError::Truncated("payload")),
        "another one is announced"
    );
    assert_eq!(parse("000000"), Err(ParseError::Truncated("payload")));
}

#[test]
fn critical_bit() {
    let one = |kind: u8, flags: u8| {
        message::parse_payloads(PayloadType(kind), &[0, flags, 0, 5, 9]).map(|mut p| p.remove(0))
    };
    assert_eq!(one(200, 0x80), Err(ParseError::UnknownCritical(200)));
    assert_eq!(one(49, 0x80), Err(ParseError::UnknownCritical(49)), "GSPM is not decoded here");
    let unknown = UnknownPayload { kind: PayloadType(200), critical: false, data: vec![9] };
    assert_eq!(one(200, 0x7f), Ok(Payload::Unknown(unknown)), "reserved bits are ignored");
    assert_eq!(one(43, 0x80), Ok(Payload::VendorId(vec![9])), "ignored for a type that is known");
}

#[test]
fn too_many_payloads() {
    let payloads = vec![Payload::VendorId(Vec::new()); MAX_PAYLOADS + 1];
    let (first, bytes) = message::encode_payloads(&payloads[1..]);
    assert_eq!(message::parse_payloads(first, &bytes).unwrap().len(), MAX_PAYLOADS);
    let (first, bytes) = message::encode_payloads(&payloads);
    assert_eq!(message::parse_payloads(first, &bytes), Err(ParseError::TooMany("payloads")));
}

#[test]
fn encrypted_payload_rules() {
    let message = |exchange, fragment, tail: &[u8]| {
        let mut bytes =
            message::encode_sk_prefix(&header(exchange), PayloadType::NONE, fragment, 8);
        bytes.extend([0; 8]);
        bytes.extend(tail);
        let len = bytes.len() as u32;
        bytes[24..28].copy_from_slice(&len.to_be_bytes());
        message::parse(&bytes).map(|m| m.sk.unwrap().fragment)
    };
    let auth = ExchangeType::IKE_AUTH;
    assert_eq!(message(auth, None, &[]), Ok(None));
    assert_eq!(message(auth, None, &[0, 0, 0, 4]), Err(ParseError::MisplacedSk), "not the last");
    assert_eq!(message(ExchangeType::IKE_SA_INIT, None, &[]), Err(ParseError::MisplacedSk));
    assert_eq!(message(ExchangeType::IKE_SESSION_RESUME, None, &[]), Err(ParseError::MisplacedSk));

    assert_eq!(message(auth, Some((1, 1)), &[]), Ok(Some((1, 1))));
    assert_eq!(message(auth, Some((65535, 65535)), &[]), Ok(Some((65535, 65535))));
    for bad in [(0, 1), (0, 0), (2, 1)] {
        assert_eq!(message(auth, Some(bad), &[]), Err(ParseError::BadValue("fragment number")));
    }

    let inside = |kind| message::parse_payloads(kind, &[0, 0, 0, 12, 0, 1, 0, 1, 0, 0, 0, 0]);
    assert_eq!(inside(PayloadType::SK), Err(ParseError::MisplacedSk));
    assert_eq!(inside(PayloadType::SKF), Err(ParseError::MisplacedSk));
}

#[test]
fn fragment_without_numbers() {
    let bytes = hex("00000000000000010000000000000002 35202308 00000001 00000022 00000006 0001");
    assert_eq!(message::parse(&bytes), Err(ParseError::Truncated("encrypted payload")));
}

#[test]
fn proposal_rules() {
    let sa = |text| body(PayloadType::SA, text);
    let good = "00000014 01010001 0000000c 0100000c 800e0080";
    assert!(sa(good).is_ok());
    for (text, error) in [
        ("", ParseError::Truncated("SA")),
        ("01000014 01010001 0000000c 0100000c 800e0080", ParseError::BadValue("proposal")),
        ("00000003 01010001 0000000c 0100000c 800e0080", ParseError::BadLength("proposal")),
        ("00000015 01010001 0000000c 0100000c 800e0080", ParseError::Truncated("SA")),
        ("02000014 01010001 0000000c 0100000c 800e0080", ParseError::Truncated("SA")),
        ("00000014 01010001 0000000c 0100000c 800e0080 00", ParseError::BadLength("SA")),
        (
            "00000014 01010001 0300000c 0100000c 800e0080",
            ParseError::BadValue("number of transforms"),
        ),
        (
            "00000014 01010002 0000000c 0100000c 800e0080",
            ParseError::BadValue("number of transforms"),
        ),
        ("00000014 01010000 0000000c 0100000c 800e0080", ParseError::BadLength("proposal")),
        ("00000014 01010001 0200000c 0100000c 800e0080", ParseError::BadValue("transform")),
        ("00000014 01010001 00000003 0100000c 800e0080", ParseError::BadLength("transform")),
        ("00000014 01010001 00000007 0100000c 800e0080", ParseError::Truncated("transform")),
        ("00000014 01010001 0000000b 0100000c 800e0080", ParseError::Truncated("transform")),
        ("00000014 01010101 0000000c 0100000c 800e0080", ParseError::BadLength("SPI of proposal")),
        ("00000014 01030801 0000000c 0100000c 800e0080", ParseError::BadLength("SPI of proposal")),
        (
            "00000018 01010001 00000010 0100000c 800e0080 800e0100",
            ParseError::BadValue("key length"),
        ),
    ] {
        assert_eq!(sa(text), Err(error), "{text}");
    }
}

#[test]
fn unknown_attributes_are_flagged() {
    let read = |text| match body(PayloadType::SA, text).unwrap() {
        Payload::Sa(mut p) => p.remove(0).transforms.remove(0),
        other => panic!("{other:?}"),
    };
    let plain = Transform::encr(Encr::AES_CBC, Some(128));
    let flagged = |t: &Transform| Transform { unknown_attribute: true, ..t.clone() };
    // A short one, and a long one of three bytes; key length as a long one is not key length.
    assert_eq!(read("00000018 01010001 00000010 0100000c 800e0080 80110001"), flagged(&plain));
    assert_eq!(
        read("0000001b 01010001 00000013 0100000c 800e0080 00110003 aabbcc"),
        flagged(&plain)
    );
    let none = Transform { key_bits: None, ..plain };
    assert_eq!(read("00000016 01010001 0000000e 0100000c 000e0002 0080"), flagged(&none));
}

#[test]
fn too_many_proposals() {
    let proposal =
        Proposal { number: 1, protocol: ProtocolId::IKE, spi: vec![], transforms: vec![] };
    let payload = |n| Payload::Sa(vec![proposal.clone(); n]);
    let read = |p: Payload| {
        let (first, bytes) = message::encode_payloads(&[p]);
        message::parse_payloads(first, &bytes)
    };
    assert!(read(payload(MAX_PROPOSALS)).is_ok());
    assert_eq!(read(payload(MAX_PROPOSALS + 1)), Err(ParseError::TooMany("proposals")));
}

#[test]
fn nonce_length() {
    let nonce = |n: usize| Payload::parse(PayloadType::NONCE, false, &vec![0; n]);
    assert_eq!(nonce(15), Err(ParseError::BadLength("nonce")));
    assert_eq!(nonce(257), Err(ParseError::BadLength("nonce")));
    assert_eq!(nonce(16), Ok(Payload::Nonce(vec![0; 16])));
    assert_eq!(nonce(256), Ok(Payload::Nonce(vec![0; 256])));
}

#[test]
fn small_payload_rules() {
    use PayloadType as P;
    for (kind, text, error) in [
        (P::KE, "0013", ParseError::Truncated("KE")),
        (P::ID_I, "010000", ParseError::Truncated("ID")),
        (P::ID_R, "01000000 7f0000", ParseError::BadLength("address of ID")),
        (P::ID_R, "05000000 7f000001", ParseError::BadLength("address of ID")),
        (P::CERT, "", ParseError::Truncated("CERT")),
        (P::CERTREQ, "", ParseError::Truncated("CERTREQ")),
        (P::AUTH, "020000", ParseError::Truncated("AUTH")),
        (P::NOTIFY, "000440", ParseError::Truncated("Notify")),
        (P::NOTIFY, "0304400a 010203", ParseError::Truncated("Notify")),
        (P::DELETE, "030400", ParseError::Truncated("Delete")),
        (P::DELETE, "03040002 01020304", ParseError::BadLength("Delete")),
        (P::DELETE, "03040001 0102030405", ParseError::BadLength("Delete")),
        (P::DELETE, "03080001 0102030405060708", ParseError::BadLength("SPI of Delete")),
        (P::DELETE, "01080001 0102030405060708", ParseError::BadLength("SPI of Delete")),
        (P::DELETE, "01000000 00", ParseError::BadLength("Delete")),
        (P::DELETE, "04040000", ParseError::BadValue("protocol of Delete")),
        (P::TS_I, "010000", ParseError::Truncated("TS")),
        (P::TS_I, "01000000", ParseError::Truncated("TS")),
        (P::TS_I, "01000000 07000010 0000ffff 0a000001", ParseError::Truncated("TS")),
        (P::TS_I, "01000000 07000003", ParseError::BadLength("TS")),
        (P::TS_I, "01000000 0700000c 0000ffff 0a000001", ParseError::Truncated("selector")),
        (
            P::TS_I,
            "01000000 07000014 0000ffff 0a000001 0a000002 00000000",
            ParseError::BadLength("selector"),
        ),
        (
            P::TS_R,
            "01000000 07000010 0000ffff 0a000002 0a000001",
            ParseError::BadValue("addresses of selector"),
        ),
        (
            P::TS_R,
            "01000000 07060010 00510050 0a000001 0a000001",
            ParseError::BadValue("ports of selector"),
        ),
        (P::TS_R, "01000000 07000010 0000ffff 0a000001 0a000002 ff", ParseError::BadLength("TS")),
    ] {
        assert_eq!(body(kind, text), Err(error), "{kind} {text}");
    }
}

#[test]
fn delete_of_an_ike_sa_whatever_its_count() {
    let ike = Payload::Delete(Delete { protocol: ProtocolId::IKE, spis: vec![] });
    assert_eq!(body(PayloadType::DELETE, "01000000"), Ok(ike.clone()));
    assert_eq!(body(PayloadType::DELETE, "01000001"), Ok(ike));
}

#[test]
fn unknown_selectors_are_passed_over() {
    let secret = "0a00000a 0000aabbccdd";
    let v4 = "07000010 0000ffff 0a000000 0a0000ff";
    let Ok(Payload::TsI(both)) = body(PayloadType::TS_I, &format!("02000000 {secret} {v4}")) else {
        panic!()
    };
    assert_eq!(both.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/24"]);
    assert_eq!(
        body(PayloadType::TS_I, &format!("01000000 {secret}")),
        Ok(Payload::TsI(Vec::new()))
    );
}

#[test]
fn what_does_not_fit_is_cut_and_still_framed() {
    let (first, bytes) =
        message::encode_payloads(&[Payload::Cp(vec![1; 70_000]), Payload::VendorId(vec![2])]);
    let read = message::parse_payloads(first, &bytes).unwrap();
    assert_eq!(read, [Payload::Cp(vec![1; 65_531]), Payload::VendorId(vec![2])]);
    let delete = Payload::Delete(Delete { protocol: ProtocolId::ESP, spis: vec![5; 20_000] });
    let (first, bytes) = message::encode_payloads(&[delete]);
    let Payload::Delete(read) = &message::parse_payloads(first, &bytes).unwrap()[0] else {
        panic!()
    };
    assert_eq!(read.spis.len(), 16_381);
}

#[test]
fn notify_data() {
    use wire::notify::*;
    assert!(parse_signature_hash_algorithms(&[0, 1, 0]).is_err());
    assert_eq!(parse_signature_hash_algorithms(&[0; 200]).unwrap().len(), MAX_HASHES);
    assert_eq!(parse_invalid_ke_payload(&[0, 19]), Ok(Ke::ECP_256));
    assert!(parse_invalid_ke_payload(&[0, 19, 0]).is_err());
    assert!(parse_invalid_ke_payload(&[0]).is_err());
    assert!(parse_cookie(&[]).is_err());
    assert!(parse_cookie(&[0; 65]).is_err());
    assert_eq!(parse_cookie(&[1; 64]), Ok(&[1; 64][..]));
    let to = |gateway, nonce| Ok(Redirect { gateway, nonce });
    let v4 = Gateway::Address([192, 0, 2, 7].into());
    assert_eq!(parse_redirect(&[1, 4, 192, 0, 2, 7]), to(v4.clone(), &[]));
    assert_eq!(parse_redirect(&[1, 4, 192, 0, 2, 7, 9, 9]), to(v4, &[9, 9]));
    let v6 = redirected_from("2001:db8::1".parse().unwrap());
    assert_eq!(v6.data, hex("0210 20010db8000000000000000000000001"));
    let address = Gateway::Address("2001:db8::1".parse().unwrap());
    assert_eq!(parse_redirect(&v6.data), to(address, &[]));
    assert_eq!(parse_redirect(b"\x03\x04gw\x1b."), to(Gateway::Name("gw\\x1b.".into()), &[]));
    for bad in [
        &[][..],
        &[1],
        &[1, 4, 1, 2, 3],
        &[1, 5, 1, 2, 3, 4, 5],
        &[2, 4, 1, 2, 3, 4],
        &[3, 0],
        &[4, 1, 0],
    ] {
        assert!(parse_redirect(bad).is_err(), "{bad:?}");
    }
    let spi = wire::esp::Spi(0xdead_beef);
    let rekey = rekey_sa(ProtocolId::ESP, spi);
    assert_eq!(parse_child(&rekey), Ok((ProtocolId::ESP, spi)));
    assert!(parse_child(&Notify { spi: vec![0; 4], ..rekey.clone() }).is_err());
    assert!(parse_child(&Notify { spi: vec![1; 8], ..rekey.clone() }).is_err());
    assert!(parse_child(&Notify { protocol: ProtocolId::IKE, ..rekey }).is_err());
    let addr = "[2001:db8::1]:4500".parse().unwrap();
    let input = nat_detection_input(IkeSpi(0x0102_0304_0506_0708), IkeSpi(0), addr);
    assert_eq!(
        input,
        hex("0102030405060708 0000000000000000 20010db8000000000000000000000001 1194")
    );
}
