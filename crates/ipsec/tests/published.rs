//! ESP packets that others made: draft-mcgrew-gcm-test-01, RFC 7634 appendix A, and Scapy 2.8.0.
//!
//! `scapy.txt` holds, by line: suite, mode, IP version outside and inside, `esn` for sequence number
//! 2^32 + 1 or `seq` for 1, and the packet from SPI to ICV. Keys, addresses and content are those of
//! the two hosts in `common`.
#![allow(missing_docs)]

mod common;

use std::net::SocketAddr;

use common::*;
use crypto::Provider;
use crypto::cipher::Cipher;
use crypto::native::Native;
use ipsec::Spi;
use ipsec::esp::{self, OpenError, SealAs};
use ipsec::packet::{self, proto};
use ipsec::pipeline::{Emit, OuterInfo};
use ipsec::sa::{Direction, Mode};
use wire::registry::{Encr, Integ};

/// Key, salt, high half of the sequence number, plaintext with padding and trailer, packet.
type GcmCase = (&'static str, &'static str, Option<u32>, &'static str, &'static str);

/// From draft-mcgrew-gcm-test-01, section 4.
const GCM_CASES: [GcmCase; 9] = [
    (
        "4c80cdefbb5d10da906ac73c3613a634",
        "2e443b68",
        Some(0x8765_4321),
        "45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f736970045f756470037369700963796265726369747902646b000021000101020201",
        "00004321000000004956ed7e3b244cfefecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732459018148f6cbe722fd04796562dfdb4",
    ),
    (
        "feffe9928665731c6d6a8f9467308308",
        "cafebabe",
        None,
        "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d0010000010000000000000373697009637962657263697479 02646b00000100010001",
        "0000a5f80000000afacedbaddecaf888deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd183b70d3aa8bc6ee4c309e9d85a41ad4a",
    ),
    (
        "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        "11223344",
        None,
        "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b40101040201020201",
        "4a2cbfe3000000020102030405060708ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99def842d8eb335f4eecfdbf831824b4c4915956c96",
    ),
    (
        "3de09874b388e6491988d0c3607eae1f",
        "57690e43",
        Some(0x1010_1010),
        "4500003c99c300008001cb7c40679318010101010800085c02004300616263646566676869 6a6b6c6d6e6f707172737475767761626364656667686901020201",
        "42f67e3f101010104e280000a2fca1a3fba2caa4853cf9f0f22cb10d86dd83b0fec75691cf1a04b00d1138ec9c35791765acbd8701ad79845bf9fe3fba487bc91755e6662b4c8d0d1f5e22739530320ae0d731cc978ecafaeae88f00e80d6e48",
    ),
    (
        "feffe9928665731c6d6a8f9467308308feffe9928665731c",
        "cafebabe",
        None,
        "45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d075680001",
        "0000a5f80000000afacedbaddecaf888a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0315b27452144cc7795457b9652037f5318027b5b4cd7a636",
    ),
    (
        "abbccddef00112233445566778899aab",
        "decaf888",
        Some(0),
        "4500004933ba00007f119106c3fb1d10c2b1d326c02831ce0035dd7b800302d500004e20001e8c18d75b81dc91baa0476b91b924b280389d92c963bac046ec959b6266c04722b14923010101",
        "0000010000000001cafedebaceface7418a6fd42f72cbf4ab2a2ea901f73d814e3e7f243d95412e1c349c1d2fbec168f9190feebaf2cb01984e65863965d7472b79da345e0e780191f0d2f0e0f496c226f2127b27db35724e7845d68651f57e65f354f75ff17015769623436",
    ),
    (
        "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        "73616c74",
        Some(0x156f_3126),
        "45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f646d540001",
        "17405e67dd0db99b616e640169766563f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a3018d9a57ff4d3a31ce673119e451626c2415771e3b7eebca614c89b35",
    ),
    // No payload at all, and the last sequence number.
    (
        "7d773d00c144c525ac619d18c84a3f47",
        "d9664267",
        None,
        "01020201",
        "335467aeffffffff43457e9182443bc6437f866bcb3f699fe9b0822bac961c4504bef270",
    ),
    (
        "6c6567616c697a656d6172696a75616e61616e64646f69746265666f72656961",
        "7475726e",
        Some(u32::MAX),
        "45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c6d6e6f707172737401020201",
        "796b6963ffffffff333021696765746df97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39b49c3a864cd3d78ca4ae68a32b42458fb57dbe821dcc63b9d0937ba2945f669368661a329fb4c053",
    ),
];

/// RFC 7634 appendix A.
const CHACHA_PLAIN: &str = "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637";
const CHACHA_PACKET: &str = "01020304000000051011121314151617240394 28b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e076aaa8266b7fb0f7b11b369907e1ad43";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn gcm(key: &str, salt: &str) -> Box<dyn Cipher> {
    let key = [hex(key), hex(salt)].concat();
    let bits = (key.len() as u16 - 4) * 8;
    Native.cipher(spec(Encr::AES_GCM_16, bits, Integ::NONE), &key, &[]).unwrap()
}

#[test]
fn aes_gcm_packets_of_the_draft_open() {
    for (key, salt, esn_hi, plain, packet) in GCM_CASES {
        let (cipher, plain) = (gcm(key, salt), hex(plain));
        let mut esp = hex(packet);
        let opened = esp::open(&*cipher, esn_hi, &mut esp).unwrap();
        let [content @ .., padding, next_header] = plain.as_slice() else { panic!() };
        let content = &content[..content.len() - usize::from(*padding)];
        assert_eq!(esp[opened.start..opened.start + opened.len], *content);
        assert_eq!(opened.next_header, *next_header);
        let other = Some(esn_hi.map_or(0, |high| high ^ 1));
        assert_eq!(esp::open(&*cipher, other, &mut hex(packet)), Err(OpenError::BadIcv));
    }
}

