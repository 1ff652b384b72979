//! `status`, `explain`, `plan`, `check` and `monitor`: their shape is relied upon.

use std::io::{BufRead, BufReader};

use serde_json::Value;

use crate::world::{assert_narrow, eventually, finish, root, warren};
use crate::{BASE, Mesh, NAMES};

fn keys(value: &Value, strings: &[&str], numbers: &[&str]) {
    for key in strings {
        assert!(value[key].is_string(), "{key} of {value:#}");
    }
    for key in numbers {
        assert!(value[key].is_u64() || value[key].is_i64(), "{key} of {value:#}");
    }
}

fn one_of(value: &Value, key: &str, allowed: &[&str]) {
    assert!(allowed.iter().any(|word| value[key] == *word), "{key} of {value:#}");
}

fn text_or_null(value: &Value, key: &str) {
    let found = value.get(key).unwrap_or_else(|| panic!("no {key} in {value:#}"));
    assert!(found.is_null() || found.is_string(), "{key} of {value:#}");
}

fn check_node(node: &Value) {
    keys(node, &["address", "version", "started_at", "data_plane"], &[]);
    one_of(node, "data_plane", &["kernel", "userspace"]);
    assert!(node["optional"].is_boolean());
    text_or_null(node, "cluster");
    keys(&node["manifest"], &["path", "sha256", "loaded_at"], &[]);
    for certificate in node["certificates"].as_array().unwrap() {
        keys(certificate, &["subject", "serial", "not_after"], &["days_left"]);
        one_of(certificate, "role", &["leaf", "ca"]);
        let levels = ["ok", "info", "warn", "error", "critical", "expired"];
        one_of(certificate, "level", &levels);
    }
}

fn check_peer(peer: &Value) {
    keys(peer, &["address", "reason"], &[]);
    text_or_null(peer, "name");
    text_or_null(peer, "last_error");
    one_of(peer, "state", &["idle", "connecting", "half_up", "up", "down"]);
    let verdicts = ["ok", "network_down", "ipsec_broken", "peer_down", "unknown"];
    one_of(peer, "verdict", &verdicts);
    for ike in peer["ike_sas"].as_array().unwrap() {
        keys(
            ike,
            &["spi_i", "spi_r", "role", "state", "suite", "remote_id"],
            &["version", "age_s", "rekey_in_s"],
        );
        assert!(ike["spi_i"].as_str().unwrap().len() == 16, "{ike:#}");
    }
    for child in peer["child_sas"].as_array().unwrap() {
        keys(
            child,
            &["spi_in", "spi_out", "mode", "suite"],
            &["bytes_in", "bytes_out", "packets_in", "packets_out", "age_s", "rekey_in_s"],
        );
        assert!(child["spi_in"].as_str().unwrap().len() == 8, "{child:#}");
        assert!(child["encap"].is_boolean());
        for side in ["local_ts", "remote_ts"] {
            let selectors = child[side].as_array().unwrap();
            assert!(!selectors.is_empty() && selectors.iter().all(Value::is_string), "{child:#}");
        }
    }
}

/// Certificates from the program itself, by reference.
pub fn credentials(folder: &std::path::Path) -> String {
    let pki = |args: &[&str]| {
        finish(warren().arg("pki").args(args).arg("--dir").arg(folder)).ok();
    };
    pki(&["init", "--key", "p256"]);
    pki(&["issue", "--key", "p256", "--days", "10"]);
    let at = folder.display();
    format!(
        "ipsec_subnets: [10.77.0.0/24]\ninstance_certificate: file:{at}/warren-instance.pem\n\
         instance_private_key: file:{at}/warren-instance.key\nca_certificates: ['file:{at}/ca.pem']\n"
    )
}

#[test]
fn status_has_the_shape_that_was_promised() {
    if !root() {
        return;
    }
    let folder = crate::world::Folder::new();
    let manifest = format!("{}{NAMES}cluster: west\n", credentials(&folder));
    let mesh = Mesh::start(3, &manifest);
    mesh.connect(0, 1);
    let status = mesh.daemons[0].json(&["status"]);
    check_node(&status["node"]);
    assert_eq!(status["node"]["address"], "10.77.0.1");
    assert_eq!(status["node"]["cluster"], "west");
    assert_eq!(status["node"]["optional"], false);
    let levels: Vec<_> = status["node"]["certificates"].as_array().unwrap().iter().collect();
    assert!(levels.iter().any(|c| c["role"] == "leaf" && c["level"] == "warn"), "{levels:#?}");
    assert!(levels.iter().any(|c| c["role"] == "ca" && c["level"] == "ok"), "{levels:#?}");
    let peers = status["peers"].as_array().unwrap();
    peers.iter().for_each(check_peer);
    let row = peers.iter().find(|peer| peer["address"] == "10.77.0.2").unwrap();
    assert_eq!((row["name"].as_str(), row["state"].as_str()), (Some("two"), Some("up")));
    assert_eq!(row["verdict"], "ok");
    assert_eq!(row["ike_sas"][0]["version"], 2);
    assert_eq!(row["ike_sas"][0]["suite"], "aes128-sha256-modp2048");
    assert_eq!(row["child_sas"][0]["suite"], "aes128gcm16");
    assert_eq!(row["child_sas"][0]["mode"], "transport");
    assert!(row["ike_sas"][0]["remote_id"].as_str().unwrap().contains("warren-instance"));
    // One alone is the same row; both ends agree on SPIs.
    let alone = mesh.daemons[0].json(&["status", "two"]);
    check_peer(&alone);
    assert_eq!(alone["child_sas"][0]["spi_in"], row["child_sas"][0]["spi_in"]);
    let other = mesh.daemons[1].json(&["status", "one"]);
    assert_eq!(alone["child_sas"][0]["spi_in"], other["child_sas"][0]["spi_out"]);
    assert_eq!(alone["child_sas"][0]["spi_out"], other["child_sas"][0]["spi_in"]);
    assert_eq!(alone["ike_sas"][0]["spi_i"], other["ike_sas"][0]["spi_i"]);
}

