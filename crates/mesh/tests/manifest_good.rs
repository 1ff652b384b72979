//! Manifests that are taken: the three shapes, and what their values mean.

mod manifest_support;

use std::time::Duration;

use ipsec::sa::Mode;
use manifest_support::*;
use mesh::manifest::*;

const DAY: Duration = Duration::from_secs(86_400);

/// Takes the map `ipsec:` out of the guide's file, and its content.
fn shapes() -> [String; 3] {
    let inside: Vec<&str> =
        GUIDE.lines().skip_while(|line| line.trim() != "ipsec:").map(|line| &line[4..]).collect();
    let content: Vec<&str> = inside[1..].iter().map(|line| &line[2..]).collect();
    [GUIDE.to_owned(), inside.join("\n"), content.join("\n")]
}

#[test]
fn three_shapes_mean_the_same() {
    for text in shapes() {
        let (m, notes) = ok(&text);
        assert_eq!(m.ipsec_subnets, ["10.0.0.0/20".parse().unwrap()]);
        let clear: Vec<String> = m.no_ipsec_subnets.iter().map(|net| net.to_string()).collect();
        assert_eq!(clear, ["10.0.1.10/32", "10.0.1.4/32"]);
        let Credentials::Certificates(c) = &*m.credentials else { panic!("no certificates") };
        assert!(c.instance_certificate.starts_with("-----BEGIN CERTIFICATE-----\nMIIEMD"));
        assert!(
            c.instance_private_key.expose().starts_with(b"-----BEGIN RSA PRIVATE KEY-----\nMIIEog")
        );
        assert_eq!(c.ca_certificates.len(), 2);
        assert_eq!(m.ike_proposals.text, ["aes128-sha256-modp2048"]);
        assert_eq!(m.esp_proposals.text, ["aes128gcm16"]);
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].message.contains("host bits"));
    }
}

#[test]
fn the_manifest_of_1_5() {
    let old = GUIDE
        .replace("- name: ipsec\n  version: 1.8.12", "- {name: ipsec, version: 1.0.0}")
        .lines()
        .filter(|line| {
            let unknown_then =
                ["optional", "esp_", "ike_", "log_", "force_", "instance_certificate_"];
            !unknown_then.iter().any(|name| line.trim_start().starts_with(name))
        })
        .collect::<Vec<_>>()
        .join("\n");
    let (m, _) = ok(&old);
    assert!(!m.optional);
    assert_eq!(m.prestart_timeout, Duration::from_secs(30));
    assert_eq!(m.log_level, LogLevel(1));
}

#[test]
fn properties_of_the_job_come_before_those_of_the_addon() {
    let text = format!(
        "addons:\n- name: a\n  jobs:\n  - name: other\n  - name: ipsec\n    properties:\n      ipsec:\n        \
         ipsec_subnets: [10.1.0.0/16]\n        psk: {PSK}\n  properties:\n    ipsec:\n      nonsense: true\n\
         - name: b\n  jobs: [{{name: logs, release: x}}]\n"
    );
    assert_eq!(ok(&text).0.ipsec_subnets[0].to_string(), "10.1.0.0/16");
}

#[test]
fn windows_half() {
    let windows = GUIDE
        .replace("name: ipsec\n    release", "name: ipsec-win\n    release")
        .replace("- name: ipsec\n  version: 1.8.12\naddons:\n", "")
        .replace("releases:\n", "")
        .replace("      prestart_timeout: 30", "      main_mode_proposals:\n      - encryption: AES128\n        hash: SHA256\n        keyexchange: DH14\n      quick_mode_proposals:\n        encryption: AESGCM128\n        hash: AESGMAC128\n      prestart_timeout: 30");
    let (m, _) = ok(&format!("{GUIDE}{windows}"));
    let half = m.windows.unwrap_or_default();
    assert_eq!((half.main_mode.len(), half.quick_mode.len()), (1, 1));
    assert_eq!(half.main_mode[0].keyexchange, "DH14");
    assert_eq!(half.quick_mode[0].encryption, "AESGCM128");
}

