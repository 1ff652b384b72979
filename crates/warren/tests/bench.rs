//! `warren bench` as it is typed: it measures something, and nothing stays.
#![allow(clippy::disallowed_methods, reason = "tests of the program use files and processes")]

mod world;

use linux::netns::Netns;
use serde_json::Value;
use world::{Ended, root, warren};

#[test]
fn esp_is_measured_beside_the_bare_wire_and_nothing_stays() {
    if !root() {
        return;
    }
    let child = warren().args(["bench", "esp", "--json", "--seconds", "1"]).spawn().unwrap();
    let name = format!("warren-bench-{}", child.id());
    let shown = Ended::of(child.wait_with_output().unwrap()).ok();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    for what in ["bare_wire", "esp"] {
        for figure in ["tcp_1_mbit_per_s", "tcp_4_mbit_per_s", "small_kpps", "large_kpps"] {
            assert!(shown[what][figure].as_f64().unwrap() > 0.0, "{what} {figure}: {shown:#}");
        }
        let (p50, p99) = (&shown[what]["rtt_p50_us"], &shown[what]["rtt_p99_us"]);
        assert!(p50.as_f64().unwrap() <= p99.as_f64().unwrap(), "{shown:#}");
    }
    let cpu = shown["esp"]["cpu_s_per_gb"].as_array().unwrap();
    assert!(cpu.len() == 2 && cpu.iter().all(|cpu| cpu.as_f64() > Some(0.0)), "{shown:#}");
    assert!(shown["cipher"]["gb_per_s"].as_f64().unwrap() > 0.0, "{shown:#}");
    assert!(!Netns::list().iter().any(|netns| netns.starts_with(&name)));
    assert!(!std::path::Path::new("/run").join(&name).exists());
}

fn shown(arguments: &[&str]) -> Value {
    let ended = warren().arg("bench").args(arguments).arg("--json").output().unwrap();
    serde_json::from_str(&Ended::of(ended).ok()).unwrap()
}

#[test]
fn handshakes_are_measured_beside_the_bare_cryptography() {
    let shown = shown(&["ike", "--peers", "2,5", "--suite", "x25519-p256"]);
    let rows = shown["handshakes"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["peers"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 5]);
    for row in rows {
        // Whoever needs less than the cryptography has not done it.
        let bare = row["bare_ms"].as_f64().unwrap();
        for side in ["initiator_ms", "responder_ms"] {
            assert!(bare > 0.0 && row[side].as_f64().unwrap() > bare / 2.0, "{side}: {row:#}");
        }
    }
}

#[test]
fn a_reload_that_adds_one_peer_touches_no_sa_of_another() {
    let shown = shown(&["mesh", "--peers", "20"]);
    let row = &shown["mesh"][0];
    assert_eq!((&row["peers"], &row["touched"]), (&20.into(), &0.into()), "{row:#}");
    for figure in ["status_ms", "packet_us", "read_ms", "reload_ms", "idle_percent"] {
        assert!(row[figure].as_f64().unwrap() > 0.0, "{figure}: {row:#}");
    }
}

#[test]
fn a_large_manifest_is_measured() {
    let shown = shown(&["manifest", "--entries", "10,300"]);
    let rows = shown["manifest"].as_array().unwrap();
    assert!(rows[1]["bytes"].as_u64() > rows[0]["bytes"].as_u64(), "{shown:#}");
    assert!(rows[1]["read_ms"].as_f64() > Some(0.0), "{shown:#}");
}
