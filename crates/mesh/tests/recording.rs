//! Recordings as bytes: they come back as they were, and bytes that are none are refused.

use ike::endpoint::Datagram;
use ike::{JobId, Now, Secret};
use ipsec::Instant;
use ipsec::change::{Refusal, RefusalReason};
use ipsec::dataplane::{DataplaneEvent, PacketInfo, SaUsage, Snapshot};
use ipsec::sa::{Reqid, SaKey};
use ipsec::spd::{Flow, PolicyKey, PolicySelector};
use mesh::recording::{Begin, Bundle, DecodeError, Given, Step};
use mesh::status::DataPlane;
use mesh::{Command, Identity, Order, Target};
use proptest::prelude::*;
use wire::esp::Spi;

fn steps() -> Vec<Step> {
    let v4 = [192, 0, 2, 1].into();
    let v6 = "2001:db8::1".parse().unwrap();
    let key = SaKey { dst: v6, spi: Spi(7) };
    let packet = PacketInfo { src: v4, dst: v4, protocol: 17, src_port: Some(1), dst_port: None };
    let policy = PolicyKey {
        flow: Flow::Fwd,
        priority: 9,
        selector: PolicySelector {
            local: "192.0.2.0/24".parse().unwrap(),
            remote: "198.51.100.0/24".parse().unwrap(),
            protocol: Some(6),
            local_ports: None,
            remote_ports: Some((1, 2)),
        },
    };
    let usage = SaUsage {
        key,
        bytes: 1,
        packets: 2,
        last_used: Some(Instant::from_nanos(3)),
        replays: 4,
        bad_icv: 5,
    };
    let refused = ["a", "b", "c", "d", "e", "f", "g"].map(str::to_owned);
    let [a, b, c, d, e, f, g] = refused;
    let reasons = [
        RefusalReason::NoAlgorithm(a),
        RefusalReason::Full(b),
        RefusalReason::NoMemory(c),
        RefusalReason::Gone(d),
        RefusalReason::Denied(e),
        RefusalReason::Conflict(f),
        RefusalReason::Other(g),
    ];
    let refusals = reasons.into_iter().map(|reason| Refusal { index: 3, reason }).collect();
    let events = [
        DataplaneEvent::Acquire { reqid: Reqid(4), packet },
        DataplaneEvent::Drift,
        DataplaneEvent::SoftLimit(key),
        DataplaneEvent::HardLimit(key),
        DataplaneEvent::FirstUse(key),
        DataplaneEvent::Moved { key, remote: (v4, 4500).into() },
        DataplaneEvent::UnknownSpi { src: v4, key },
        DataplaneEvent::ClearIn { packet },
        DataplaneEvent::Passed { packet },
    ];
    let name = || Target::Name("ø".into());
    let commands = [
        Command::Up(Target::Address(v4)),
        Command::Down(name()),
        Command::Restart(Target::Spi(5)),
        Command::Rekey(name()),
        Command::Reauth(name()),
        Command::ReauthAll,
        Command::Leave,
        Command::Flush,
    ];
    let bundle = Bundle {
        path: "/a".into(),
        text: Secret::from(&b"text"[..]),
        files: vec![("f".into(), Secret::from(&b"key"[..]))],
        expanded: vec![("*".into(), vec!["a".into(), "b".into()])],
        own: vec![v4, v6],
        prefer_encap: true,
    };
    let snapshot = Snapshot {
        sas: vec![usage],
        policies: vec![policy],
        altered_sas: vec![key],
        altered_policies: vec![policy],
        counters: Vec::new(),
    };
    let mut all = vec![
        Given::Datagram(Datagram {
            local: (v4, 500).into(),
            remote: (v6, 4500).into(),
            bytes: vec![1, 2],
        }),
        Given::Journal(vec![(mesh::journal::Key(1), Secret::from(&b"record"[..]))]),
        Given::Orders([(v4, Order::Up), (v6, Order::Down)].into()),
        Given::Manifest(Box::new(bundle)),
        Given::Applied(8, refusals),
        Given::Snapshot(snapshot),
        Given::JobDone(JobId(1), Some(vec![9])),
        Given::JobDone(JobId(2), None),
        Given::Addresses(vec![v4, [10, 9, 8, 7].into()]),
        Given::Tick,
    ];
    all.extend(events.map(Given::Kernel));
    all.extend(commands.map(Given::Command));
    let now = Now { at: Instant::from_nanos(11), unix: 12 };
    all.into_iter().map(|given| Step { now, outputs: [7; 16], given }).collect()
}

#[test]
fn every_input_comes_back() {
    for step in steps() {
        assert_eq!(Step::decode(step.encode().expose()).unwrap(), step);
    }
}

#[test]
fn every_cut_is_refused() {
    for step in steps() {
        let whole = step.encode();
        for len in 0..whole.expose().len() {
            assert!(Step::decode(&whole.expose()[..len]).is_err(), "{len} bytes of {step:?}");
        }
    }
}

#[test]
fn the_beginning_comes_back_and_other_layouts_are_named() {
    let identity = Identity {
        address: [192, 0, 2, 1].into(),
        name: "one".into(),
        version: "0".into(),
        data_plane: DataPlane::Userspace,
    };
    let seed = Secret::from(&[5; 32][..]);
    let begin = Begin { identity, seed, now: Now { at: Instant::from_nanos(1), unix: 2 } };
    let mut bytes = begin.encode().expose().to_vec();
    let back = Begin::decode(&bytes).unwrap();
    assert_eq!((back.seed, back.identity.name), (begin.seed, begin.identity.name));
    bytes[0] = 99;
    assert_eq!(Begin::decode(&bytes).unwrap_err(), DecodeError::Version(99));
    assert!(Begin::decode(&[]).is_err());
}

proptest! {
    #[test]
    fn no_bytes_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Begin::decode(&bytes);
        if let Ok(step) = Step::decode(&bytes) {
            prop_assert_eq!(Step::decode(step.encode().expose()), Ok(step));
        }
    }

    #[test]
    fn no_damage_harms(which in 0usize..25, at in 0usize..400, value in any::<u8>()) {
        let all = steps();
        let mut bytes = all[which % all.len()].encode().expose().to_vec();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(step) = Step::decode(&bytes) {
            prop_assert_eq!(Step::decode(step.encode().expose()), Ok(step));
        }
    }
}