#[test]
fn defaults() {
    let (m, notes) = ok(&with(""));
    assert!(notes.is_empty());
    assert!(!m.optional && !m.force_udp_encapsulation);
    assert_eq!(m.optional_warn_interval, Duration::from_secs(3600));
    assert_eq!(m.ike_proposals.text, ["aes128-sha256-modp2048"]);
    assert_eq!(m.esp_proposals.text, ["aes128gcm16"]);
    assert_eq!((m.ike_proposals.proposals[0].number, m.ike_proposals.proposals.len()), (1, 1));
    assert_eq!((m.ike_version, m.mode), (IkeVersion::Any, Mode::Transport));
    assert_eq!((m.dpdaction, m.dpddelay), (DpdAction::Restart, Duration::from_secs(30)));
    assert_eq!(
        (m.prestart_timeout, m.stop_timeout),
        (Duration::from_secs(30), Duration::from_secs(30))
    );
    assert_eq!(m.log_level, LogLevel(1));
    assert_eq!(m.expiry, ExpiryPeriods { info: 30, warn: 14, error: 7, critical: 3 });
    assert_eq!((m.lifetimes.ike, m.lifetimes.child), (DAY, DAY / 3));
    assert_eq!(
        (m.lifetimes.child_bytes, m.lifetimes.child_packets, m.lifetimes.jitter_percent),
        (None, None, 20)
    );
    assert_eq!((m.start, m.cluster.clone(), m.windows.clone()), (Start::Trap, None, None));
    assert!(
        m.liveness.is_some()
            && m.policies.is_empty()
            && m.peers.is_empty()
            && m.no_ipsec_subnets.is_empty()
    );
    assert!(m.unavailable().is_empty());
}

#[test]
fn everything_written() {
    let (m, notes) = ok(&with(
        "optional: yes\noptional_warn_interval: 6\nike_proposals: [aes256-sha384-ecp384, 'aes128-sha256-modp2048!']\n\
         esp_proposals: aes256gcm16,aes128gcm16!\nike_version: ikev2\nmode: tunnel\ndpdaction: hold\ndpddelay: 10s\n\
         force_udp_encapsulation: true\nprestart_timeout: \"60\"\nstop_timeout: 1m\nlog_level: -1\ncompression: none\n\
         ike_lifetime: 1h30m\nchild_lifetime: 600\nchild_bytes: 64GiB\nchild_packets: 1000000\njitter: 10 %\n\
         start: eager\nliveness: {interval: 500ms, port: 7000}\ncluster: blue\n\
         no_ipsec_subnets: [10.0.9.0/24]\n\
         policies:\n- {action: pass, proto: tcp, local_port: 22, name: ssh}\n\
         - {action: drop, proto: udp, remote_port: 5000-5010, direction: out}\n\
         - {action: protect, proto: 6, remote: 10.0.9.4/32, remote_port: 5432}\n- {action: pass, proto: icmp}\n\
         peers:\n- {address: 10.0.0.7, name: db, id: db.example.com, psk: 0x000102030405060708090a0b0c0d0e0f10111213, ike_version: ikev1}\n\
         - {address: 10.0.0.8, id: '@#00ff', esp_proposals: [aes256gcm16]}",
    ));
    assert!(notes.is_empty(), "{notes:?}");
    assert!(m.optional && m.force_udp_encapsulation);
    assert_eq!(m.ike_proposals.text, ["aes256-sha384-ecp384", "aes128-sha256-modp2048"]);
    assert_eq!(m.ike_proposals.proposals[1].number, 2);
    assert_eq!(m.esp_proposals.text, ["aes256gcm16", "aes128gcm16"]);
    assert_eq!(
        (m.mode, m.dpdaction, m.dpddelay),
        (Mode::Tunnel, DpdAction::Trap, Duration::from_secs(10))
    );
    assert_eq!(
        (m.prestart_timeout, m.stop_timeout),
        (Duration::from_secs(60), Duration::from_secs(60))
    );
    assert_eq!(
        (m.lifetimes.ike, m.lifetimes.child),
        (Duration::from_secs(5400), Duration::from_secs(600))
    );
    assert_eq!(
        (m.lifetimes.child_bytes, m.lifetimes.child_packets),
        (Some(64 << 30), Some(1_000_000))
    );
    assert_eq!(
        (m.lifetimes.jitter_percent, m.start, m.cluster.as_deref()),
        (10, Start::Eager, Some("blue"))
    );
    let liveness = Liveness {
        interval: Duration::from_millis(500),
        timeout: Duration::from_secs(3),
        port: Some(7000),
    };
    assert_eq!(m.liveness, Some(liveness));
    assert_eq!(m.policies[0].local_port, Some((22, 22)));
    assert_eq!(m.policies[1].remote_port, Some((5000, 5010)));
    assert_eq!(
        (m.policies[1].action, m.policies[1].direction),
        (ExceptionAction::Drop, ExceptionDirection::Out)
    );
    assert_eq!((m.policies[2].protocol, m.policies[3].protocol), (Some(6), Some(1)));
    assert_eq!(m.peers[0].psk.as_ref().map(SecretBytes::len), Some(20));
    assert_eq!(m.peers[0].id, Some(wire::identity::Identity::Fqdn("db.example.com".into()).into()));
    assert_eq!(m.peers[1].id, Some(wire::identity::Identity::KeyId(vec![0, 255]).into()));
    assert_eq!(m.unavailable().len(), 1);
    assert!(m.unavailable()[0].message.contains("IKEv1 is not implemented yet"));
}

