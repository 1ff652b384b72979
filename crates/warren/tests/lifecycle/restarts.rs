//! A daemon that ends, in good order or not, and comes back.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::world::net::in_clear;
use crate::world::root;
use crate::{BASE, Mesh};

#[test]
fn signals_end_it_in_good_order() {
    if !root() {
        return;
    }
    let mut mesh = Mesh::start(1, BASE);
    for signal in [Signal::TERM, Signal::INT] {
        let one = &mut mesh.daemons[0];
        one.signal(signal);
        assert!(one.ended().success());
        assert!(!one.control().exists());
        assert!(!mesh.net.traces(0).is_empty(), "the policies are gone");
        mesh.daemons[0].start(BASE);
    }
}

#[test]
fn after_sigkill_nothing_leaks_and_all_comes_back() {
    if !root() {
        return;
    }
    let mut mesh = Mesh::pair(BASE);
    let mut wire = mesh.net.watch(0);
    mesh.daemons[0].signal(Signal::KILL);
    assert!(!mesh.daemons[0].ended().success());
    assert!(!mesh.net.udp_arrives(0, 1, "while it is dead", Duration::from_millis(300)));
    assert!(!mesh.net.udp_arrives(1, 0, "while it is dead", Duration::from_millis(300)));
    assert!(mesh.daemons[0].control().exists(), "the socket's file outlives a kill");
    mesh.daemons[0].start(BASE);
    // The peer still has SAs that the new process does not know.
    let begin = Instant::now();
    mesh.passes(0, 1, "from the new process");
    mesh.passes(1, 0, "to the new process");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    mesh.connect(0, 1);
    mesh.connect(1, 0);
    let seen = wire.seen();
    for text in ["while it is dead", "from the new process", "to the new process"] {
        assert!(in_clear(&seen, text).is_empty(), "leaked: {text}");
    }
}

#[test]
fn after_sigkill_the_other_side_alone_heals_it() {
    if !root() {
        return;
    }
    let mut mesh = Mesh::pair(BASE);
    mesh.daemons[0].signal(Signal::KILL);
    mesh.daemons[0].ended();
    mesh.daemons[0].start(BASE);
    let begin = Instant::now();
    mesh.passes(1, 0, "only the other side sends");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}
