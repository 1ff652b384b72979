//! Configurations of the two hosts.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use crypto::Secret;
use crypto::toy::Toy;
use ike::config::{Common, FRAGMENT_SIZE, Retransmit};
use ike::{Auth, ChildConfig, PeerConfig};
use ipsec::sa::{Limits, Mode, Reqid};
use wire::proposal::Proposal;
use wire::selector::TrafficSelector;
use wire::suite_text::{parse_esp, parse_ike};

use super::world::World;

pub const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

pub fn ike_suites(texts: &[&str]) -> Arc<[Proposal]> {
    texts.iter().map(|t| parse_ike(t).expect("an IKE proposal")).collect()
}

pub fn esp_suites(texts: &[&str]) -> Arc<[Proposal]> {
    texts.iter().map(|t| parse_esp(t).expect("an ESP proposal")).collect()
}

pub fn child(local: IpAddr, remote: IpAddr) -> ChildConfig {
    ChildConfig {
        reqid: Reqid(7),
        mode: Mode::Transport,
        compression: false,
        esp_proposals: esp_suites(&["aes128gcm16"]),
        local_ts: [TrafficSelector::host(local)].into(),
        remote_ts: [TrafficSelector::host(remote)].into(),
        replay_window: 64,
        rekey_after: Duration::from_secs(8 * 3600),
        limits: Limits::default().into(),
    }
}

pub fn peer(local: IpAddr, remote: IpAddr) -> PeerConfig {
    PeerConfig {
        local,
        remote,
        local_id: None,
        remote_id: None,
        auth: Auth::Psk(Secret::new(b"a pre-shared key of good length".to_vec()).into()),
        ike_proposals: ike_suites(&["aes128-sha256-modp2048"]),
        child: Arc::new(child(local, remote)),
        common: Arc::new(Common {
            force_encap: false,
            prefer_encap: false,
            mobike: false,
            ike_hard_lifetime: Duration::from_secs(25 * 3600),
            keepalive: Duration::from_secs(20),
            retransmit: Retransmit::default(),
            cluster: None,
        }),
        redirect: false,
        dpd_delay: Some(Duration::from_secs(30)),
        ike_rekey_after: Duration::from_secs(24 * 3600),
        initial_contact: true,
        fragment_size: Some(FRAGMENT_SIZE),
        ppk: None,
        childless: Default::default(),
    }
}

/// Both hosts' configurations, each changed by `f`.
pub fn peers(f: impl Fn(&mut PeerConfig)) -> (PeerConfig, PeerConfig) {
    let (mut a, mut b) = (peer(A, B), peer(B, A));
    f(&mut a);
    f(&mut b);
    (a, b)
}

/// What it does with all its peers alike, to be changed.
pub fn common(peer: &mut PeerConfig) -> &mut Common {
    Arc::make_mut(&mut peer.common)
}

/// Changes the child SA's part.
pub fn edit_child(peer: &mut PeerConfig, f: impl FnOnce(&mut ChildConfig)) {
    let mut child = (*peer.child).clone();
    f(&mut child);
    peer.child = Arc::new(child);
}

pub fn toy(seed: u8, f: impl Fn(&mut PeerConfig)) -> World {
    let (a, b) = peers(f);
    World::new(Arc::new(Toy), seed, a, b)
}

/// An established pair with traffic.
pub fn up(seed: u8, f: impl Fn(&mut PeerConfig)) -> World {
    let mut world = toy(seed, f);
    world.traffic = true;
    world.initiate(0);
    world.run(Duration::from_secs(3));
    world.assert_settled();
    world
}
