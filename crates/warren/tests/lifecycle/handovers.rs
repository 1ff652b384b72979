//! The userspace data plane outlives its daemon: what a stop, a start or another build loses, which is nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use linux::capture::Packet;
use linux::netns::Netns;
use rustix::process::{Pid, Signal};

use crate::successors::{IKE_SA_INIT, exchanges};
use crate::world::net::{in_clear, protocol};
use crate::world::shm::Shm;
use crate::world::streams::{Seen, Streams};
use crate::world::{eventually, root};
use crate::{BASE, Mesh};

/// Hosts with tunnels between all of them, and state in memory.
fn mesh(hosts: usize) -> (Mesh, Vec<Shm>) {
    let all = ["10.77.0.1", "10.77.0.2", "10.77.0.3", "10.77.0.4"];
    let mut mesh = Mesh::of(&all[..hosts], 24, 0, BASE);
    let state: Vec<Shm> = (0..hosts).map(|_| Shm::new()).collect();
    for (daemon, state) in mesh.daemons.iter_mut().zip(&state) {
        daemon.folder.put("warren.yml", BASE);
        let command = state.run(daemon);
        daemon.start_as(command);
    }
    for a in 0..hosts {
        (0..a).for_each(|b| mesh.connect(a, b));
    }
    (mesh, state)
}

/// All SPIs of a host, IKE and ESP, by peer.
fn spis(mesh: &Mesh, host: usize) -> Vec<String> {
    let peers = (0..mesh.daemons.len()).filter(|peer| *peer != host);
    let of = |peer: usize| {
        let row = mesh.daemons[host].peer(mesh.address(peer));
        let (ike, child) = (&row["ike_sas"][0], &row["child_sas"][0]);
        assert_eq!(
            (row["ike_sas"].as_array().map(Vec::len), row["child_sas"].as_array().map(Vec::len)),
            (Some(1), Some(1)),
            "{row}"
        );
        format!("{} {} {} {}", ike["spi_i"], ike["spi_r"], child["spi_in"], child["spi_out"])
    };
    peers.map(of).collect()
}

/// # Panics
/// If two ESP packets of one SA have one sequence number: a nonce would have been used twice.
fn no_number_twice(packets: &[Packet]) -> usize {
    let mut seen = BTreeSet::new();
    for packet in packets.iter().filter(|p| protocol(p) == 50) {
        let header = usize::from(packet.bytes[0] & 15) * 4;
        let name = [&packet.bytes[16..20], &packet.bytes[header..header + 8]].concat();
        assert!(seen.insert(name.clone()), "SPI and number {name:?} twice");
    }
    seen.len()
}

fn start(mesh: &mut Mesh, state: &[Shm], host: usize, command: Option<Command>) -> Duration {
    let begin = Instant::now();
    let command = command.unwrap_or_else(|| state[host].run(&mesh.daemons[host]));
    mesh.daemons[host].start_as(command);
    begin.elapsed()
}

/// Another build: the same program, in another file of other bytes.
fn another_build(mesh: &Mesh, state: &Shm, host: usize) -> Command {
    let path = state.0.join("warren-next");
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_warren")).unwrap();
    bytes.extend_from_slice(b"another build");
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let usual = state.run(&mesh.daemons[host]);
    let mut command = Command::new(&path);
    command.args(usual.get_args()).stdin(std::process::Stdio::null());
    command.env("WARREN_OFFLOAD", "off");
    let netns = Netns::open(mesh.net.hosts[host].name()).unwrap();
    netns.confine(&mut command, &[]).unwrap();
    command
}

fn assert_nothing_lost(seen: &std::collections::BTreeMap<(usize, usize), Seen>) {
    for (pair, seen) in seen {
        assert!(seen.sent.len() > 100);
        assert_eq!(seen.lost(), 0, "{pair:?}: of {}", seen.sent.len());
    }
}

