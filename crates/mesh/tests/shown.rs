//! What other programs read: status, explain, metrics, events.

mod world;

use ipsec::dataplane::PacketInfo;
use mesh::event::Level;
use mesh::status::{CertificateLevel, State};
use mesh::{CertificateFact, CertificateRole, Command, Kind, Target};
use serde_json::{Value, json};
use world::{World, address, loaded, loaded_with, manifest, target};

const DAY: u64 = 86_400;

/// The value with everything that differs from run to run replaced by its kind.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), shape(v))).collect(),
        Value::Array(all) => all.iter().map(shape).collect(),
        Value::String(s) if s.len() >= 8 && s.bytes().all(|b| b.is_ascii_hexdigit()) => {
            json!(format!("{} hex digits", s.len()))
        }
        other => other.clone(),
    }
}

#[test]
fn status_keeps_its_shape() {
    let mut world = World::bare(2, 0);
    let text = manifest("cluster: west\npeers: [{address: 10.0.0.2, name: two}]\n");
    let mut first = loaded(&text, 0);
    first.certificates = vec![CertificateFact {
        subject: "CN=host".into(),
        serial: "0a".into(),
        not_after: world.clock().unix + 10 * DAY + 60,
        key_id: "ab".into(),
        ca: Some("cd".into()),
        role: CertificateRole::Leaf,
    }];
    world.load(0, first);
    world.load(1, loaded(&text, 1));
    world.send(0, 1, b"hello");
    world.seconds(10);
    let status = serde_json::to_value(world.hosts[0].mesh.status(world.clock())).unwrap();
    let peer = &status["peers"][0];
    let rekey = |value: &Value| value["rekey_in_s"].as_u64().unwrap();
    assert!((68_000..86_400).contains(&rekey(&peer["ike_sas"][0])));
    assert!((22_000..31_680).contains(&rekey(&peer["child_sas"][0])));
    let mut seen = shape(&status);
    let seen_peer = &mut seen["peers"][0];
    seen_peer["ike_sas"][0]["rekey_in_s"] = json!(0);
    seen_peer["child_sas"][0]["rekey_in_s"] = json!(0);
    seen_peer["owner"] = json!(true);
    assert_eq!(
        seen,
        json!({
            "node": {
                "address": "10.0.0.1", "addresses": ["10.0.0.1"], "name": "host-0", "version": "0.1.0",
                "started_at": "2027-01-15T08:00:00Z", "data_plane": "userspace", "optional": false,
                "cluster": "west",
                "manifest": {
                    "path": "/etc/warren/ipsec.yml", "sha256": "64 hex digits",
                    "loaded_at": "2027-01-15T08:00:01Z",
                },
                "certificates": [{
                    "subject": "CN=host", "serial": "0a", "not_after": "2027-01-25T08:01:01Z",
                    "days_left": 10, "role": "leaf", "level": "warn",
                    "key_id": "ab", "ca": "cd",
                }],
                "drift_repaired": 0,
                "ike": { "dropped": {}, "half_open": 0, "turned_away": {} },
                "drift": {
                    "policies_missing": 0, "policies_altered": 0, "policies_extra": 0,
                    "sas_missing": 0, "sas_altered": 0, "sas_extra": 0, "left_behind": 0,
                },
                "refusals": 0, "waiting_for": "the next look at the data plane",
            },
            "peers": [{
                "address": "10.0.0.2", "name": "two", "state": "up", "verdict": "ok",
                "reason": "the tunnel stands, last heard 8 s ago", "last_error": null,
                "owner": true, "retry_in_s": null, "failures": 0, "certificate": null,
                "ike_sas": [{
                    "spi_i": "16 hex digits", "spi_r": "16 hex digits", "version": 2,
                    "local": "10.0.0.1:500", "remote": "10.0.0.2:500",
                    "role": "initiator", "state": "established", "age_s": 9, "rekey_in_s": 0,
                    "suite": "aes128-sha256-modp2048", "remote_id": "10.0.0.2",
                }],
                "child_sas": [{
                    "spi_in": "8 hex digits", "spi_out": "8 hex digits", "mode": "transport",
                    "suite": "aes128gcm16", "local_ts": ["10.0.0.1/32"], "remote_ts": ["10.0.0.2/32"],
                    "bytes_in": 0, "bytes_out": 13, "packets_in": 0, "packets_out": 1,
                    "age_s": 9, "rekey_in_s": 0, "encap": false, "compression": null,
                }],
            }],
        })
    );
}

