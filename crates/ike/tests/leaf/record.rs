//! Records of IKE SAs as bytes: they come back whole or not at all.

use std::net::IpAddr;

use ike::Secret;
use ike::ipcomp::Cpis;
use ike::keys::IkeKeys;
use ike::mobility::Path;
use ike::multi_ke::Additional;
use ike::narrow::Names;
use ike::nat::NatState;
use ike::negotiate::{EspSuite, IkeSuite};
use ike::record::{
    Asks, ChildRecord, CipherSpec, DecodeError, KeptMobility, Origin, Outstanding, SaRecord,
    VERSION,
};
use ipsec::sa::{Mode, Reqid};
use ipsec::{Instant, Spi};
use proptest::prelude::*;
use wire::bytes::Reader;
use wire::identity::Identity;
use wire::message::IkeSpi;
use wire::registry::{Encr, ExchangeType, Integ, Ke, Prf};
use wire::selector::TrafficSelector;

fn address(n: u8) -> IpAddr {
    [10, 0, 0, n + 1].into()
}

fn secret(n: u8, len: usize) -> Secret {
    Secret::new(vec![n; len])
}

prop_compose! {
    fn child()(spi in 256u32.., mode in any::<bool>(), esn in any::<bool>(), ke in any::<Option<u16>>(), at in any::<u64>()) -> ChildRecord {
        let host = |n| TrafficSelector::host(address(n));
        ChildRecord {
            reqid: Reqid(spi ^ 1), spi_in: Spi(spi), spi_out: Spi(u32::MAX), mode: if mode { Mode::Tunnel } else { Mode::Transport },
            suite: EspSuite { cipher: CipherSpec { encr: Encr::AES_GCM_16, key_bits: 256, integ: Integ::NONE }, esn, ke: ke.map(Ke), additional: Additional([1, 2, 3, 4, 5, 6, 7].map(|n| Ke(n * 5000))) },
            local_ts: vec![host(0), host(1)], remote_ts: vec![host(1).with(17, 5..=9)],
            names: mode.then(|| Names { local: address(3), remote: "fd00::9".parse().unwrap() }), encap: esn,
            ipcomp: ke.map(|inbound| Cpis { inbound, outbound: 2 }),
            since: Instant::from_nanos(at), rekey_at: Instant::from_nanos(at / 2),
        }
    }
}

prop_compose! {
    fn asks()(kind in 0..4, spi in any::<u32>(), old in any::<Option<u32>>()) -> Asks {
        match kind {
            0 => Asks::RekeyIke,
            1 => Asks::Nothing(ExchangeType::INFORMATIONAL),
            _ => Asks::Child { spi_in: Spi(spi), replaces: old.map(Spi), exchange: ExchangeType(spi as u8) },
        }
    }
}

prop_compose! {
    fn record()(
        spis in any::<(u64, u64)>(), flags in any::<[bool; 7]>(), moved in any::<[bool; 2]>(), v6 in any::<bool>(),
        ids in any::<(Option<u32>, u32, u64)>(),
        answer in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..3),
        sent in prop::option::of((any::<u32>(), asks())),
        orphans in prop::collection::vec(any::<u32>(), 0..3),
        children in prop::collection::vec(child(), 0..3),
    ) -> SaRecord {
        let peer = if v6 { "fd00::7".parse().unwrap() } else { address(1) };
        let keys = IkeKeys {
            sk_d: secret(1, 32), sk_ai: secret(2, 0), sk_ar: secret(3, 5), sk_ei: secret(4, 36), sk_er: secret(5, 20),
            sk_pi: Secret::default(), sk_pr: Secret::default(),
        };
        SaRecord {
            spi_i: IkeSpi(spis.0), spi_r: IkeSpi(spis.1), initiator: flags[0], local: (address(0), 500).into(), remote: (peer, 4500).into(),
            nat: NatState { local_behind: flags[1], remote_behind: flags[2] }, encap: flags[3], udp: flags[6],
            mobility: moved[0].then(|| KeptMobility {
                theirs: vec![peer, address(9)],
                trial: moved[1].then(|| Path { local: (address(3), 4500).into(), remote: (peer, 4501).into() }),
            }),
            fragmentation: flags[4], replaced: flags[5],
            local_id: Identity::from_text("C=DE, CN=a").unwrap(), remote_id: Identity::KeyId(vec![]),
            suite: IkeSuite { cipher: CipherSpec { encr: Encr::AES_CBC, key_bits: 128, integ: Integ::HMAC_SHA2_256_128 }, prf: Prf(5), ke: Ke(14), additional: Additional([36, 0, 37, 0, 0, 0, 65535].map(Ke)) },
            keys, sealed: ids.2, next_out: ids.0, expected_in: ids.1,
            outstanding: sent.map(|(id, asks)| Outstanding { id, messages: vec![vec![7; 9]], asks }),
            answer, orphans: orphans.into_iter().map(Spi).collect(),
            token: flags[4].then(|| secret(6, 32)), since: Instant::from_nanos(1), rekey_at: Instant::NEVER,
            origin: flags[1].then(|| Origin {
                own: flags[2], nonce: [1; 32].into(),
                began: Instant::from_nanos(ids.2), since: Instant::from_nanos(9),
            }),
            children,
        }
    }
}

fn encoded(record: &SaRecord) -> Vec<u8> {
    let mut out = Vec::new();
    record.encode(&mut out);
    out
}

fn decoded(bytes: &[u8]) -> Result<SaRecord, DecodeError> {
    SaRecord::decode(Reader::new(bytes, "record"))
}

proptest! {
    #[test]
    fn records_come_back_whole(record in record()) {
        let bytes = encoded(&record);
        prop_assert_eq!(decoded(&bytes), Ok(record));
    }

    #[test]
    fn every_part_of_a_record_is_refused(record in record(), cut in any::<prop::sample::Index>()) {
        let bytes = encoded(&record);
        prop_assert!(decoded(&bytes[..cut.index(bytes.len())]).is_err());
        let more = [&bytes[..], &[0]].concat();
        prop_assert!(decoded(&more).is_err());
        let newer = [&[77], &bytes[1..]].concat();
        prop_assert_eq!(decoded(&newer), Err(DecodeError::Version(77)));
    }

    #[test]
    fn anything_else_does_no_harm(record in record(), place in any::<prop::sample::Index>(), byte in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = encoded(&record);
        let at = place.index(bytes.len());
        bytes[at] = byte;
        let _ = decoded(&bytes);
        let _ = decoded(&[&[VERSION], &noise[..]].concat());
    }
}
