//! Sealing and opening, all ciphers against themselves and against hostile bytes.

use crypto::Provider;
use crypto::cipher::{Cipher, CipherSpec};
use crypto::native::Native;
use ike::sk::{SkError, open, open_bytes, overhead, seal, seal_bytes};
use proptest::prelude::*;
use wire::message::{Flags, Header, IkeSpi, SkFrame, parse};
use wire::payload::Payload;
use wire::registry::{Encr, ExchangeType, Integ, PayloadType};

const SPECS: [CipherSpec; 5] = [
    CipherSpec { encr: Encr::AES_CBC, key_bits: 128, integ: Integ::HMAC_SHA2_256_128 },
    CipherSpec { encr: Encr::AES_CBC, key_bits: 256, integ: Integ::HMAC_SHA2_512_256 },
    CipherSpec { encr: Encr::AES_CTR, key_bits: 128, integ: Integ::HMAC_SHA1_96 },
    CipherSpec { encr: Encr::AES_GCM_16, key_bits: 128, integ: Integ::NONE },
    CipherSpec { encr: Encr::CHACHA20_POLY1305, key_bits: 0, integ: Integ::NONE },
];

fn cipher(spec: CipherSpec) -> Box<dyn Cipher> {
    let integ =
        if spec.integ == Integ::NONE { 0 } else { Native.integ_key_len(spec.integ).unwrap() };
    Native.cipher(spec, &vec![0x42; spec.encr_key_len()], &vec![0x43; integ]).unwrap()
}

fn header() -> Header {
    Header {
        spi_i: IkeSpi(1),
        spi_r: IkeSpi(2),
        next_payload: PayloadType::NONE,
        version: Header::VERSION,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags { initiator: true, version: false, response: false },
        message_id: 7,
        length: 0,
    }
}

#[test]
fn what_is_sealed_opens_for_every_cipher_and_length() {
    for spec in SPECS {
        let cipher = cipher(spec);
        for len in 0..40_usize {
            let payloads =
                if len == 0 { vec![] } else { vec![Payload::VendorId(vec![len as u8; len])] };
            let bytes = seal(&header(), &payloads, &*cipher, len as u64);
            let message = parse(&bytes).unwrap();
            assert_eq!(message.header.length as usize, bytes.len());
            assert_eq!(open(&message.sk.unwrap(), &*cipher), Ok(payloads), "{spec} {len}");
            let plain_len = if len == 0 { 0 } else { len + 4 };
            assert_eq!(bytes.len(), plain_len + overhead(plain_len, false, &*cipher));
        }
    }
}

#[test]
fn fragments_keep_their_numbers() {
    for spec in SPECS {
        let cipher = cipher(spec);
        let bytes =
            seal_bytes(&header(), PayloadType::NONE, Some((2, 3)), b"in the middle", &*cipher, 1);
        assert_eq!(bytes.len(), 13 + overhead(13, true, &*cipher));
        let frame = parse(&bytes).unwrap().sk.unwrap();
        assert_eq!(frame.fragment, Some((2, 3)));
        assert_eq!(open_bytes(&frame, &*cipher).unwrap(), b"in the middle");
        // The numbers are authenticated (RFC 7383 2.5).
        let mut moved = bytes.clone();
        moved[Header::LEN + 5] = 1;
        let frame = parse(&moved).unwrap().sk.unwrap();
        assert_eq!(open_bytes(&frame, &*cipher), Err(SkError::BadIcv));
    }
}

/// A peer that is authenticated but broken: its padding length points beyond the content.
#[test]
fn padding_longer_than_the_content() {
    let cipher = cipher(SPECS[3]);
    let aad = [0; 32];
    for (content, wanted) in [
        (vec![], Err(SkError::BadPadding)),
        (vec![1], Err(SkError::BadPadding)),
        (vec![9, 9, 255], Err(SkError::BadPadding)),
        (vec![9, 9, 2], Ok(vec![])),
        (vec![9, 9, 1], Ok(vec![9])),
    ] {
        let mut body = vec![0; 8 + content.len() + 16];
        body[8..8 + content.len()].copy_from_slice(&content);
        cipher.seal(5, &aad, None, &mut body);
        let frame = SkFrame { first: PayloadType::NONE, fragment: None, aad: &aad, body: &body };
        assert_eq!(open_bytes(&frame, &*cipher), wanted);
    }
}

#[test]
fn verified_garbage_is_a_parse_error() {
    let cipher = cipher(SPECS[0]);
    let bytes = seal_bytes(&header(), PayloadType::SA, None, &[1, 2, 3], &*cipher, 1);
    let frame = parse(&bytes).unwrap().sk.unwrap();
    assert!(matches!(open(&frame, &*cipher), Err(SkError::Parse(_))));
}

proptest! {
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200), which in 0..SPECS.len()) {
        let frame = SkFrame { first: PayloadType::SA, fragment: None, aad: &[0; 32], body: &body };
        prop_assert_eq!(open(&frame, &*cipher(SPECS[which])), Err(SkError::BadIcv));
    }
}
