//! Keys for Wireshark: those of all SAs that are in use, and no others.

mod world;

use ipsec::sa::{Direction, Sa};
use mesh::Command;
use world::{World, manifest, target};

const EAGER: &str = "start: eager\npeers:\n- {address: 10.0.0.1, name: one}\n- {address: 10.0.0.2, name: two}\n- {address: 10.0.0.3, name: three}\n";

#[test]
fn keys_of_all_sas_that_are_in_use() {
    let mut world = World::new(3, &manifest(EAGER));
    world.seconds(10);
    let before = world.hosts[0].mesh.export_sas();
    assert_exported(&world);
    world.command(0, Command::Rekey(target(1)));
    world.seconds(30);
    assert_exported(&world);
    let after = world.hosts[0].mesh.export_sas();
    assert_eq!(after.iter().filter(|sa| before.contains(sa)).count(), 2, "one peer's are new");
}

/// Two peers: an IKE SA and two ESP SAs each, and the peer has the other end of each with the same keys.
fn assert_exported(world: &World) {
    let exported = world.hosts.iter().map(|h| h.mesh.export_sas()).collect::<Vec<_>>();
    let all = || exported.iter().flatten();
    for (host, sas) in world.hosts.iter().zip(&exported) {
        assert_eq!(host.mesh.export_all_keys().len(), 2);
        assert_eq!(sas.len(), 4);
        assert_eq!(sas.iter().filter(|sa| sa.direction == Direction::In).count(), 2);
        for sa in sas {
            let other = |peer: &&Sa| peer.key() == sa.key() && peer.direction != sa.direction;
            assert!(all().find(other).is_some_and(|peer| peer.encr_key == sa.encr_key));
        }
    }
}
