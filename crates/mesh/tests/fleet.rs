//! What the manifest means for a pair.

mod world;

use std::time::Duration;

use mesh::fleet::Fleet;
use mesh::pair;
use mesh::status::DataPlane;
use world::{address, loaded, manifest};

fn fleet(more: &str, host: usize) -> Fleet {
    Fleet::new(loaded(&manifest(more), host), DataPlane::Userspace)
}

#[test]
fn the_owner_rekeys_first_and_no_two_pairs_at_once() {
    let text = "child_lifetime: 1000\nike_lifetime: 1000\njitter: 20\n";
    let mut owners = Vec::new();
    for (a, b) in (0..20).flat_map(|a| (a + 1..20).map(move |b| (a, b))) {
        let (a, b) = if pair::owns(address(a), address(b)) { (a, b) } else { (b, a) };
        let rekey = |host, peer, salt| {
            let config = fleet(text, host).config(address(peer), salt, true).unwrap();
            assert!(config.child.limits.hard_time.unwrap() > config.child.rekey_after);
            config.child.rekey_after
        };
        let (owner, other) = (rekey(a, b, 1), rekey(b, a, 2));
        assert!((800..=1000).contains(&owner.as_secs()), "{owner:?}");
        assert!((1050..=1100).contains(&other.as_secs()), "{other:?}");
        owners.push(owner);
    }
    owners.sort();
    owners.dedup();
    assert!(owners.len() > 150, "190 pairs have {} times", owners.len());
    assert!(
        owners[0] < Duration::from_secs(850) && owners[owners.len() - 1] > Duration::from_secs(950)
    );
}

#[test]
fn who_is_no_peer_has_no_configuration() {
    let fleet = fleet("no_ipsec_subnets: [10.0.0.8/29]\n", 0);
    assert!(fleet.config(address(1), 0, true).is_some());
    assert!(fleet.config(address(8), 0, true).is_none(), "excluded");
    assert!(fleet.config(address(0), 0, true).is_none(), "itself");
    assert!(fleet.config([192, 0, 2, 1].into(), 0, true).is_none(), "outside");
    assert!(fleet.config([224, 0, 0, 1].into(), 0, true).is_none(), "multicast");
}

#[test]
fn what_replaces_a_tunnel_and_what_does_not() {
    let now = fleet("", 0);
    assert!(now.same_tunnel(&fleet("child_lifetime: 60\noptional: true\n", 0), address(1)));
    assert!(!now.same_tunnel(&fleet("mode: tunnel\n", 0), address(1)));
    assert!(!now.same_tunnel(&fleet("esp_proposals: aes256gcm16\n", 0), address(1)));
    assert!(!now.same_tunnel(&fleet("force_udp_encapsulation: true\n", 0), address(1)));
    let one = fleet("peers: [{address: 10.0.0.3, esp_proposals: aes256gcm16}]\n", 0);
    assert!(now.same_tunnel(&one, address(1)));
    assert!(!now.same_tunnel(&one, address(2)));
}

#[test]
fn compression_is_agreed_on_where_the_data_plane_can() {
    let text = manifest("compression: deflate\n");
    for (data_plane, can) in [(DataPlane::Userspace, true), (DataPlane::Kernel, false)] {
        let fleet = Fleet::new(loaded(&text, 0), data_plane);
        assert_eq!(fleet.config(address(1), 0, false).unwrap().child.compression, can);
        assert_eq!(fleet.lacks_compression(), !can);
    }
    let plain = fleet("", 0);
    assert!(!plain.config(address(1), 0, false).unwrap().child.compression);
    assert!(!plain.lacks_compression());
    assert!(!plain.same_tunnel(&fleet("compression: deflate\n", 0), address(1)));
}
