//! Whatever is given, the parser answers: with values, or with findings that fit the page.

mod manifest_support;

use manifest_support::*;
use mesh::manifest::{Manifest, NoFiles};
use mesh::plan::Plan;
use proptest::prelude::*;

/// Parses, and does with the result what the program does.
fn take(text: &str) {
    match Manifest::parse("any.yml", text, &NoFiles) {
        Ok((manifest, notes)) => {
            for note in &notes {
                assert!(!manifest.sources().render(note).is_empty());
            }
            assert!(!manifest.ipsec_subnets.is_empty());
            for net in manifest.ipsec_subnets.iter().take(3) {
                if let Ok(plan) = Plan::for_host(&manifest, net.addr()) {
                    assert!(!plan.describe().is_empty());
                    assert!(plan.diff(&plan).is_empty());
                }
            }
        }
        Err(found) => {
            assert!(found.has_errors());
            for line in found.render().lines() {
                assert!(line.chars().count() <= 100, "too wide: {line}");
            }
        }
    }
}

/// Pieces that YAML and the manifest are made of.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("\n".to_owned()),
        Just("\n  ".to_owned()),
        Just("\n- ".to_owned()),
        Just(": ".to_owned()),
        Just("|\n".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just("&a ".to_owned()),
        Just("*a".to_owned()),
        Just("\t".to_owned()),
        Just("---\n".to_owned()),
        Just("-----BEGIN PRIVATE KEY-----\n".to_owned()),
        Just("0x".to_owned()),
        Just("%".to_owned()),
        Just("\u{e4}".to_owned()),
        "[0-9a-f.:/-]{1,18}",
        prop::sample::select(vec![
            "ipsec",
            "addons",
            "jobs",
            "properties",
            "ipsec_subnets",
            "psk",
            "policies",
            "action",
            "pass",
            "protect",
            "proto",
            "tcp",
            "port",
            "remote",
            "peers",
            "address",
            "liveness",
            "interval",
            "jitter",
            "child_bytes",
            "ike_lifetime",
            "include",
            "ca_certificates",
            "instance_private_key",
            "compression",
            "main_mode_proposals",
            "encryption",
            "log_level",
            "true",
            "<<",
            "null",
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        take(&text);
    }

    #[test]
    fn any_lines(text in "[ -~\\n\\t\u{e4}\u{1f512}]{0,300}") {
        take(&text);
    }

    #[test]
    fn any_pieces(pieces in prop::collection::vec(piece(), 0..60)) {
        take(&pieces.concat());
    }

    #[test]
    fn any_value_of_any_property(pieces in prop::collection::vec(piece(), 1..12), name in prop::sample::select(vec![
        "optional", "ipsec_subnets", "policies", "peers", "liveness", "jitter", "child_bytes", "dpddelay", "ike_proposals",
        "esp_proposals", "cluster", "start", "quick_mode_proposals", "instance_certificate_info_period", "include",
    ])) {
        take(&with(&format!("{name}: {}", pieces.concat())));
    }

    #[test]
    fn a_mutated_guide(cuts in prop::collection::vec((0usize..4000, 0usize..40, piece()), 1..6)) {
        let mut text: Vec<char> = GUIDE.chars().collect();
        for (at, length, new) in cuts {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, new.chars());
        }
        take(&text.into_iter().collect::<String>());
    }

    #[test]
    fn no_finding_shows_the_key(line in 0usize..45, indent in 0usize..12, extra in piece()) {
        let key = "MIIEogIBAAKCAQEAtAkBjzr5x9g0";
        let mut lines: Vec<String> = GUIDE.lines().map(str::to_owned).collect();
        if let Some(text) = lines.get_mut(line) {
            *text = format!("{}{}{extra}", " ".repeat(indent), text.trim_start());
        }
        if let Err(found) = Manifest::parse("any.yml", &lines.join("\n"), &NoFiles) {
            prop_assert!(!found.render().contains(key), "{}", found);
        }
    }
}