#[test]
fn the_packet_of_rfc_7634_is_delivered() {
    let key: Vec<u8> = (0x80..=0x9f).chain(0xa0..=0xa3).collect();
    let addresses = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    let suite = spec(Encr::CHACHA20_POLY1305, 0, Integ::NONE);
    let setup = Setup { suite, ..Setup::new(Mode::Tunnel) };
    let (from, to) = (addresses("198.51.100.5"), addresses("192.0.2.5"));
    let mut sa = setup.sa(Direction::In, 1, 2, 0x0102_0304);
    sa.encr_key = crypto::Secret::new(key);
    (sa.src, sa.dst) = ("203.0.113.153".parse().unwrap(), "203.0.113.5".parse().unwrap());
    sa.local_ts = [wire::selector::TrafficSelector::host(to)].into();
    sa.remote_ts = [wire::selector::TrafficSelector::host(from)].into();
    let outer =
        OuterInfo { src: SocketAddr::new(sa.src, 0), dst: sa.dst, tos: 0, ttl: 64, udp: false };
    let pipeline = setup.host(2);
    let mut policies = setup.policies(2, 1);
    for change in &mut policies {
        let ipsec::change::Change::PutPolicy(policy) = change else { panic!() };
        (policy.selector.local, policy.selector.remote) = (to.into(), from.into());
    }
    policies.push(add(sa));
    apply(&pipeline, policies);
    let out = receive_as(&pipeline, NOW, outer, &hex(CHACHA_PACKET));
    assert_eq!(out, [Emit::Deliver(hex(CHACHA_PLAIN))], "{:?}", counted(&pipeline));
}

#[test]
fn packets_of_scapy_open_and_are_what_we_seal() {
    let mut sealed_alike = 0;
    for line in include_str!("scapy.txt").lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let [suite, mode, outer, inner, numbers, packet] = fields[..] else { panic!("{line}") };
        let mode = if mode == "tunnel" { Mode::Tunnel } else { Mode::Transport };
        let (outer_v6, inner_v6, esn) = (outer == "6", inner == "6", numbers == "esn");
        let suite = scapy_suite(suite);
        let setup = Setup { suite, outer_v6, inner_v6, esn, ..Setup::new(mode) };
        let sa = setup.sa(Direction::Out, 1, 2, 0x1002);
        let cipher = Native.cipher(suite, sa.encr_key.expose(), sa.integ_key.expose()).unwrap();
        let mut whole = setup.udp(1, 2, b"checked against another implementation");
        if mode == Mode::Tunnel && !inner_v6 {
            // Theirs has no DF.
            whole[6] = 0;
            packet::fill_ipv4_checksum(&mut whole[..packet::IPV4_HEADER]);
        }
        let headers = packet::parse(&whole).unwrap();
        let (content, next_header) = match mode {
            Mode::Transport => (&whole[headers.esp_at..], proto::UDP),
            Mode::Tunnel => (&whole[..], if inner_v6 { proto::IPV6 } else { proto::IPV4 }),
        };
        let (mut esp, esn_hi) = (hex(packet), esn.then_some(1));
        let opened = esp::open(&*cipher, esn_hi, &mut esp).expect(line);
        assert_eq!(esp[opened.start..opened.start + opened.len], *content, "{line}");
        assert_eq!(opened.next_header, next_header);
        if !esn {
            let out = receive_as(&setup.host(2), NOW, outer_info(&setup), &hex(packet));
            assert_eq!(out, [Emit::Deliver(whole.clone())], "{line}");
        }
        // Where the IV is the sequence number, our packet is theirs to the last byte.
        if suite.encr != Encr::AES_CBC {
            let seq = if esn { (1 << 32) + 1 } else { 1 };
            let mut ours = content.to_vec();
            esp::seal(&*cipher, SealAs { spi: Spi(0x1002), seq, esn, next_header }, 0, &mut ours);
            assert_eq!(ours, hex(packet), "{line}");
            sealed_alike += 1;
        }
    }
    assert_eq!(sealed_alike, 48);
}

fn outer_info(setup: &Setup) -> OuterInfo {
    let src = SocketAddr::new(setup.outer(1), 0);
    OuterInfo { src, dst: setup.outer(2), tos: 0, ttl: 64, udp: false }
}

fn scapy_suite(name: &str) -> crypto::cipher::CipherSpec {
    match name {
        "GCM16-128" => spec(Encr::AES_GCM_16, 128, Integ::NONE),
        "CHACHA" => spec(Encr::CHACHA20_POLY1305, 0, Integ::NONE),
        "CBC128-SHA256" => spec(Encr::AES_CBC, 128, Integ::HMAC_SHA2_256_128),
        "CBC256-SHA512" => spec(Encr::AES_CBC, 256, Integ::HMAC_SHA2_512_256),
        "CTR128-SHA1" => spec(Encr::AES_CTR, 128, Integ::HMAC_SHA1_96),
        "NULL-SHA384" => spec(Encr::NULL, 0, Integ::HMAC_SHA2_384_192),
        _ => panic!("{name}"),
    }
}