#[test]
fn text_fits_a_terminal() {
    if !root() {
        return;
    }
    let policies = "policies:\n- {action: pass, proto: tcp, remote: 10.77.0.0/24, local_port: 8000-8100, name: a rather long name of an exception to it all}\n- {action: pass, proto: udp, remote_port: 123}\n";
    let manifest = format!(
        "{BASE}peers:\n- {{address: 10.77.0.2, name: a-host-with-quite-a-long-name.example.internal}}\n{policies}"
    );
    let mesh = Mesh::pair(&manifest);
    let one = &mesh.daemons[0];
    one.warren(&["up", "10.77.0.44"]).ok();
    let changed = one.folder.put("changed.yml", manifest.replace("action: pass", "action: drop"));
    let path = one.manifest();
    for args in [
        &["status"][..],
        &["status", "10.77.0.2"],
        &["explain", "10.77.0.1", "10.77.0.2", "tcp", "22"],
        &["explain", "fd77::1:2:3:4", "10.77.0.2"],
        &["check", path.to_str().unwrap()],
        &["plan", changed.to_str().unwrap()],
    ] {
        let text = one.warren(args).ok();
        assert_narrow(&text);
        assert!(!text.contains('\x1b'), "colour outside a terminal: {text:?}");
        assert!(text.lines().count() > 1 || args[0] == "plan", "{text}");
    }
}

#[test]
fn explain_says_what_decides_and_where_its_sa_stands() {
    if !root() {
        return;
    }
    let more = "no_ipsec_subnets: [10.77.0.3/32]\npolicies:\n- {action: pass, proto: tcp, remote_port: 22, name: ssh}\n- {action: drop, proto: udp, remote_port: 53}\n";
    let mesh = Mesh::pair(&format!("{BASE}{more}"));
    let one = &mesh.daemons[0];
    let explain = |args: &[&str]| one.json(&[&["explain", "10.77.0.1"], args].concat());
    for (args, decision, because) in [
        (&["10.77.0.2"][..], "protect", "ipsec_subnets"),
        (&["10.77.0.2", "tcp", "80"], "protect", "ipsec_subnets"),
        (&["10.77.0.2", "tcp", "22"], "pass", "ssh"),
        (&["10.77.0.2", "udp", "53"], "drop", "line 6"),
        (&["10.77.0.3"], "pass", "no_ipsec_subnets"),
        (&["10.99.0.3"], "pass", ""),
    ] {
        let answer = explain(args);
        assert_eq!(answer["decision"], decision, "{args:?}: {answer:#}");
        assert!(answer["because"].as_str().unwrap().contains(because), "{args:?}: {answer:#}");
        let considered = answer["considered"].as_array().unwrap();
        let order: Vec<_> = considered.iter().map(|c| c["priority"].as_u64().unwrap()).collect();
        assert!(order.is_sorted(), "{answer:#}");
        let state = if decision == "protect" { Value::from("up") } else { Value::Null };
        assert_eq!(answer["peer"]["state"], state, "{answer:#}");
    }
    // The other way round: what comes in.
    let answer = one.json(&["explain", "10.77.0.2", "10.77.0.1", "tcp", "80"]);
    assert_eq!(answer["decision"], "protect", "{answer:#}");
}

#[test]
fn monitor_gives_json_lines_until_the_end() {
    if !root() {
        return;
    }
    let mut mesh = Mesh::start(2, BASE);
    let mut child = mesh.daemons[0].typed(&["monitor", "--json"]).spawn().unwrap();
    let mut readable = mesh.daemons[0].typed(&["monitor"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    mesh.daemons[0].warren(&["up", "10.77.0.2"]).ok();
    let mut kinds = Vec::new();
    while !kinds.contains(&"child-up".to_owned()) {
        let line = lines.next().expect("the stream ended").unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        keys(&event, &["level", "event", "text"], &["time"]);
        kinds.push(event["event"].as_str().unwrap().to_owned());
        if kinds.contains(&"child-up".to_owned()) {
            assert_eq!(event["peer"], "10.77.0.2");
        }
    }
    assert!(kinds.contains(&"ike-up".to_owned()), "{kinds:?}");
    mesh.daemons[0].warren(&["stop"]).ok();
    assert!(mesh.daemons[0].ended().success());
    lines.for_each(|line| drop(serde_json::from_str::<Value>(&line.unwrap()).unwrap()));
    assert!(eventually("the end of monitor", || child.try_wait().unwrap()).success());
    eventually("the end of monitor", || readable.try_wait().unwrap());
    let shown = std::io::read_to_string(readable.stdout.unwrap()).unwrap();
    assert!(shown.contains("child-up") && shown.contains("10.77.0.2"), "{shown}");
}