#[test]
fn a_packet_is_explained() {
    let text = manifest("policies: [{action: pass, proto: tcp, remote_port: 22, name: ssh}]\n");
    let mut world = World::new(2, &text);
    world.send(0, 1, b"x");
    world.seconds(1);
    let explain = |dst: [u8; 4], port| {
        let (src_port, dst_port) = (Some(40_000), Some(port));
        let packet =
            PacketInfo { src: address(0), dst: dst.into(), protocol: 6, src_port, dst_port };
        world.hosts[0].mesh.explain(world.clock(), packet).unwrap()
    };
    let web = explain([10, 0, 0, 2], 80);
    assert_eq!((web.decision.as_str(), web.peer.unwrap().state), ("protect", State::Up));
    assert!(web.considered.last().unwrap().matches && web.because.contains("ipsec_subnets"));
    assert!(web.considered.iter().any(|c| c.policy.contains("ssh") && !c.matches));
    let ssh = explain([10, 0, 0, 2], 22);
    assert_eq!((ssh.decision.as_str(), ssh.peer), ("pass", None));
    let outside = explain([192, 0, 2, 1], 80);
    assert_eq!(
        (outside.decision.as_str(), outside.because.as_str()),
        ("pass", "no policy is for it")
    );
}

#[test]
fn certificates_are_spoken_of_by_their_periods() {
    let cases = [
        (40, CertificateLevel::Ok, None),
        (30, CertificateLevel::Info, Some(Level::Info)),
        (14, CertificateLevel::Warn, Some(Level::Warn)),
        (7, CertificateLevel::Error, Some(Level::Error)),
        (3, CertificateLevel::Critical, Some(Level::Critical)),
        (-1, CertificateLevel::Expired, Some(Level::Critical)),
    ];
    for (days, level, loud) in cases {
        let mut world = World::bare(1, 0);
        let mut first = loaded(&manifest(""), 0);
        let not_after = world.clock().unix.checked_add_signed(days * DAY as i64).unwrap();
        first.certificates = vec![CertificateFact {
            subject: "CN=x".into(),
            serial: "01".into(),
            not_after,
            key_id: "ab".into(),
            ca: None,
            role: CertificateRole::Ca,
        }];
        world.load(0, first);
        let shown = &world.hosts[0].mesh.status(world.clock()).node.certificates[0];
        assert_eq!((shown.level, shown.days_left), (level, days));
        world.seconds(3 * 3600);
        let said: Vec<_> = world.hosts[0].events.iter().map(|(_, e)| e).collect();
        let said: Vec<_> =
            said.iter().filter(|e| e.text.contains("CN=x")).map(|e| e.level).collect();
        assert_eq!(said, Vec::from_iter(loud), "said once at {days} days");
        world.seconds(DAY);
        let again = world.hosts[0].events.iter().filter(|(_, e)| e.text.contains("CN=x")).count();
        assert!(again == if loud.is_some() { 2 } else { 0 }, "and once a day: {again}");
    }
}

#[test]
fn optional_is_warned_of_as_long_as_it_is_on() {
    let mut world = World::new(1, &manifest("optional: true\noptional_warn_interval: 2\n"));
    world.seconds(6 * 3600 + 60);
    assert_eq!(world.count(0, Kind::Optional), 4);
    world.load_all(&manifest(""));
    world.seconds(6 * 3600);
    assert_eq!(world.count(0, Kind::Optional), 4);
}

