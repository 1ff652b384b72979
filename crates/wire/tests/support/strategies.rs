//! What a well-formed message may hold, for proptest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use wire::identity::Identity;
use wire::message::{Flags, Header, IkeSpi};
use wire::payload::*;
use wire::proposal::{Proposal, Transform};
use wire::registry::*;
use wire::selector::TrafficSelector;

pub fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=max)
}

pub fn header() -> impl Strategy<Value = Header> {
    let spis = (any::<u64>(), any::<u64>());
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (spis, any::<u8>(), 0x20..=0x2f_u8, flags, any::<u32>(), any::<u32>()).prop_map(
        |((i, r), exchange, version, (initiator, higher, response), message_id, length)| Header {
            spi_i: IkeSpi(i),
            spi_r: IkeSpi(r),
            next_payload: PayloadType::NONE,
            version,
            exchange: ExchangeType(exchange),
            flags: Flags { initiator, version: higher, response },
            message_id,
            length,
        },
    )
}

fn transform() -> impl Strategy<Value = Transform> {
    (1..=20_u8, any::<u16>(), proptest::option::of(any::<u16>())).prop_map(
        |(kind, id, key_bits)| Transform {
            kind: TransformType(kind),
            id,
            key_bits,
            unknown_attribute: false,
        },
    )
}

pub fn proposal() -> impl Strategy<Value = Proposal> {
    let spi = prop_oneof![
        Just((ProtocolId::IKE, 0)),
        Just((ProtocolId::IKE, 8)),
        Just((ProtocolId::ESP, 4)),
        Just((ProtocolId::AH, 4)),
        Just((ProtocolId(9), 17)),
    ];
    (any::<u8>(), spi, vec(any::<u8>(), 17), vec(transform(), 0..12)).prop_map(
        |(number, (protocol, len), spi, transforms)| Proposal {
            number,
            protocol,
            spi: spi[..len].to_vec(),
            transforms,
        },
    )
}

pub fn identity() -> impl Strategy<Value = Identity> {
    prop_oneof![
        any::<Ipv4Addr>().prop_map(Identity::Ipv4),
        any::<Ipv6Addr>().prop_map(Identity::Ipv6),
        "[!-~]{1,60}".prop_map(Identity::Fqdn),
        "[!-~äß]{1,40}@[!-~]{1,20}".prop_map(Identity::Email),
        bytes(80).prop_map(Identity::DerDn),
        bytes(80).prop_map(Identity::KeyId),
        (any::<u8>(), bytes(80))
            .prop_filter("known", |(k, _)| ![1, 2, 3, 5, 9, 11].contains(k))
            .prop_map(|(k, d)| Identity::Other(k, d)),
    ]
}

fn range<T: Ord + Into<IpAddr>>((a, b): (T, T)) -> (IpAddr, IpAddr) {
    if a <= b { (a.into(), b.into()) } else { (b.into(), a.into()) }
}

pub fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(range),
        (any::<Ipv4Addr>(), 0..300_u32)
            .prop_map(|(a, n)| range((a, Ipv4Addr::from_bits(a.to_bits().saturating_add(n))))),
        (any::<Ipv4Addr>(), 0..=32_u8).prop_map(|(a, n)| {
            let net = ipnet::Ipv4Net::new(a, n).unwrap();
            range((net.network(), net.broadcast()))
        }),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(range),
        (any::<Ipv6Addr>(), 0..=128_u8).prop_map(|(a, n)| {
            let net = ipnet::Ipv6Net::new(a, n).unwrap();
            range((net.network(), net.broadcast()))
        }),
    ]
}

/// Few protocols and a small world of ports, so that selectors overlap often.
pub fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ports = prop_oneof![
        Just((0, 65535)),
        Just((65535, 0)),
        (0..6_u16, 0..6_u16).prop_map(|(a, b)| (a.min(b), a.max(b))),
        any::<(u16, u16)>().prop_map(|(a, b)| (a.min(b), a.max(b))),
    ];
    let protocol = prop_oneof![Just(0), Just(1), Just(6), Just(17), Just(58), any::<u8>()];
    (protocol, ports, addresses()).prop_map(|(protocol, (start_port, end_port), (start, end))| {
        TrafficSelector { protocol, start_port, end_port, start, end }
    })
}

pub fn notify() -> impl Strategy<Value = Notify> {
    (any::<u8>(), bytes(255), any::<u16>(), bytes(300)).prop_map(|(protocol, spi, kind, data)| {
        Notify { protocol: ProtocolId(protocol), spi, kind: NotifyType(kind), data }
    })
}

pub fn delete() -> impl Strategy<Value = Delete> {
    prop_oneof![
        Just(Delete { protocol: ProtocolId::IKE, spis: Vec::new() }),
        vec(any::<u32>(), 0..40).prop_map(|spis| Delete { protocol: ProtocolId::ESP, spis }),
        vec(any::<u32>(), 0..40).prop_map(|spis| Delete { protocol: ProtocolId::AH, spis }),
    ]
}

pub fn payload() -> impl Strategy<Value = Payload> {
    let cert = || (any::<u8>().prop_map(CertEncoding), bytes(300));
    let unknown = prop_oneof![1..33_u8, 49..53_u8, 54..=255_u8].prop_map(PayloadType);
    prop_oneof![
        vec(proposal(), 1..6).prop_map(Payload::Sa),
        (any::<u16>(), bytes(600))
            .prop_map(|(m, data)| Payload::Ke(KePayload { method: Ke(m), data })),
        identity().prop_map(Payload::IdI),
        identity().prop_map(Payload::IdR),
        cert().prop_map(|(encoding, data)| Payload::Cert(CertPayload { encoding, data })),
        cert().prop_map(|(encoding, data)| Payload::CertReq(CertReqPayload { encoding, data })),
        (any::<u8>(), bytes(300))
            .prop_map(|(m, data)| Payload::Auth(AuthPayload { method: AuthMethod(m), data })),
        vec(any::<u8>(), NONCE_LEN).prop_map(Payload::Nonce),
        notify().prop_map(Payload::Notify),
        delete().prop_map(Payload::Delete),
        bytes(64).prop_map(Payload::VendorId),
        vec(selector(), 0..8).prop_map(Payload::TsI),
        vec(selector(), 0..8).prop_map(Payload::TsR),
        bytes(64).prop_map(Payload::Cp),
        bytes(64).prop_map(Payload::Eap),
        (unknown, bytes(64)).prop_map(|(kind, data)| Payload::Unknown(UnknownPayload {
            kind,
            critical: false,
            data
        })),
    ]
}
