//! What can be wrong in a manifest's text.

use crate::world::{assert_narrow, pki, root};
use crate::{Judge, PSK};

#[test]
fn a_missing_list_mark() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let text = format!("ipsec_subnets: [10.77.0.0/24]\n{}", pki::good()).replace("- |\n  --", "--");
    let text = text.replace("ca_certificates:\n", "ca_certificates: |\n  ");
    let ended = judge.refuses(&text, &["warren.yml:", "ca_certificates", "- |"]);
    assert_narrow(&ended.err);
}

#[test]
fn host_bits_are_accepted_with_a_note() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let shown = judge.accepts(format!("ipsec_subnets: [10.77.0.1/24]\n{PSK}"));
    assert!(shown.contains("warren.yml:1:17") && shown.contains("10.77.0.0/24"), "{shown}");
}

#[test]
fn an_address_in_neither_list() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let text = format!("ipsec_subnets: [10.78.0.0/24]\n{PSK}");
    judge.refuses(&text, &["warren.yml:1", "10.77.0.1"]);
}

#[test]
fn an_unknown_key_brings_a_suggestion() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let text = format!("ipsec_subnet: [10.77.0.0/24]\n{PSK}");
    judge.refuses(&text, &["warren.yml:1:1", "ipsec_subnet", "did you mean `ipsec_subnets`"]);
}

#[test]
fn an_unknown_algorithm_brings_the_known_ones() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    for (property, known) in [("ike_proposals", "modp2048"), ("esp_proposals", "aes128gcm16")] {
        let text =
            format!("ipsec_subnets: [10.77.0.0/24]\n{PSK}{property}: aes128-sha257-modp2048!\n");
        judge.refuses(&text, &["warren.yml:3:", "sha257", "sha256", known]);
    }
}

#[test]
fn a_short_psk() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let ended =
        judge.refuses("ipsec_subnets: [10.77.0.0/24]\npsk: short\n", &["warren.yml:2", "20"]);
    assert!(!ended.err.contains("psk: short"), "the secret is shown: {}", ended.err);
}

#[test]
fn all_errors_of_a_file_at_once() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let text = "ipsec_subnets: [10.77.0.0/33]\npsk: short\nmode: tunel\nlog_level: loud\n";
    judge.refuses(text, &["warren.yml:1", "warren.yml:2", "warren.yml:3", "warren.yml:4"]);
}

#[test]
fn line_ends_marks_and_tabs() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let good = format!("# a comment\nipsec_subnets:\n- 10.77.0.0/24\n{PSK}");
    judge.accepts(good.replace('\n', "\r\n"));
    judge.accepts(format!("\u{feff}{good}"));
    judge.accepts(format!(
        "\u{feff}{}",
        format!("ipsec_subnets: [10.77.0.0/24]\n{}", pki::good()).replace('\n', "\r\n")
    ));
    judge.refuses("ipsec_subnets:\n\t- 10.77.0.0/24\n", &["warren.yml:2", "tab"]);
}

#[test]
fn a_list_mark_missing_in_any_way() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let good = format!("ipsec_subnets: [10.77.0.0/24]\n{}", pki::good());
    let (before, pem) = good.split_once("ca_certificates:\n- |\n").unwrap();
    let flat: String = pem.lines().map(|line| format!("{}\n", line.trim())).collect();
    for (form, pem) in [
        ("ca_certificates:\n", pem),
        ("ca_certificates:\n", &*flat),
        ("ca_certificates: |\n", pem),
        ("ca_certificates:\n  |\n", pem),
        ("ca_certificates: >\n", pem),
        ("ca_certificates:\n- \n", &*flat),
        ("ca_certificates:\n-\n", pem),
        ("ca_certificates:\n- >\n", pem),
    ] {
        judge.refuses(format!("{before}{form}{pem}"), &["warren.yml:", "- |"]);
    }
    // In the shape of a runtime config it is the same.
    let text = format!("{before}ca_certificates: |\n{pem}");
    let inner: String = text.lines().map(|line| format!("      {line}\n")).collect();
    let bosh = format!(
        "releases:\n- {{name: ipsec, version: 1.8.0}}\naddons:\n- name: ipsec\n  jobs:\n  - name: ipsec\n    release: ipsec\n  properties:\n    ipsec:\n{inner}"
    );
    judge.refuses(bosh, &["warren.yml:", "ca_certificates", "- |"]);
}