#[test]
fn ikev1_is_kept_for_the_program_to_judge() {
    let (m, _) = ok(&with("ike_version: ikev1"));
    assert_eq!(m.ike_version, IkeVersion::V1);
    let missing = m.unavailable();
    assert_eq!((missing.len(), missing[0].span.map(|s| (s.line, s.column))), (1, Some((3, 14))));
}

#[test]
fn log_levels_by_name() {
    for (name, level) in
        [("error", -1), ("warn", 0), ("info", 1), ("debug", 2), ("trace", 3), ("4", 4)]
    {
        assert_eq!(ok(&with(&format!("log_level: {name}"))).0.log_level, LogLevel(level));
    }
}

#[test]
fn switched_off() {
    let (m, _) =
        ok(&with("liveness: off\ndpdaction: none\noptional:\nno_ipsec_subnets:\npolicies: ~"));
    assert_eq!((m.liveness, m.dpdaction), (None, DpdAction::None));
    assert!(!m.optional && m.no_ipsec_subnets.is_empty());
}

#[test]
fn aliases_and_merges() {
    let (m, _) = ok(&format!(
        "addons:\n- name: a\n  x: &nets [10.0.0.0/16]\n  y: &all {{optional: true, psk: {PSK}, log_level: 3}}\n  \
         jobs: [{{name: ipsec}}]\n  properties:\n    ipsec:\n      <<: *all\n      ipsec_subnets: *nets\n      log_level: 2\n"
    ));
    assert!(m.optional);
    assert_eq!(m.log_level, LogLevel(2));
}

#[test]
fn references_are_resolved() {
    let key = CERTIFICATES.split_once("ca_certificates").map(|(pair, _)| pair).unwrap_or_default();
    let (certificate, key) = key.split_once("instance_private_key").unwrap_or_default();
    let body = |text: &str| {
        text.lines().skip(1).map(|line| format!("{}\n", line.trim())).collect::<String>()
    };
    let texts = Texts(vec![
        ("/etc/cert.pem", body(certificate)),
        ("key", body(key)),
        ("psk.txt", format!("{PSK}\n")),
    ]);
    let text = "ipsec_subnets: [10.0.0.0/8]\ninstance_certificate: file:/etc/cert.pem\n\
                instance_private_key: credential:key\nca_certificates:\n- file:/etc/cert.pem\n";
    let (m, _) = ok_with(text, &texts);
    let Credentials::Certificates(c) = &*m.credentials else { panic!("no certificates") };
    assert_eq!(c.instance_certificate, c.ca_certificates[0].pem);
    assert_eq!(c.ca_certificates[0].span.line, 5);
    let (m, _) = ok_with("ipsec_subnets: [10.0.0.0/8]\npsk: file:psk.txt\n", &texts);
    let Credentials::Psk(psk) = &*m.credentials else { panic!("no psk") };
    assert_eq!(psk.expose(), PSK.as_bytes());
}

