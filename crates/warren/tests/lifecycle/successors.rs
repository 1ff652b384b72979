//! A daemon ends, however it ends, and the next one goes on with its IKE SAs: no handshake is seen.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use linux::capture::Packet;
use rustix::process::Signal;

use crate::world::daemon::Daemon;
use crate::world::net::{in_clear, udp_ports};
use crate::world::root;
use crate::world::shm::Shm;
use crate::{BASE, Mesh};

/// RFC 7296 3.1.
pub const IKE_SA_INIT: u8 = 34;
const CREATE_CHILD_SA: u8 = 36;

/// `warren run` with its state in memory.
fn run(daemon: &Daemon, state: &Shm) -> Command {
    daemon.folder.put("warren.yml", BASE);
    state.run(daemon)
}

/// A pair with a tunnel, whose daemons keep journals.
fn pair() -> (Mesh, [Shm; 2]) {
    let mut mesh = Mesh::of(&["10.77.0.1", "10.77.0.2"], 24, 0, BASE);
    let state = [Shm::new(), Shm::new()];
    for (daemon, state) in mesh.daemons.iter_mut().zip(&state) {
        let command = run(daemon, state);
        daemon.start_as(command);
    }
    mesh.connect(0, 1);
    (mesh, state)
}

pub fn exchanges(packets: &[Packet]) -> Vec<u8> {
    let exchange = |p: &Packet| {
        let header = usize::from(p.bytes.first()? & 15) * 4 + 8;
        match udp_ports(p)? {
            (500, 500) => p.bytes.get(header + 18).copied(),
            (4500, 4500) if p.bytes.get(header..header + 4)? == [0; 4] => {
                p.bytes.get(header + 22).copied()
            }
            _ => None,
        }
    };
    packets.iter().filter_map(exchange).collect()
}

fn ike_spis(mesh: &Mesh, host: usize) -> Vec<String> {
    let row = mesh.daemons[host].peer(mesh.address(1 - host));
    let sas = row["ike_sas"].as_array().cloned().unwrap_or_default();
    sas.iter().map(|sa| format!("{} {}", sa["spi_i"], sa["spi_r"])).collect()
}

#[test]
fn after_a_kill_or_a_stop_traffic_is_back_within_a_second_and_without_a_handshake() {
    if !root() {
        return;
    }
    let (mut mesh, state) = pair();
    let ike = ike_spis(&mesh, 0);
    let mut wire = mesh.net.watch(0);
    let mut seen = Vec::new();
    for (host, signal) in [(0, Signal::KILL), (1, Signal::KILL), (0, Signal::TERM)] {
        let old = mesh.daemons[host].spis(mesh.address(1 - host));
        mesh.daemons[host].signal(signal);
        mesh.daemons[host].ended();
        let command = run(&mesh.daemons[host], &state[host]);
        mesh.daemons[host].start_as(command);
        let begin = Instant::now();
        mesh.passes(host, 1 - host, "from the next process");
        mesh.passes(1 - host, host, "to the next process");
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        mesh.connect(0, 1);
        assert_eq!((ike_spis(&mesh, 0), ike_spis(&mesh, 1)), (ike.clone(), ike.clone()));
        // After a kill its keys are lost; else a holder had them.
        let same = mesh.daemons[host].spis(mesh.address(1 - host)) == old;
        assert_eq!(same, signal == Signal::TERM);
        seen.extend(wire.seen());
    }
    let exchanges = exchanges(&seen);
    assert!(!exchanges.contains(&IKE_SA_INIT), "{exchanges:?}");
    assert!(exchanges.contains(&CREATE_CHILD_SA));
    for text in ["from the next process", "to the next process"] {
        assert!(in_clear(&seen, text).is_empty(), "leaked: {text}");
    }
}

#[test]
fn a_flush_leaves_no_journal_and_a_spoilt_one_is_no_obstacle() {
    if !root() {
        return;
    }
    let (mut mesh, state) = pair();
    let log = state[0].0.join("journal");
    mesh.daemons[0].signal(Signal::KILL);
    mesh.daemons[0].ended();
    let mut bytes = fs::read(&log).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&log, bytes).unwrap();
    let command = run(&mesh.daemons[0], &state[0]);
    mesh.daemons[0].start_as(command);
    assert!(mesh.daemons[0].log().contains("is not used"), "{}", mesh.daemons[0].log());
    mesh.passes(0, 1, "by a new handshake");
    mesh.connect(0, 1);
    mesh.daemons[0].warren(&["stop", "--flush"]).ok();
    mesh.daemons[0].ended();
    assert!(!log.exists() && !state[0].0.join("journal.key").exists());
}

#[test]
fn on_a_disk_there_is_no_journal_and_the_log_says_so() {
    if !root() {
        return;
    }
    let mut mesh = Mesh::of(&["10.77.0.1", "10.77.0.2"], 24, 0, BASE);
    let state = mesh.daemons[0].folder.join("state");
    fs::create_dir_all(&state).unwrap();
    // TMPFS_MAGIC of statfs(2).
    if rustix::fs::statfs(&state).is_ok_and(|s| s.f_type as u64 == 0x0102_1994) {
        return;
    }
    mesh.daemons[0].start(BASE);
    assert!(!state.join("journal").exists());
    assert!(mesh.daemons[0].log().contains("SAs will end with this process"));
}
