//! What a new manifest does to each pair, before it is in force, and whether that is what it then does.

mod world;

use mesh::radius::{Effect, Radius};
use mesh::status::State;
use world::{World, address, loaded, manifest};

/// Hosts 0 and 1 have a tunnel; host 2 is listed, and idle.
fn fleet(more: &str) -> World {
    let mut world = World::new(3, &manifest(&[LISTED, more].concat()));
    world.send(0, 1, b"hello");
    world.seconds(5);
    assert_eq!((world.state(0, 1), world.state(0, 2)), (State::Up, State::Idle));
    world
}

const LISTED: &str = "peers:\n- {address: 10.0.0.1}\n- {address: 10.0.0.2, name: two}\n- {address: 10.0.0.3, name: three}\n";

fn radius(world: &World, text: &str) -> Radius {
    world.hosts[0].mesh.radius(world.clock(), &loaded(text, 0))
}

fn effects(radius: &Radius) -> Vec<(usize, Effect)> {
    let number =
        |pair: &mesh::radius::PairChange| (0..4).find(|n| address(*n) == pair.address).unwrap();
    radius.changed.iter().map(|pair| (number(pair), pair.effect)).collect()
}

#[test]
fn nothing_and_a_new_host() {
    let world = fleet("");
    let same = radius(&world, &manifest(LISTED));
    assert_eq!((effects(&same), same.untouched), (Vec::new(), 2));
    let more = radius(&world, &manifest(&format!("{LISTED}- {{address: 10.0.0.4, name: four}}\n")));
    assert!(effects(&more).is_empty() && more.untouched == 3, "it was protected before: {more:#?}");
}

#[test]
fn only_who_has_a_tunnel_is_renegotiated_and_so_it_comes() {
    let mut world = fleet("");
    let text = manifest(&format!("{LISTED}esp_proposals: [aes256gcm16]\n"));
    let found = radius(&world, &text);
    assert_eq!((effects(&found), found.untouched), (vec![(1, Effect::Renegotiated)], 1));
    assert_eq!(
        (found.changed[0].name.as_deref(), found.changed[0].state),
        (Some("two"), State::Up)
    );
    let before = world.single(0, 1);
    world.load_all(&text);
    world.seconds(20);
    assert_ne!(world.single(0, 1), before);
}

#[test]
fn what_is_excluded_goes_clear_all_of_it_or_some() {
    let world = fleet("");
    let all = radius(&world, &manifest(&format!("{LISTED}no_ipsec_subnets: [10.0.0.2/32]\n")));
    assert_eq!((effects(&all), all.untouched), (vec![(1, Effect::GoesClear)], 1));
    assert!(all.changed[0].because.contains("all of its traffic"), "{all:#?}");
    let port = "policies:\n- {action: pass, proto: tcp, remote_port: 22, remote: 10.0.0.3}\n";
    let some = radius(&world, &manifest(&[LISTED, port].concat()));
    assert_eq!((effects(&some), some.untouched), (vec![(2, Effect::GoesClear)], 1));
    assert!(some.changed[0].because.contains("some of its traffic"), "{some:#?}");
    let drop = "policies:\n- {action: drop, remote: 10.0.0.3}\n";
    let dropped = radius(&world, &manifest(&[LISTED, drop].concat()));
    assert_eq!((effects(&dropped), dropped.untouched), (vec![(2, Effect::CutOff)], 1));
}

#[test]
fn enforcing_cuts_off_who_has_no_tunnel_and_the_way_back_is_said() {
    let world = fleet("optional: true\n");
    let enforced = radius(&world, &manifest(LISTED));
    assert_eq!(effects(&enforced), [(1, Effect::PoliciesChange), (2, Effect::CutOff)]);
    let world = fleet("");
    let back = radius(&world, &manifest(&[LISTED, "optional: true\n"].concat()));
    assert_eq!(effects(&back), [(1, Effect::GoesClear), (2, Effect::GoesClear)]);
}