#[test]
fn included_files_are_joined() {
    let texts = Texts(vec![
        ("a.yml", "ipsec_subnets: [10.1.0.0/16]\npeers:\n- {address: 10.1.0.1, name: a}\ninclude: [b.yml]\n".into()),
        ("b.yml", "ipsec:\n  peers:\n  - {address: 10.1.0.2, name: b}\n  optional: true\n".into()),
        ("empty.yml", "# nothing left\n".into()),
    ]);
    let (m, notes) = ok_with(&with("include: [a.yml, empty.yml]"), &texts);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!((m.ipsec_subnets.len(), m.peers.len(), m.optional), (2, 2, true));
    assert_eq!(m.sources().name(m.peers[1].span.file), "b.yml");
}

#[test]
fn old_algorithms_are_noted() {
    let (m, notes) = ok(&with("ike_proposals: [aes128-sha1-modp2048, aes128-sha256-x25519-x448]"));
    assert_eq!(m.ike_proposals.proposals.len(), 2);
    let messages: Vec<_> = notes.iter().map(|note| note.message.as_str()).collect();
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert!(messages[0].contains("sha1 is SHA-1"), "{messages:?}");
    assert!(messages[2].contains("Warren does not have curve448"), "{messages:?}");
}

#[test]
fn a_post_quantum_key() {
    let (m, notes) =
        ok(&with("ppk: 0123456789abcdef0123456789abcdef\nppk_id: fleet\nppk_required: yes"));
    let ppk = m.ppk.expect("there is one");
    assert_eq!((ppk.id.as_str(), ppk.required, ppk.secret.len()), ("fleet", true, 32));
    assert!(notes.is_empty());
}

#[test]
fn peers_with_secrets_and_ways_of_their_own() {
    let text = "ppk: 0123456789abcdef0123456789abcdef\nppk_id: fleet\npeers:\n\
        - {address: 10.0.0.1, ppk: another-secret-of-one-pair, ppk_id: pair, ppk_required: true}\n\
        - {address: 10.0.0.2, childless: force, redirect: true, id: gateway.example}\n- {address: 10.0.0.3, unauthenticated: true}\n";
    let (m, notes) = ok(&with(text));
    let own = m.peers[0].ppk.as_ref().expect("its own");
    assert_eq!((own.id.as_str(), own.required), ("pair", true));
    assert_eq!(m.peers[1].childless, ike::config::Childless::Force);
    assert!(m.peers[2].unauthenticated && !m.peers[1].unauthenticated);
    assert!(m.peers[1].redirect && !m.peers[0].redirect);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].message.contains("nothing is proven"), "{notes:?}");
    let plan = mesh::plan::Plan::for_host(&m, "10.0.0.9".parse().unwrap()).unwrap();
    let of = |host: &str| plan.peer(host.parse().unwrap()).unwrap();
    let id = |host: &str| of(host).ppk.map(|ppk| ppk.id.clone());
    assert_eq!(id("10.0.0.1").as_deref(), Some("pair"));
    assert_eq!(id("10.0.0.2").as_deref(), Some("fleet"), "what the fleet has");
    assert_eq!(id("10.0.0.77").as_deref(), Some("fleet"));
    assert!(of("10.0.0.3").unauthenticated && !of("10.0.0.77").unauthenticated);
}

#[test]
fn revocation_lists() {
    let list = "  -----BEGIN X509 CRL-----\n  MIIBCgKCAQEAMIIBCgKCAQEAMIIBCgKC\n  -----END X509 CRL-----\n";
    for (written, lists) in
        [(format!("crls: |\n{list}"), 1), (format!("crls:\n- |\n{list}- |\n{list}"), 2)]
    {
        let text = format!("ipsec_subnets: [10.0.0.0/8]\n{CERTIFICATES}{written}");
        let (m, notes) = ok(&text);
        assert!(notes.is_empty(), "{notes:?}");
        let Credentials::Certificates(certificates) = &*m.credentials else {
            panic!("certificates")
        };
        assert_eq!(certificates.crls.len(), lists);
        assert!(certificates.crls[0].pem.starts_with("-----BEGIN X509 CRL-----\n"));
    }
}

