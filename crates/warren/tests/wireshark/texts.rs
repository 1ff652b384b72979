//! The lines themselves.

use std::net::IpAddr;

use crypto::Secret;
use crypto::cipher::CipherSpec;
use ike::endpoint::ExportedKeys;
use ipsec::Spi;
use ipsec::sa::{Direction, Limits, Mode, Reqid, Sa};
use wire::message::IkeSpi;
use wire::registry::{Encr, Integ};

use super::lines::{BadLine, esp_line, ike_line, parse_ike_line, tables};

fn key(first: u8, len: u8) -> Secret {
    Secret::new((first..first + len).collect())
}

fn spec(encr: Encr, key_bits: u16, integ: Integ) -> CipherSpec {
    CipherSpec { encr, key_bits, integ }
}

fn ike(cipher: CipherSpec, encr: u8, integ: u8) -> ExportedKeys {
    ExportedKeys {
        spi_i: IkeSpi(0x0011_2233_4455_6677),
        spi_r: IkeSpi(0x8899_aabb_ccdd_eeff),
        cipher,
        sk_ei: key(0x10, encr),
        sk_er: key(0x20, encr),
        sk_ai: key(0x30, integ),
        sk_ar: key(0x50, integ),
    }
}

fn esp(cipher: CipherSpec, [src, dst]: [&str; 2], integ: u8, esn: bool) -> Sa {
    Sa {
        spi: Spi(0x0c0a_0001),
        src: src.parse::<IpAddr>().unwrap(),
        dst: dst.parse::<IpAddr>().unwrap(),
        direction: Direction::Out,
        mode: Mode::Transport,
        reqid: Reqid(1),
        cipher,
        encr_key: key(0x10, u8::try_from(cipher.encr_key_len()).unwrap()),
        integ_key: key(0x30, integ),
        esn,
        replay_window: 64,
        encap: None,
        ipcomp: None,
        limits: Limits::default().into(),
        local_ts: [].into(),
        remote_ts: [].into(),
    }
}

const V4: [&str; 2] = ["10.0.0.1", "10.0.0.2"];

#[test]
fn an_ike_sa_with_cbc() {
    let line = ike_line(&ike(spec(Encr::AES_CBC, 128, Integ::HMAC_SHA1_96), 16, 20)).unwrap();
    assert_eq!(
        line,
        "0011223344556677,8899aabbccddeeff,101112131415161718191a1b1c1d1e1f,\
         202122232425262728292a2b2c2d2e2f,\"AES-CBC-128 [RFC3602]\",\
         303132333435363738393a3b3c3d3e3f40414243,505152535455565758595a5b5c5d5e5f60616263,\
         \"HMAC_SHA1_96 [RFC2404]\""
    );
}

#[test]
fn an_ike_sa_with_an_aead_has_its_salt_and_no_integrity_key() {
    let line = ike_line(&ike(spec(Encr::AES_GCM_16, 128, Integ::NONE), 20, 0)).unwrap();
    assert_eq!(
        line,
        "0011223344556677,8899aabbccddeeff,101112131415161718191a1b1c1d1e1f20212223,\
         202122232425262728292a2b2c2d2e2f30313233,\"AES-GCM-128 with 16 octet ICV [RFC5282]\",,,\
         \"NONE [RFC4306]\""
    );
}

#[test]
fn esp_of_both_families() {
    let gcm = spec(Encr::AES_GCM_12, 128, Integ::NONE);
    assert_eq!(
        esp_line(&esp(gcm, V4, 0, false)).unwrap(),
        "\"IPv4\",\"10.0.0.1\",\"10.0.0.2\",\"0x0c0a0001\",\"AES-GCM with 12 octet ICV [RFC4106]\",\
         \"0x101112131415161718191a1b1c1d1e1f20212223\",\"NULL\",\"\""
    );
    let null = spec(Encr::NULL, 0, Integ::HMAC_SHA1_96);
    assert_eq!(
        esp_line(&esp(null, ["2001:db8::1", "2001:db8::2"], 20, false)).unwrap(),
        "\"IPv6\",\"2001:db8::1\",\"2001:db8::2\",\"0x0c0a0001\",\"NULL\",\"\",\
         \"HMAC-SHA-1-96 [RFC2404]\",\"0x303132333435363738393a3b3c3d3e3f40414243\""
    );
}

