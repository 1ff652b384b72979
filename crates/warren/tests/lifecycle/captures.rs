//! `capture`: what is inside the tunnel, as a list and as a file.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;

use crate::world::{eventually, finish, root, warren};
use crate::{BASE, Mesh};

#[test]
fn a_capture_has_what_is_inside_the_tunnel_with_one_peer() {
    if !root() {
        return;
    }
    let mesh = Mesh::start(3, BASE);
    mesh.connect(0, 1);
    mesh.connect(0, 2);
    let one = &mesh.daemons[0];
    if one.json(&["status"])["node"]["data_plane"] != "userspace" {
        eprintln!("SKIPPED: a kernel with ESP keeps the inside to itself");
        return;
    }
    let mut child = one.typed(&["capture", "10.77.0.2", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (stop, seen) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Until the watch stands nothing is seen.
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                mesh.passes(0, 2, "not asked for");
                mesh.passes(0, 1, "asked for");
            }
        });
        let mut told = 0;
        while told < 3 {
            let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            let ends = [line["src"].as_str().unwrap(), line["dst"].as_str().unwrap()];
            seen.fetch_or(!ends.contains(&"10.77.0.2") || ends.contains(&"10.77.0.3"), Relaxed);
            told += i32::from(line["protocol"] == 17);
        }
        stop.store(true, Relaxed);
    });
    assert!(!seen.load(Relaxed), "packets of another peer were shown");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_captured_file_holds_whole_packets_in_the_clear() {
    if !root() {
        return;
    }
    let mesh = Mesh::pair(BASE);
    let one = &mesh.daemons[0];
    if one.json(&["status"])["node"]["data_plane"] != "userspace" {
        eprintln!("SKIPPED: a kernel with ESP keeps the inside to itself");
        return;
    }
    let file = one.folder.join("inside.pcap");
    let path = file.to_str().unwrap();
    let mut child = one.typed(&["capture", "-w", path, "--count", "5"]).spawn().unwrap();
    eventually("the end of the capture", || {
        mesh.passes(0, 1, "a text that is inside");
        child.try_wait().unwrap()
    });
    let bytes = std::fs::read(&file).unwrap();
    let text = b"a text that is inside";
    assert!(bytes.windows(text.len()).any(|window| window == text));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let decoded = finish(warren().arg("decode").arg(&file)).ok();
    assert!(decoded.contains("no IKE and no ESP among 5 packets"), "{decoded}");
    // Nothing passes, and the time is over.
    one.warren(&["capture", "10.77.0.2", "--seconds", "1"]).ok();
    one.warren(&["capture", "10.99.0.2"]).fails(1, &["10.99.0.2", "not a peer"]);
}
