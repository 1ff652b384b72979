//! What can stand in the way of a daemon whose manifest is good.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use serde_json::Value;

use crate::world::daemon::Daemon;
use crate::world::net::Net;
use crate::world::{finish, root};
use crate::{Judge, PSK};

fn good() -> String {
    format!("ipsec_subnets: [10.77.0.0/24]\n{PSK}")
}

#[test]
fn a_port_that_is_in_use() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    judge.daemon.folder.put("warren.yml", good());
    for address in ["0.0.0.0:500", "0.0.0.0:4500", "10.77.0.1:500", "[::]:4500"] {
        let _held = judge.net.hosts[0].run(|| UdpSocket::bind(address).unwrap());
        let port = address.rsplit(':').next().unwrap();
        judge.daemon.refused_start().refused(&[port, "in use", "stop it"]);
        judge.nothing_stays();
    }
}

#[test]
fn a_second_daemon() {
    if !root() {
        return;
    }
    let net = Net::new(&["10.77.0.1"], 24);
    let mut first = Daemon::new(&net.hosts[0], net.addresses[0]);
    first.start(&good());
    let before = net.traces(0);
    // The same folder for its state.
    let mut again = first.run_command();
    again.stdout(Stdio::piped()).stderr(Stdio::piped());
    let pid = first.pid().as_raw_nonzero().to_string();
    finish(&mut again).refused(&["already running", &pid, "stop it"]);
    // The same control socket.
    let mut again = first.typed(&["run"]);
    again.arg("-m").arg(first.manifest()).arg("--state-dir").arg(first.folder.join("other"));
    finish(&mut again).refused(&["another daemon", "control.sock"]);
    // Nothing in common but the host.
    let second = Daemon::new(&net.hosts[0], net.addresses[0]);
    second.folder.put("warren.yml", good());
    second.refused_start().refused(&["in use"]);
    assert!(!second.control().exists());
    assert_eq!(net.traces(0), before, "the second daemon took something of the first");
    assert!(first.is_running());
    first.warren(&["status"]).ok();
}

#[test]
fn no_privilege() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let folder = &judge.daemon.folder;
    folder.put("warren.yml", good());
    let program = folder.join("warren");
    fs::copy(env!("CARGO_BIN_EXE_warren"), &program).unwrap();
    let mut command = std::process::Command::new(program);
    command
        .arg("run")
        .arg("-m")
        .arg(judge.daemon.manifest())
        .arg("--control")
        .arg(folder.join("c"));
    command.arg("--state-dir").arg(folder.join("s")).uid(65534).gid(65534);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // Entered by root: afterwards nobody may.
    let ended = judge.net.hosts[0].run(|| finish(&mut command));
    ended.refused(&["CAP_NET_ADMIN", "root"]);
    judge.nothing_stays();
    // Nobody may speak to root's daemon either.
    let mut daemon = Daemon::new(&judge.net.hosts[0], judge.net.addresses[0]);
    daemon.start(&good());
    let mut command = std::process::Command::new(folder.join("warren"));
    command.arg("--control").arg(daemon.control()).arg("status").uid(65534).gid(65534);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(&mut command).fails(3, &["Permission denied", "root"]);
}

#[test]
fn a_state_directory_that_is_none() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    judge.daemon.folder.put("warren.yml", good());
    judge.daemon.folder.put("state", "a file");
    judge.daemon.refused_start().refused(&["state directory"]);
    judge.nothing_stays();
}

#[test]
fn a_control_socket_where_none_can_be() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let manifest = judge.daemon.folder.put("warren.yml", good());
    let file = judge.daemon.folder.put("precious", "keep me");
    let long = judge.daemon.folder.join("x".repeat(120));
    let folder = judge.daemon.folder.join("folder");
    fs::create_dir(&folder).unwrap();
    for path in [&file, &long, &folder, &file.join("below")] {
        let mut command = crate::world::warren();
        command.arg("--control").arg(path).arg("run").arg("-m").arg(&manifest);
        command.arg("--state-dir").arg(judge.daemon.folder.join("state"));
        judge.net.hosts[0].confine(&mut command, &[]).unwrap();
        finish(&mut command).refused(&["control socket", path.to_str().unwrap()]);
        judge.nothing_stays();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "keep me", "a file was replaced by a socket");
}

#[test]
fn a_proposal_that_the_other_side_refuses() {
    if !root() {
        return;
    }
    let net = Net::new(&["10.77.0.1", "10.77.0.2"], 24);
    let mut daemons: Vec<Daemon> =
        (0..2).map(|n| Daemon::new(&net.hosts[n], net.addresses[n])).collect();
    let lists = ["aes128-sha256-modp2048", "aes256-sha384-ecp384"];
    for (daemon, list) in daemons.iter_mut().zip(lists) {
        daemon.start(&format!("{}ike_proposals: {list}\n", good()));
    }
    daemons[0].warren(&["up", "10.77.0.2"]).ok();
    let both = |row: &Value| {
        let shown = format!("{} {}", row["reason"], row["last_error"]);
        lists.iter().all(|list| shown.to_lowercase().contains(list))
    };
    for (n, peer) in [(0, 1), (1, 0)] {
        let row = daemons[n].until(net.addresses[peer], "both lists", both);
        assert_ne!(row["state"], "up");
        assert_eq!(row["verdict"], "ipsec_broken", "{row:#}");
        let shown = daemons[n].warren(&["status", &net.addresses[peer].to_string()]);
        assert_eq!(shown.code, Some(1));
        assert!(lists.iter().all(|list| shown.out.to_lowercase().contains(list)), "{shown:#?}");
    }
    // The list of all peers says why too.
    assert!(daemons[0].warren(&["status"]).ok().contains("proposal"));
}

#[test]
fn esp_proposals_that_the_other_side_refuses() {
    if !root() {
        return;
    }
    let net = Net::new(&["10.77.0.1", "10.77.0.2"], 24);
    let mut daemons: Vec<Daemon> =
        (0..2).map(|n| Daemon::new(&net.hosts[n], net.addresses[n])).collect();
    let lists = ["aes128gcm16", "aes256-sha256"];
    for (daemon, list) in daemons.iter_mut().zip(lists) {
        daemon.start(&format!("{}esp_proposals: {list}\n", good()));
    }
    daemons[0].warren(&["up", "10.77.0.2"]).ok();
    let both = |row: &Value| {
        let shown = format!("{} {}", row["reason"], row["last_error"]).to_lowercase();
        lists.iter().all(|list| shown.contains(list))
    };
    for (n, peer) in [(0, 1), (1, 0)] {
        let row = daemons[n].until(net.addresses[peer], "both lists", both);
        assert_ne!(row["state"], "up");
    }
}
