//! What can be wrong with certificates and keys.

use crate::Judge;
use crate::world::pki::{self, Made, Wish};
use crate::world::root;

fn manifest(certificate: &str, key: &str, ca: &str) -> String {
    format!("ipsec_subnets: [10.77.0.0/24]\n{}", pki::properties(certificate, key, ca))
}

fn of(leaf: &Made, ca: &Made) -> String {
    manifest(&leaf.pem, &leaf.key.serialize_pem(), &ca.pem)
}

#[test]
fn certificate_and_key_that_do_not_belong_together() {
    if !root() {
        return;
    }
    let ca = pki::ca(Wish::new("the CA", 1));
    let (one, other) = (pki::leaf(&ca, Wish::new("one", 2)), pki::leaf(&ca, Wish::new("two", 3)));
    let text = manifest(&one.pem, &other.key.serialize_pem(), &ca.pem);
    Judge::new().refuses(text, &["warren.yml:2", "does not belong", "one", "issued for"]);
}

#[test]
fn a_leaf_of_another_ca() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let (ca, other) = (pki::ca(Wish::new("the CA", 1)), pki::ca(Wish::new("another CA", 9)));
    let leaf = pki::leaf(&other, Wish::new("a host", 2));
    judge.refuses(of(&leaf, &ca), &["warren.yml:2", "not issued by", "the CA", "ca_certificates"]);
    // The name alone does not make it the same CA.
    let twin = pki::ca(Wish::new("the CA", 1));
    let leaf = pki::leaf(&twin, Wish::new("a host", 2));
    judge.refuses(of(&leaf, &ca), &["warren.yml:2", "signature", "ca_certificates"]);
}

#[test]
fn ca_and_leaf_with_one_serial_or_one_subject() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let ca = pki::ca(Wish::new("the CA", 7));
    let leaf = pki::leaf(&ca, Wish::new("a host", 7));
    judge.refuses(of(&leaf, &ca), &["warren.yml:2", "same serial number", "issued anew"]);
    let leaf = pki::leaf(&ca, Wish::new("the CA", 8));
    judge.refuses(of(&leaf, &ca), &["warren.yml:2", "same subject", "issued anew"]);
}

#[test]
fn certificates_out_of_their_time() {
    if !root() {
        return;
    }
    let mut judge = Judge::new();
    let ca = pki::ca(Wish::new("the CA", 1));
    let leaf = pki::leaf(&ca, Wish::new("a host", 2).days(-30, -2));
    let ended = of(&leaf, &ca);
    let path = judge.daemon.folder.put("warren.yml", &ended);
    let texts = ["warren.yml:2", "a host", "expired", "issued anew"];
    judge.daemon.warren(&["check", path.to_str().unwrap()]).refused(&texts);
    // A daemon has its policies and its tunnels with it all the same, and may read its manifest again.
    judge.daemon.start(&ended);
    let status = judge.daemon.json(&["status"]);
    assert_eq!(status["node"]["certificates"][0]["level"], "expired", "{status:#}");
    assert!(judge.daemon.log().contains("a host"), "{}", judge.daemon.log());
    judge.daemon.folder.put("warren.yml", format!("{ended}optional: true\n"));
    judge.daemon.warren(&["reload"]).ok();
    assert_eq!(judge.daemon.json(&["status"])["node"]["optional"], true);
    // Another one that has ended is a mistake.
    let other = pki::leaf(&ca, Wish::new("another host", 3).days(-30, -2));
    judge.daemon.folder.put("warren.yml", of(&other, &ca));
    judge.daemon.warren(&["reload"]).refused(&["another host", "expired"]);
    assert_eq!(judge.daemon.json(&["status"])["node"]["optional"], true);
    judge.daemon.warren(&["stop", "--flush"]).ok();
    judge.daemon.ended();
    let leaf = pki::leaf(&ca, Wish::new("a host", 2).days(2, 30));
    judge.refuses(of(&leaf, &ca), &["warren.yml:2", "a host", "not valid before", "clock"]);
    let ca = pki::ca(Wish::new("the CA", 1).days(-30, -2));
    let leaf = pki::leaf(&ca, Wish::new("a host", 2));
    let path = judge.daemon.folder.put("warren.yml", of(&leaf, &ca));
    let checked = judge.daemon.warren(&["check", path.to_str().unwrap()]);
    checked.refused(&["warren.yml:", "the CA", "expired"]);
}

#[test]
fn a_key_with_a_pass_phrase() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let ca = pki::ca(Wish::new("the CA", 1));
    let leaf = pki::leaf(&ca, Wish::new("a host", 2));
    let body = "MIIBvTBXBgkqhkiG9w0BBQ0wSjApBgkqhkiG9w0BBQwwHAQI\n";
    for key in [
        format!(
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n{body}-----END ENCRYPTED PRIVATE KEY-----\n"
        ),
        format!(
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,AB\n\n{body}-----END RSA PRIVATE KEY-----\n"
        ),
    ] {
        let text = manifest(&leaf.pem, &key, &ca.pem);
        judge.refuses(text, &["warren.yml:", "instance_private_key", "pass phrase"]);
    }
}

#[test]
fn one_in_the_place_of_another() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let ca = pki::ca(Wish::new("the CA", 1));
    let leaf = pki::leaf(&ca, Wish::new("a host", 2));
    let key = leaf.key.serialize_pem();
    let swapped = judge.refuses(manifest(&key, &leaf.pem, &ca.pem), &["warren.yml:", "instance_"]);
    let secret = key.lines().nth(1).unwrap();
    assert!(!swapped.err.contains(secret), "the key is shown:\n{}", swapped.err);
    judge.refuses(manifest(&leaf.pem, &key, &leaf.pem), &["warren.yml:", "CA"]);
    let cut: String = leaf.pem.lines().take(4).map(|line| format!("{line}\n")).collect();
    judge.refuses(manifest(&cut, &key, &ca.pem), &["warren.yml:", "END"]);
    let broken = leaf.pem.replacen("MII", "AII", 1);
    judge.refuses(manifest(&broken, &key, &ca.pem), &["warren.yml:", "instance_certificate"]);
}