#[test]
fn an_icv_that_wireshark_cannot_compute_is_not_checked() {
    for (integ, esn, wanted) in [
        (Integ::HMAC_SHA2_256_128, false, "HMAC-SHA-256-128 [RFC4868]"),
        (Integ::HMAC_SHA2_256_128, true, "ANY 128 bit authentication [no checking]"),
        (Integ::HMAC_SHA2_384_192, true, "ANY 192 bit authentication [no checking]"),
        (Integ::HMAC_SHA2_512_256, true, "ANY 256 bit authentication [no checking]"),
        (Integ::AES_CMAC_96, false, "ANY 96 bit authentication [no checking]"),
    ] {
        let line = esp_line(&esp(spec(Encr::AES_CTR, 256, integ), V4, 32, esn)).unwrap();
        assert!(line.contains("\"AES-CTR [RFC3686]\",\"0x1011"), "{line}");
        assert!(line.contains(&format!(",\"{wanted}\",\"0x3031")), "{line}");
    }
}

#[test]
fn what_wireshark_lacks_is_left_out_and_counted() {
    let chacha = spec(Encr::CHACHA20_POLY1305, 256, Integ::NONE);
    let cmac = spec(Encr::AES_CBC, 128, Integ::AES_CMAC_96);
    let gcm = spec(Encr::AES_GCM_8, 192, Integ::NONE);
    let ikes = [ike(chacha, 36, 0), ike(cmac, 16, 16), ike(gcm, 28, 0)];
    let esps = [esp(chacha, V4, 0, false), esp(gcm, V4, 0, true)];
    let tables = tables(&ikes, &esps);
    assert_eq!((tables.ike.len(), tables.esp.len(), tables.left_out), (1, 1, 3));
    assert!(tables.ike[0].contains("\"AES-GCM-192 with 8 octet ICV [RFC5282]\""));
}

#[test]
fn lines_are_read_as_they_were_written() {
    let macs = [
        (Integ::HMAC_SHA1_96, 20),
        (Integ::HMAC_SHA2_256_128, 32),
        (Integ::HMAC_SHA2_384_192, 48),
        (Integ::HMAC_SHA2_512_256, 64),
    ];
    for (key_bits, encr_len) in [(128, 16), (192, 24), (256, 32)] {
        let aead = ike(spec(Encr::AES_GCM_16, key_bits, Integ::NONE), encr_len + 4, 0);
        let others =
            macs.map(|(integ, len)| ike(spec(Encr::AES_CBC, key_bits, integ), encr_len, len));
        for keys in others.into_iter().chain([aead]) {
            let line = ike_line(&keys).unwrap();
            let read = parse_ike_line(&line).unwrap();
            assert_eq!(read.cipher, keys.cipher);
            assert_eq!(ike_line(&read).unwrap(), line);
        }
    }
}

#[test]
fn lines_that_are_none_are_refused_by_name() {
    let line = ike_line(&ike(spec(Encr::AES_CBC, 128, Integ::HMAC_SHA1_96), 16, 20)).unwrap();
    let spoiled = |from: &str, to: &str| parse_ike_line(&line.replacen(from, to, 1)).err();
    assert_eq!(spoiled(",", ""), Some(BadLine::Fields));
    assert_eq!(spoiled("0011", "x011"), Some(BadLine::Spi));
    assert_eq!(spoiled("0011", "011"), Some(BadLine::Spi));
    assert_eq!(spoiled("AES-CBC-128", "AES-CBC-256"), Some(BadLine::Key));
    assert_eq!(spoiled("AES-CBC", "ROT13"), Some(BadLine::Algorithm));
    assert_eq!(spoiled("10111213", "1011121"), Some(BadLine::Key));
    assert_eq!(spoiled("10111213", "é0111213"), Some(BadLine::Key));
    assert_eq!(parse_ike_line("").err(), Some(BadLine::Fields));
}
