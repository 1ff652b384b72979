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