#[test]
fn notes_do_not_refuse() {
    let notes =
        |text: &str| -> Vec<String> { ok(text).1.into_iter().map(|note| note.message).collect() };
    let one = |lines: &str, message: &str| {
        let found = notes(&with(lines));
        assert!(found.len() == 1 && found[0].contains(message), "{found:?}");
    };
    one("no_ipsec_subnets: [192.168.0.0/16]", "lies in none of `ipsec_subnets`");
    one("peers: [{address: 192.168.0.1}]", "lies in none of `ipsec_subnets`");
    one("no_ipsec_subnets: [10.0.4.4]", "single address 10.0.4.4/32");
    one("instance_certificate_warn_period: 60", "is longer than");
    one(
        "policies: [{action: pass, proto: tcp}, {action: drop, proto: tcp, port: 22}]",
        "never reached",
    );
    one("policies: [{action: pass}]", "lets everything pass");
    one("policies: [{action: pass, proto: any, direction: out}]", "lets everything pass");
    let both = format!(
        "ipsec_subnets: [10.0.0.0/16, 10.1.0.0/16]\nno_ipsec_subnets: [10.1.0.0/16]\npsk: {PSK}\n"
    );
    assert!(notes(&both)[0].contains("is in both lists"));
    let twice = format!("ipsec_subnets: [10.0.0.0/16, 10.0.3.0/16]\npsk: {PSK}\n");
    assert_eq!(notes(&twice).len(), 2);
}

#[test]
fn longest_prefix_decides_and_a_tie_passes() {
    let (m, _) = ok(&format!(
        "ipsec_subnets: [10.0.0.0/8, 10.1.2.0/24, '2001:db8::/32', 10.5.0.0/16]\n\
         no_ipsec_subnets: [10.1.0.0/16, 10.5.0.0/16]\npsk: {PSK}\n"
    ));
    let place = |ip: &str| m.place_of(ip.parse().unwrap());
    let net = |text: &str| text.parse().unwrap();
    assert_eq!(place("10.9.9.9"), Place::Protected(net("10.0.0.0/8")));
    assert_eq!(place("10.1.9.9"), Place::Excluded(net("10.1.0.0/16")));
    assert_eq!(place("10.1.2.9"), Place::Protected(net("10.1.2.0/24")));
    assert_eq!(place("10.5.1.1"), Place::Excluded(net("10.5.0.0/16")));
    assert_eq!(place("2001:db8::1"), Place::Protected(net("2001:db8::/32")));
    assert_eq!(place("192.0.2.1"), Place::Nowhere);
    let finding = m.check_address("192.0.2.1".parse().unwrap()).unwrap_err();
    assert!(finding.message.contains("neither ipsec_subnets nor no_ipsec_subnets"));
    assert!(finding.remedy.contains("- 192.0.2.1/32"));
    assert_eq!(finding.span.map(|s| s.line), Some(1));
}

#[test]
fn placeholders_are_no_errors_for_who_brings_his_own() {
    let guide = GUIDE.replace("RSA PRIVATE", "EXAMPLE RSA PRIVATE").replace("MIIE", "...");
    assert!(Manifest::parse("x", &guide, &NoFiles).is_err());
    let options = Options { ignore_credentials: true };
    let (m, _) = Manifest::parse_with("x", &guide, &NoFiles, options).unwrap();
    assert!(matches!(*m.credentials, Credentials::Absent));
}

#[test]
fn findings_of_others_show_the_place() {
    let (m, _) = ok(GUIDE);
    let mut found = m.diagnostics();
    found.push(m.span("instance_certificate"), "the certificate has expired", "issue a new one");
    assert_eq!(
        found.render(),
        "error: the certificate has expired\n  --> ipsec.yml:20:29\n   |\n20 |       instance_certificate: |\n   \
         |                             ^\n   = help: issue a new one\n"
    );
}

#[test]
fn five_thousand_entries() {
    let mut text = format!("psk: {PSK}\nipsec_subnets:\n");
    for n in 0..5_000u32 {
        text.push_str(&format!("- 10.{}.{}.0/24 # rack {n}\n", n >> 8, n & 255));
    }
    text.push_str("peers:\n");
    for n in 0..5_000u32 {
        text.push_str(&format!("- {{address: 10.{}.{}.1, name: host{n}}}\n", n >> 8, n & 255));
    }
    let (m, notes) = ok(&text);
    assert_eq!((m.ipsec_subnets.len(), m.peers.len(), notes.len()), (5_000, 5_000, 0));
    assert!(matches!(m.place_of("10.19.7.200".parse().unwrap()), Place::Protected(_)));
}
