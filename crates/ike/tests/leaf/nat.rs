//! NAT detection between two hosts, with and without a NAT.

use std::net::SocketAddr;

use crypto::native::Native;
use ike::nat::{NatState, detect, hash, notifies};
use wire::message::IkeSpi;
use wire::payload::{Notify, Payload};
use wire::registry::{NotifyType, ProtocolId};

const SPIS: (IkeSpi, IkeSpi) = (IkeSpi(1), IkeSpi(2));

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What `here` sees of a message whose sender thought that it goes from `from` to `to`, and that came from `seen`.
fn seen(from: &str, to: &str, seen: &str, here: &str, force: bool) -> NatState {
    let sent = notifies(&Native, SPIS.0, SPIS.1, addr(from), addr(to), force).unwrap();
    let payloads = sent.map(Payload::Notify);
    detect(&Native, &payloads, SPIS.0, SPIS.1, addr(here), addr(seen)).unwrap().unwrap()
}

#[test]
fn who_is_behind_a_nat() {
    let (a, b) = ("10.0.0.1:500", "10.0.0.2:500");
    assert!(!seen(a, b, a, b, false).any());
    assert_eq!(
        seen(a, b, "192.0.2.1:1024", b, false),
        NatState { local_behind: false, remote_behind: true }
    );
    assert_eq!(
        seen(a, "192.0.2.9:500", a, b, false),
        NatState { local_behind: true, remote_behind: false }
    );
    assert_eq!(
        seen(
            "[2001:db8::1]:500",
            "[2001:db8::2]:500",
            "[2001:db8::1]:500",
            "[2001:db8::2]:500",
            true
        ),
        NatState { local_behind: false, remote_behind: true }
    );
}

#[test]
fn one_of_several_source_hashes_is_enough() {
    let (a, b) = (addr("10.0.0.1:500"), addr("10.0.0.2:500"));
    let of = |kind, addr| {
        let data = hash(&Native, SPIS.0, SPIS.1, addr).unwrap();
        Payload::Notify(Notify { protocol: ProtocolId::NONE, spi: vec![], kind, data })
    };
    let mut payloads = vec![
        of(NotifyType::NAT_DETECTION_SOURCE_IP, addr("10.9.9.9:500")),
        of(NotifyType::NAT_DETECTION_SOURCE_IP, a),
    ];
    // Without a DESTINATION the peer does no NAT traversal.
    assert_eq!(detect(&Native, &payloads, SPIS.0, SPIS.1, b, a).unwrap(), None);
    payloads.push(of(NotifyType::NAT_DETECTION_DESTINATION_IP, b));
    let state = detect(&Native, &payloads, SPIS.0, SPIS.1, b, a).unwrap();
    assert_eq!(state, Some(NatState::default()));
    assert_eq!(detect(&Native, &[], SPIS.0, SPIS.1, b, a).unwrap(), None);
}