#[test]
fn an_event_is_one_object() {
    let mut world = World::new(2, &manifest("peers: [{address: 10.0.0.2, name: two}]\n"));
    world.command(0, Command::Down(Target::Name("two".into())));
    let (_, event) = world.hosts[0].events.last().unwrap();
    assert_eq!(
        serde_json::to_value(event).unwrap(),
        json!({
            "time": 1_800_000_001, "level": "info", "peer": "10.0.0.2", "name": "two",
            "event": "peer-state", "text": "by command: down, and refused until `up`",
        })
    );
}

#[test]
fn metrics_count() {
    let mut world = World::new(2, &manifest(""));
    world.send(0, 1, b"x");
    world.seconds(3);
    let samples = world.hosts[0].mesh.metrics(world.clock());
    let value = |name: &str, label: Option<&str>| {
        let has = |s: &&mesh::metrics::Sample| {
            s.name == name && label.is_none_or(|l| s.labels.iter().any(|(_, v)| v == l))
        };
        samples.iter().find(has).unwrap_or_else(|| panic!("{name}")).value
    };
    assert_eq!(value("warren_peers", Some("up")), 1.0);
    assert_eq!(value("warren_ike_sas_established_total", None), 1.0);
    assert_eq!(value("warren_esp_sas", None), 2.0);
    assert_eq!(value("warren_acquires_total", None), 1.0);
    let mut names: Vec<_> = samples.iter().map(|s| (s.name, format!("{:?}", s.labels))).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all, "each sample once");
    assert!(samples.iter().all(|s| s.name.starts_with("warren_")));
}

#[test]
fn an_idle_peer_is_small() {
    let size = size_of::<mesh::peer::Peer>()
        + size_of::<mesh::peer::Ike>()
        + size_of::<mesh::peer::Child>();
    assert!(size <= 640, "{size} bytes a peer");
    let mut world = World::new(2, &manifest(""));
    world.command(0, Command::Down(target(1)));
    world.command(0, Command::Up(target(1)));
    world.seconds(30);
    world.assert_one_tunnel(0, 1);
}

#[test]
fn unknown_idle_peers_are_forgotten() {
    let mut world = World::new(2, &manifest(""));
    world.send(0, 9, b"nobody");
    world.seconds(5);
    assert_eq!(world.hosts[0].mesh.status(world.clock()).peers.len(), 1);
    world.seconds(3600);
    assert_eq!(world.hosts[0].mesh.status(world.clock()).peers, []);
}

#[test]
fn a_level_is_spoken_of_when_it_is_reached() {
    let mut world = World::bare(1, 0);
    let mut first = loaded(&manifest(""), 0);
    first.certificates = vec![CertificateFact {
        subject: "CN=x".into(),
        serial: "01".into(),
        not_after: world.clock().unix + 90,
        key_id: "ab".into(),
        ca: None,
        role: CertificateRole::Leaf,
    }];
    world.load(0, first);
    world.seconds(89);
    assert_eq!((world.count(0, Kind::CertExpires), world.count(0, Kind::CertExpired)), (1, 0));
    world.seconds(3);
    assert_eq!((world.count(0, Kind::CertExpires), world.count(0, Kind::CertExpired)), (1, 1));
    let of = |level: &mesh::metrics::Sample| level.name == "warren_certificate_level";
    let samples = world.hosts[0].mesh.metrics(world.clock());
    assert_eq!(samples.iter().find(|sample| of(sample)).map(|sample| sample.value), Some(5.0));
}

#[test]
fn what_failed_under_another_proof_does_not_delay_a_new_one() {
    let mut world = World::bare(2, 0);
    let other = "another shared secret that is long enough";
    world.load(0, loaded(&manifest(""), 0));
    world.load(1, loaded_with(&manifest(""), 1, other));
    for _ in 0..100 {
        world.send(0, 1, b"there");
        world.send(1, 0, b"back");
        world.seconds(1);
    }
    // It has waited for so long that it would go on to.
    assert!(world.peer(1, 0).retry_in_s > Some(5), "{}", world.story(1, 0));
    world.load(1, loaded(&manifest(""), 1));
    world.seconds(5);
    world.assert_one_tunnel(0, 1);
}
