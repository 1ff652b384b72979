//! To which addresses a peer's tunnel may go.

mod world;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crypto::cipher::CipherSpec;
use ike::{ChildId, Directory, Load, Secret};
use ipsec::Spi;
use ipsec::sa::{Direction, Limits, Mode, Outer, Reqid, Sa};
use mesh::directory::View;
use mesh::fleet::Fleet;
use mesh::peers::Peers;
use mesh::reconcile::Reconciler;
use mesh::status::DataPlane;
use wire::registry::{Encr, Integ};
use world::{address, loaded, manifest};

fn away(host: u8) -> IpAddr {
    [192, 0, 2, host].into()
}

/// The outbound SA of a tunnel with a peer.
fn outbound(peer: IpAddr, spi: u32) -> Arc<Sa> {
    Arc::new(Sa {
        spi: Spi(spi),
        src: address(0),
        dst: peer,
        direction: Direction::Out,
        mode: Mode::Tunnel,
        reqid: Reqid(1),
        cipher: CipherSpec { encr: Encr::AES_GCM_16, key_bits: 128, integ: Integ::NONE },
        encr_key: Secret::new(vec![1; 20]),
        integ_key: Secret::default(),
        esn: false,
        replay_window: 64,
        encap: None,
        ipcomp: None,
        limits: Limits::default().into(),
        local_ts: [].into(),
        remote_ts: [].into(),
    })
}

#[test]
fn nobody_moves_to_where_another_is() {
    let text = manifest("mode: tunnel\nmobike: true\npeers: [{address: 10.0.0.9}]\n");
    let fleet = Fleet::new(loaded(&text, 0), DataPlane::Userspace);
    let (mut peers, mut reconciler) = (Peers::default(), Reconciler::default());
    let may_move = |peers: &Peers, reconciler: &Reconciler, peer, to| {
        let view =
            View { fleet: &fleet, peers, reconciler, salt: 0, adopting: false, load: Load::Light };
        view.may_move(peer, to)
    };
    let now = ipsec::Instant::ZERO + Duration::from_secs(1);
    peers.entry(address(0), address(1), now);
    peers.entry(address(0), address(2), now);
    assert!(may_move(&peers, &reconciler, address(1), away(7)));
    for taken in [address(0), address(8)] {
        assert!(!may_move(&peers, &reconciler, address(1), taken), "{taken}");
    }

    let key = outbound(address(1), u32::MAX).key();
    reconciler.add_sa(outbound(address(1), u32::MAX), address(1), ChildId(1));
    let outer = Outer { local: address(0), remote: away(7), encap: None };
    reconciler.move_sa(key, outer).unwrap();
    assert!(may_move(&peers, &reconciler, address(1), away(7)), "it is there");
    assert!(!may_move(&peers, &reconciler, address(2), away(7)), "another is there");
    assert!(may_move(&peers, &reconciler, address(2), away(8)));
    let key = ipsec::sa::SaKey { dst: away(7), ..key };
    reconciler.remove_sa(key);
    assert!(may_move(&peers, &reconciler, address(2), away(7)), "nobody is there any more");
}