#[test]
fn a_stop_a_start_and_another_build_lose_nothing() {
    if !root() {
        return;
    }
    let (mut mesh, state) = mesh(4);
    let before: Vec<_> = (0..4).map(|host| spis(&mesh, host)).collect();
    let mut wire = mesh.net.watch(0);
    let mut packets = Vec::new();
    let streams = Streams::all(&mesh.net);
    let mut slowest = Duration::ZERO;
    for (host, signal, pause, replace) in [
        (0, Some(Signal::TERM), 0, false),
        (0, None, 1500, false),
        (1, Some(Signal::INT), 300, false),
        (0, Some(Signal::TERM), 0, true),
        // Two are without a daemon at once.
        (2, None, 0, false),
    ] {
        match signal {
            Some(signal) => mesh.daemons[host].signal(signal),
            None => drop(mesh.daemons[host].warren(&["stop"]).ok()),
        }
        assert!(mesh.daemons[host].ended().success());
        assert_eq!(state[host].holders().len(), 1);
        std::thread::sleep(Duration::from_millis(pause));
        let command = replace.then(|| another_build(&mesh, &state[host], host));
        slowest = slowest.max(start(&mut mesh, &state, host, command));
        eventually("the holder's end", || state[host].holders().is_empty().then_some(()));
        packets.extend(wire.seen());
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_nothing_lost(&streams.end());
    packets.extend(wire.seen());
    let after: Vec<_> = (0..4).map(|host| spis(&mesh, host)).collect();
    assert_eq!(after, before, "other SAs");
    let exchanges = exchanges(&packets);
    assert!(!exchanges.contains(&IKE_SA_INIT), "{exchanges:?}");
    assert!(no_number_twice(&packets) > 1000);
    assert!(slowest < Duration::from_secs(1), "in control again after {slowest:?}");
    // Keys of SAs that were taken over can be given out.
    let tables = mesh.daemons[0].folder.join("tables");
    mesh.daemons[0].warren(&["keys", "export", "--wireshark", tables.to_str().unwrap()]).ok();
    let esp = fs::read_to_string(tables.join("esp_sa")).unwrap();
    let spi = mesh.daemons[0].spis(mesh.address(1)).0;
    assert!(esp.to_lowercase().contains(&spi), "no key of {spi} in {} lines", esp.lines().count());
    // It is whole: rekeyed by what the new process knows.
    mesh.daemons[0].warren(&["rekey", "10.77.0.2"]).ok();
    eventually("a new SA", || (spis_now(&mesh, 0) != before[0]).then_some(()));
    mesh.connect(0, 1);
}

/// As [`spis`], while they change.
fn spis_now(mesh: &Mesh, host: usize) -> Vec<String> {
    let row = mesh.daemons[host].peer(mesh.address(1 - host));
    vec![row["child_sas"][0]["spi_in"].to_string(), row["ike_sas"][0]["spi_i"].to_string()]
}

#[test]
fn after_a_kill_every_pair_is_back_within_a_second() {
    if !root() {
        return;
    }
    // Also where only the others send.
    for only_others in [false, true] {
        let (mut mesh, state) = mesh(4);
        let pairs = (1..4).flat_map(|peer| [(peer, 0), (0, peer)]);
        let pairs: Vec<_> = pairs.filter(|(from, _)| !only_others || *from != 0).collect();
        let mut wire = mesh.net.watch(0);
        let streams = Streams::start(&mesh.net, pairs);
        std::thread::sleep(Duration::from_millis(200));
        mesh.daemons[0].signal(Signal::KILL);
        mesh.daemons[0].ended();
        assert_eq!(state[0].holders(), Vec::<u32>::new());
        std::thread::sleep(Duration::from_millis(500));
        let begin = Instant::now();
        start(&mut mesh, &state, 0, None);
        std::thread::sleep(Duration::from_millis(1500));
        for (pair, seen) in streams.end() {
            let back = seen.first_after(begin);
            println!("{pair:?}: back after {back:?}");
            assert!(back.is_some_and(|back| back <= Duration::from_secs(1)), "{pair:?}: {back:?}");
        }
        let packets = wire.seen();
        assert!(!exchanges(&packets).contains(&IKE_SA_INIT));
        no_number_twice(&packets);
    }
}

#[test]
fn a_holder_ends_with_its_folder_and_when_told_and_leaves_a_closed_door() {
    if !root() {
        return;
    }
    let (mut mesh, mut state) = mesh(2);
    for signal in [Some(Signal::TERM), None] {
        mesh.daemons[0].warren(&["stop"]).ok();
        mesh.daemons[0].ended();
        let holder = state[0].holders()[0];
        mesh.passes(0, 1, "while nobody is in control");
        match signal {
            Some(signal) => {
                let pid = Pid::from_raw(holder.try_into().unwrap()).unwrap();
                rustix::process::kill_process(pid, signal).unwrap();
            }
            None => state[0] = Shm::new(),
        }
        let gone = || (!Path::new(&format!("/proc/{holder}")).exists()).then_some(());
        eventually("the holder's end", gone);
        let mut wire = mesh.net.watch(0);
        for (from, to) in [(0, 1), (1, 0)] {
            let arrives = mesh.net.udp_arrives(from, to, "secret", Duration::from_millis(300));
            assert!(!arrives, "{from} -> {to}");
        }
        assert!(in_clear(&wire.seen(), "secret").is_empty());
        start(&mut mesh, &state, 0, None);
        mesh.connect(0, 1);
    }
    // With a flush there is nothing to hold.
    mesh.daemons[0].warren(&["stop", "--flush"]).ok();
    mesh.daemons[0].ended();
    assert_eq!(state[0].holders(), Vec::<u32>::new());
    assert_eq!(mesh.net.traces(0), Vec::<String>::new());
}

#[test]
fn who_listens_there_and_makes_no_sense_is_no_obstacle() {
    if !root() {
        return;
    }
    let (mut mesh, state) = mesh(2);
    let door = |state: &Shm| -> PathBuf { state.0.join("handover.sock") };
    for answer in [&b"WARREN"[..], b"noise noise", b""] {
        mesh.daemons[0].signal(Signal::KILL);
        mesh.daemons[0].ended();
        // A process of its own: who does not go is ended.
        let mut liar = Command::new(std::env::current_exe().unwrap())
            .args(["handovers::a_liar", "--exact", "--ignored"])
            .env("WARREN_TEST_LIAR", door(&state[0]))
            .env("WARREN_TEST_ANSWER", std::ffi::OsStr::from_bytes(answer))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        eventually("the liar", || door(&state[0]).exists().then_some(()));
        start(&mut mesh, &state, 0, None);
        let _ = liar.wait();
        assert!(mesh.daemons[0].log().contains("is not gone on with"));
        mesh.connect(0, 1);
    }
}

/// Started by the test above.
#[test]
#[ignore = "a process of a test"]
fn a_liar() {
    let Some(door) = std::env::var_os("WARREN_TEST_LIAR") else { return };
    let answer = std::env::var_os("WARREN_TEST_ANSWER").unwrap_or_default();
    let listener = UnixListener::bind(door).unwrap();
    // Once to be asked, once to be told to go; then the file lies there.
    for _ in 0..2 {
        use std::io::Write;
        let (mut caller, _) = listener.accept().unwrap();
        let _ = caller.write_all(answer.as_bytes());
    }
}

#[test]
fn a_holder_that_hangs_is_ended() {
    if !root() {
        return;
    }
    let (mut mesh, state) = mesh(2);
    mesh.daemons[0].warren(&["stop"]).ok();
    mesh.daemons[0].ended();
    let holder = Pid::from_raw(state[0].holders()[0].try_into().unwrap()).unwrap();
    rustix::process::kill_process(holder, Signal::STOP).unwrap();
    start(&mut mesh, &state, 0, None);
    assert_eq!(state[0].holders(), Vec::<u32>::new());
    mesh.connect(0, 1);
}

#[test]
fn by_hand_there_is_nothing_to_hold() {
    let daemon = crate::world::finish(crate::world::warren().args(["hold", "--state-dir", "/tmp"]));
    daemon.fails(2, &["is started by a daemon"]);
}
