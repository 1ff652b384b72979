//! Manifests that are refused: each with its place and its remedy, and never with a secret.

mod manifest_support;

use manifest_support::*;

#[test]
fn all_errors_at_once_in_order() {
    let found = bad(
        "ipsec_subnet: [10.0.0.0/16]\nno_ipsec_subnets: [10.0.0.0/40]\npsk: short\nmode: tunel\noptional: maybe\n",
    );
    let places: Vec<_> = found.reports().iter().map(|r| (r.line, r.column)).collect();
    let expected = [(1, 1), (1, 1), (2, 20), (3, 6), (4, 7), (5, 11)];
    assert_eq!(places, expected.map(|(l, c)| (Some(l), Some(c))), "{found}");
}

#[test]
fn one_finding_as_people_see_it() {
    let found = bad(&with("ipsec_subnet: [10.0.0.0/8]"));
    assert_eq!(
        found.render(),
        "error: unknown key `ipsec_subnet` in the manifest\n --> ipsec.yml:3:1\n  |\n\
         3 | ipsec_subnet: [10.0.0.0/8]\n  | ^^^^^^^^^^^^\n  = help: did you mean `ipsec_subnets`?\n"
    );
}

#[test]
fn unknown_keys() {
    says(
        &with("ipsec subnets: []"),
        (3, 1),
        "unknown key `ipsec subnets`",
        "did you mean `ipsec_subnets`?",
    );
    says(&with("no-ipsec-subnets: []"), (3, 1), "unknown key", "did you mean `no_ipsec_subnets`?");
    says(
        &with("colour: red"),
        (3, 1),
        "unknown key `colour`",
        "known in the manifest are: ipsec_subnets, no_",
    );
    says(
        &with("liveness: {intervall: 1}"),
        (3, 12),
        "`intervall` in `liveness`",
        "did you mean `interval`?",
    );
    says(&with("policies:\n- {action: pass, prot: tcp}"), (4, 18), "`prot` in a policy", "`proto`");
    says(
        &with("peers:\n- {addres: 10.0.0.1, address: 10.0.0.1}"),
        (4, 4),
        "`addres` in a peer",
        "`address`",
    );
    let beside = format!("mode: tunnel\nipsec:\n  ipsec_subnets: [10.0.0.0/8]\n  psk: {PSK}\n");
    says(&beside, (1, 1), "`mode` stands beside `ipsec:`", "indent it below `ipsec:`");
    says(&beside.replace("mode", "odem"), (1, 1), "unknown key `odem`", "remove it");
}

#[test]
fn the_missing_dash_and_bar() {
    let remedy = "ca_certificates:\n- |\n  -----BEGIN CERTIFICATE-----";
    let message = "`ca_certificates` must be a list, found a single text";
    let subnets = "ipsec_subnets: [10.0.0.0/8]\n";
    let block = CERTIFICATES.replace("ca_certificates:\n- |", "ca_certificates: |");
    says(&format!("{block}{subnets}"), (10, 18), message, remedy);
    let plain = CERTIFICATES.replace("ca_certificates:\n- |", "ca_certificates:");
    says(&format!("{plain}{subnets}"), (11, 3), message, remedy);
    let folded = CERTIFICATES.replace("- |", "-");
    says(
        &format!("{folded}{subnets}"),
        (12, 3),
        "has lost its line breaks: the `|` is missing",
        "\n- |\n",
    );
    let one = CERTIFICATES.replace("instance_certificate: |", "instance_certificate:");
    says(
        &format!("{one}{subnets}"),
        (2, 3),
        "has lost its line breaks",
        "\ninstance_certificate: |\n",
    );
}

#[test]
fn networks() {
    let nets = |list: &str| format!("psk: {PSK}\nipsec_subnets:\n{list}\n");
    says(&nets("- 10.0.0.0/33"), (3, 3), "the prefix must be 0 to 32", "10.0.0.0/24");
    says(&nets("- 2001:db8::/129"), (3, 3), "the prefix must be 0 to 128", "2001:db8::/96");
    says(&nets("- 10.0.0.0/255.255.0.0"), (3, 3), "written as a mask", "`10.0.0.0/16`");
    says(&nets("- 10.0.0/8"), (3, 3), "`10.0.0` is not an IP address", "ADDRESS/PREFIX");
    says(&nets("- 10.0.0.1-10.0.0.9"), (3, 3), "a range of addresses", "ADDRESS/PREFIX");
    says(
        &nets("- {a: b}"),
        (3, 3),
        "`ipsec_subnets` takes networks, found a map",
        "ADDRESS/PREFIX",
    );
    says(&nets("- 10.0.0.0/8\n-"), (4, 2), "takes networks, found nothing", "ADDRESS/PREFIX");
    says(
        &format!("psk: {PSK}\nipsec_subnets: 10.0.0.0/8\n"),
        (2, 16),
        "must be a list, found a single text",
        "- 10.0.0.0/16",
    );
    says(
        &format!("psk: {PSK}\nipsec_subnets: []\n"),
        (2, 16),
        "is empty: nothing would be protected",
        "- 10.0.0.0/16",
    );
    says(&format!("psk: {PSK}\nipsec_subnets:\n"), (2, 14), "is empty", "- 10.0.0.0/16");
    says(
        &format!("psk: {PSK}\n"),
        (1, 1),
        "`ipsec_subnets` is missing",
        "ipsec_subnets:\n- 10.0.0.0/16",
    );
    let both = format!("psk: {PSK}\nipsec_subnets: [10.0.0.0/8]\nno_ipsec_subnets: [10.0.0.0/8]\n");
    let found = bad(&both);
    assert!(found.render().contains("every one of `ipsec_subnets` is in `no_ipsec_subnets` too"));
    assert!(found.render().contains("note: 10.0.0.0/8 is in both lists"));
}

#[test]
fn credentials_both_neither_and_half() {
    let subnets = "ipsec_subnets: [10.0.0.0/8]\n";
    says(subnets, (1, 1), "neither certificates nor a `psk`", "warren pki init");
    says(
        &format!("{subnets}psk: {PSK}\n{CERTIFICATES}"),
        (2, 6),
        "both `psk` and `instance_certificate`",
        "keep either",
    );
    let half = CERTIFICATES.split_once("ca_certificates").map(|(half, _)| half).unwrap_or_default();
    says(&format!("{half}{subnets}"), (1, 1), "`ca_certificates` is missing", "all three");
    says(
        &format!("{half}ca_certificates: []\n{subnets}"),
        (10, 18),
        "`ca_certificates` is empty",
        "- |",
    );
}

#[test]
fn pass_phrases() {
    let message = "protected by a pass phrase";
    let remedy = "openssl pkey -in KEY.pem -out PLAIN.pem";
    let subnets = "ipsec_subnets: [10.0.0.0/8]\n";
    let new = CERTIFICATES.replace("RSA PRIVATE", "ENCRYPTED PRIVATE");
    says(&format!("{new}{subnets}"), (6, 23), message, remedy);
    let header =
        "PRIVATE KEY-----\n  Proc-Type: 4,ENCRYPTED\n  DEK-Info: AES-128-CBC,0011\n\n  MIIEog";
    let old = CERTIFICATES.replace("PRIVATE KEY-----\n  MIIEog", header);
    says(&format!("{old}{subnets}"), (6, 23), message, remedy);
}

#[test]
fn pem_of_another_kind() {
    let subnets = "ipsec_subnets: [10.0.0.0/8]\n";
    let check = |from: &str, to: &str, at, message: &str, remedy: &str| {
        says(&format!("{}{subnets}", CERTIFICATES.replace(from, to)), at, message, remedy);
    };
    check(
        "RSA PRIVATE",
        "OPENSSH PRIVATE",
        (6, 23),
        "OPENSSH PRIVATE KEY",
        "ssh-keygen -p -m PKCS8",
    );
    check("RSA PRIVATE", "EXAMPLE RSA PRIVATE", (6, 23), "EXAMPLE", "placeholder of a guide");
    check(
        "RSA PRIVATE KEY",
        "CERTIFICATE",
        (6, 23),
        "holds a `CERTIFICATE`",
        "belongs into `instance_certificate`",
    );
    check(
        "  -----END RSA PRIVATE KEY-----\n",
        "",
        (6, 23),
        "no line `-----END RSA PRIVATE KEY-----`",
        "last line",
    );
    check("MIIFCTCC", "...\n  ", (11, 3), "line 2 of it is not base64", "placeholder");
    check("MIIEMDCC", "AAAAAAAA", (1, 23), "holds no CERTIFICATE, only its frame", "cut short");
    let swapped = CERTIFICATES.replacen("CERTIFICATE-----", "PRIVATE KEY-----", 2);
    let found = bad(&format!("{swapped}{subnets}"));
    assert!(only(&found).2.contains("`instance_certificate` holds a PRIVATE KEY"));
    assert!(!found.render().contains("MIIE"));
}

#[test]
fn pre_shared_keys() {
    let subnets = "ipsec_subnets: [10.0.0.0/8]\n";
    let long = "can try keys offline";
    says(
        &format!("{subnets}psk: nineteen-bytes-long\n"),
        (2, 6),
        "19 bytes, at least 20",
        "/dev/urandom",
    );
    says(&format!("{subnets}psk: 0x00112233445566778899\n"), (2, 6), long, "/dev/urandom");
    says(
        &format!("{subnets}psk: 0x0011223344556677889\n"),
        (2, 6),
        "cannot be decoded",
        "even number of hex digits",
    );
    says(&format!("{subnets}psk: 0s!!!!\n"), (2, 6), "cannot be decoded", "base64");
    says(&format!("{subnets}psk: [a, b]\n"), (2, 6), "`psk` must be a text", "file:");
    says(
        &format!("{subnets}psk: ((fleet_psk))\n"),
        (2, 6),
        "a variable that was not filled in",
        "bosh interpolate",
    );
    says(
        &format!("{subnets}psk: file:/no\n"),
        (2, 6),
        "cannot read what it refers to",
        "must be there",
    );
}

#[test]
fn what_is_no_revocation_list() {
    let certificate = "crls: |\n  -----BEGIN CERTIFICATE-----\n  MIIBCgKCAQEAMIIBCgKCAQEAMIIBCgKC\n  -----END CERTIFICATE-----\n";
    let found = bad(&format!("ipsec_subnets: [10.0.0.0/8]\n{CERTIFICATES}{certificate}"));
    assert!(only(&found).2.contains("`crls` holds a `CERTIFICATE`"), "{found}");
    let found = bad(&format!("ipsec_subnets: [10.0.0.0/8]\n{CERTIFICATES}crls: [x]\n"));
    assert!(only(&found).2.contains("`crls` is not PEM"), "{found}");
    let found = bad(&with("crls: x"));
    assert!(only(&found).2.contains("both `psk` and `crls`"), "{found}");
}

#[test]
fn post_quantum_keys_are_whole() {
    says(&with("ppk: 0123456789abcdef0123456789abcdef"), (3, 6), "without `ppk_id`", "ppk_id:");
    says(&with("ppk_id: fleet"), (3, 9), "`ppk_id` is given without `ppk`", "remove the line");
    says(&with("ppk_required: true"), (3, 15), "`ppk_required` is given without `ppk`", "remove");
    let found = bad(&with("ppk_id: fleet\nppk: short"));
    assert!(only(&found).2.contains("too short"), "{found}");
}

#[test]
fn what_a_peer_has_of_its_own_is_whole() {
    let of = |keys: &str| bad(&with(&format!("peers: [{{address: 10.0.0.1, {keys}}}]")));
    let found = of("ppk: another-secret-of-one-pair");
    assert!(only(&found).2.contains("`ppk` is given without `ppk_id`"), "{found}");
    let found = of("ppk_id: pair");
    assert!(only(&found).2.contains("`ppk_id` is given without `ppk`"), "{found}");
    let found = of("childless: sometimes");
    assert!(only(&found).2.contains("childless"), "{found}");
    let found = of("redirect: true");
    assert!(only(&found).2.contains("not said who it is"), "{found}");
    let found = of("unauthenticated: perhaps");
    assert!(only(&found).2.contains("unauthenticated"), "{found}");
    for other in ["psk: 0123456789abcdef0123456789abcdef", "id: db.example.com"] {
        let found = of(&format!("unauthenticated: true, {other}"));
        assert!(found.to_string().contains("`unauthenticated: true` as well"), "{found}");
    }
}

#[test]
fn algorithms() {
    let (line, column, message, remedy) =
        only(&bad(&with("ike_proposals: aes128-sha257-modp2048!")));
    assert_eq!((line, column), (3, 16));
    assert_eq!(message, "unknown algorithm `sha257` in `ike_proposals`");
    assert!(remedy.starts_with("did you mean `sha256`?\nknown are: "));
    for known in ["aes128gcm16", "sha384", "modp3072", "x25519", "mlkem768"] {
        assert!(remedy.contains(known), "{known} is not listed");
    }
    says(
        &with("esp_proposals:\n- aes128gcm16\n- rot13"),
        (5, 3),
        "unknown algorithm `rot13`",
        "known are: ",
    );
    says(&with("ike_proposals: []"), (3, 16), "is empty", "aes128-sha256-modp2048");
    let found = bad(&with("ike_proposals: aes128-sha256"));
    assert!(only(&found).2.contains("cannot be used"), "{found}");
    says(
        &with("ike_proposals: aes128-sha256-modp2048, 3des-sha256-modp2048"),
        (3, 16),
        "Warren does not have 3des",
        "aes128-sha256-modp2048",
    );
}

#[test]
fn words() {
    says(
        &with("ike_version: ikev3"),
        (3, 14),
        "unknown value `ikev3` of `ike_version`",
        "`ike`, `ikev2` or `ikev1`",
    );
    says(&with("ike_version: 2"), (3, 14), "unknown value `2`", "did you mean `ikev2`?");
    says(
        &with("dpdaction: restrat"),
        (3, 12),
        "unknown value `restrat`",
        "did you mean `restart`?",
    );
    says(&with("start: route"), (3, 8), "unknown value `route`", "did you mean `trap`?");
    says(&with("mode: beet"), (3, 7), "unknown value `beet`", "`transport` or `tunnel`");
    says(&with("compression: gzip"), (3, 14), "`gzip`", "deflate");
    says(&with("log_level: loud"), (3, 12), "unknown value `loud`", "`debug`");
    says(
        &with("policies: [{action: bypass}]"),
        (3, 21),
        "unknown value `bypass`",
        "did you mean `pass`?",
    );
}

#[test]
fn types_and_ranges() {
    says(
        &with("optional: \"true\""),
        (3, 11),
        "must be true or false, found `true`",
        "without quotes",
    );
    says(
        &with("optional: [true]"),
        (3, 11),
        "must be true or false, found a list",
        "`optional: true`",
    );
    says(&with("log_level: 5"), (3, 12), "out of range: 5", "from -1 to 4");
    says(&with("log_level: -2"), (3, 12), "out of range: -2", "from -1 to 4");
    says(&with("prestart_timeout: soon"), (3, 19), "is not a time: `soon`", "`90s`");
    says(&with("dpddelay: 0"), (3, 11), "out of range", "from 1s to 1d");
    says(&with("child_lifetime: 400d"), (3, 17), "out of range", "to 30d");
    says(
        &with("optional_warn_interval: 0.5"),
        (3, 25),
        "must be a whole number of hours",
        "from 1 to 8760",
    );
    says(&with("instance_certificate_warn_period: {}"), (3, 35), "found a map", "days");
    says(&with("jitter: 90 %"), (3, 9), "0 to 50 percent", "`20 %`");
    says(&with("child_bytes: 3"), (3, 14), "no amount", "64GiB");
    says(&with("cluster: a b"), (3, 10), "cannot be a name", "letters");
    says(
        &with("liveness: {interval: 10s, timeout: 1s}"),
        (3, 11),
        "shorter than their `interval`",
        "three times",
    );
    says(&with("liveness: [1]"), (3, 11), "must be a map", "interval: 1s");
    says(
        &with("peers: {address: 10.0.0.1}"),
        (3, 8),
        "must be a list, found a map",
        "- {address: 10.0.0.7",
    );
}

#[test]
fn policies_and_peers() {
    let policy = |text: &str| with(&format!("policies:\n- {text}"));
    says(&policy("{proto: tcp}"), (4, 3), "no `action`", "add `action: pass`");
    says(
        &policy("{action: pass, port: 22}"),
        (4, 3),
        "ports are given for a protocol without ports",
        "proto: tcp",
    );
    says(
        &policy("{action: pass, proto: tcp, port: 70000}"),
        (4, 36),
        "`port` is not a port",
        "0 to 65535",
    );
    says(
        &policy("{action: pass, proto: tcp, port: 9-8}"),
        (4, 36),
        "`port` is not a port",
        "8000-8100",
    );
    says(
        &policy("{action: pass, proto: tcp, port: 1, local_port: 2}"),
        (4, 3),
        "stands beside",
        "either side",
    );
    says(&policy("{action: protect, proto: tcp}"), (4, 3), "towards whom", "remote: NETWORK");
    says(
        &policy("{action: pass, proto: tpc}"),
        (4, 25),
        "unknown value `tpc`",
        "did you mean `tcp`?",
    );
    says(&policy("{action: pass, remote: x}"), (4, 26), "is not a network", "ADDRESS/PREFIX");
    let peer = |text: &str| with(&format!("peers:\n- {text}"));
    says(&peer("{name: a}"), (4, 3), "no `address`", "add `address: IP`");
    says(&peer("{address: 10.0.0.1/32}"), (4, 13), "must be one IP address", "10.0.0.7");
    says(&peer("{address: 10.0.0.1, id: 'CN=x'}"), (4, 27), "`id` cannot be read", "asn1dn:#");
    says(&peer("{address: 10.0.0.1, psk: hunter2}"), (4, 28), "too short: 7 bytes", "urandom");
    says(
        &peer("{address: 10.0.0.1}\n- {address: 10.0.0.1}"),
        (5, 3),
        "a second peer with the address",
        "line 4",
    );
    says(
        &peer("{address: 10.0.0.1, name: a}\n- {address: 10.0.0.2, name: a}"),
        (5, 3),
        "name `a`",
        "line 4",
    );
}

#[test]
fn keys_given_twice() {
    says(
        &with("mode: transport\nmode: tunnel"),
        (4, 1),
        "`mode` is given twice",
        "the first is in ipsec.yml, line 3",
    );
    says(&with("liveness: {port: 1, port: 2}"), (3, 21), "`port` is given twice", "keep one");
}

#[test]
fn syntax() {
    says("ipsec:\n\tpsk: x\n", (2, 1), "a tab is used as indentation", "blanks");
    says(
        "ipsec:\n  mode: a\n   start: b\n",
        (3, 9),
        "a `key: value` is not possible here",
        "align the keys",
    );
    says(
        "ipsec:\n    mode: a\n  start: b\n",
        (3, 3),
        "fits neither the map above it nor a new one",
        "align it",
    );
    says("cluster: a: b\n", (1, 11), "a `key: value` is not possible here", "quote a text");
    says("ipsec_subnets:\n- 10.0.0.0/8\nfoo\n", (3, 1), "fits neither", "align it");
    says("peers: [1, 2\n", (1, 8), "this `[` is not closed", "close it with `]`");
    says("psk: *nothing\n", (1, 6), "alias refers to an anchor that is not defined", "`&name`");
    says("a: 1\n---\nb: 2\n", (2, 1), "more than one YAML document", "keep one document");
    says("a: &a [*a]\n", (1, 8), "refers to a value that it is part of", "");
    let flat = "ipsec_subnets: [10.0.0.0/8]\ninstance_certificate: |\n-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----\n";
    says(
        flat,
        (3, 1),
        "the PEM that begins here is not indented",
        "instance_certificate: |\n  -----BEGIN",
    );
    let ragged = "ca_certificates:\n- |\n    -----BEGIN CERTIFICATE-----\n  MIIE\n  -----END CERTIFICATE-----\n";
    says(ragged, (3, 5), "the PEM that begins here is not indented", "`- |` for each item");
}

#[test]
fn files_of_no_use() {
    says("", (1, 1), "the file is empty", "ipsec_subnets");
    says("# only a comment\n", (1, 1), "the file is empty", "ipsec_subnets");
    says("- 10.0.0.0/8\n", (1, 1), "must be a map of keys and values, found a list", "key: value");
    says("ipsec: 5\n", (1, 1), "`ipsec` must be a map", "indent the properties");
    says("ipsec:\n", (1, 1), "`ipsec` must be a map of properties, found nothing", "indent");
}

#[test]
fn bosh_files_without_our_job() {
    says("addons: []\n", (1, 1), "no addon has a job named `ipsec`", "- name: ipsec");
    says(
        "addons:\n- jobs: [{name: ipsecs}]\n",
        (2, 10),
        "no addon has a job",
        "where `ipsecs` stands",
    );
    says(
        "addons:\n- jobs: [{name: dns}]\n",
        (1, 1),
        "no addon has a job",
        "the jobs found are `dns`",
    );
    says(
        "addons:\n- jobs:\n  - name: ipsec\n",
        (3, 5),
        "the job `ipsec` has no properties",
        "properties:",
    );
    let typo = "addons:\n- jobs: [{name: ipsec}]\n  properties:\n    ipsecs: {}\n";
    says(typo, (4, 5), "unknown key `ipsecs`", "did you mean `ipsec`?");
    says("addons: {name: x}\n", (1, 9), "`addons` must be a list", "- name: ipsec-addon");
}

#[test]
fn addons_that_disagree() {
    let addon = |extra: &str| {
        format!(
            "- jobs: [{{name: ipsec}}]\n  properties:\n    ipsec:\n      ipsec_subnets: [10.0.0.0/8]\n      psk: {PSK}\n{extra}"
        )
    };
    ok(&format!("addons:\n{}{}", addon(""), addon("")));
    let text = format!("addons:\n{}{}", addon(""), addon("      optional: true\n"));
    says(
        &text,
        (9, 5),
        "a second addon with this job says something else: `optional` differs",
        "line 4",
    );
}

#[test]
fn included_files_are_named() {
    let texts = Texts(vec![
        ("a.yml", "peers:\n- {address: nowhere}\n".into()),
        ("twice.yml", "mode: tunnel\n".into()),
        ("loop.yml", "include: [loop.yml]\n".into()),
    ]);
    let at = |lines: &str| {
        let found = bad_with(&with(lines), &texts);
        let one = &found.reports()[0];
        (one.file.clone().unwrap_or_default(), one.line.unwrap_or(0), one.message.clone())
    };
    assert_eq!((at("include: [a.yml]").0.as_str(), at("include: [a.yml]").1), ("a.yml", 2));
    assert!(
        at("mode: transport\ninclude: [twice.yml]")
            .2
            .contains("`mode` is already set to something else")
    );
    assert!(at("include: [loop.yml]").2.contains("included twice"));
    assert!(
        at("include: [missing.yml]")
            .2
            .contains("cannot include `missing.yml`: missing.yml: No such file")
    );
    assert_eq!(at("include: a.yml").1, 3);
}

#[test]
fn bombs_are_bounded() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let m = n - 1;
        text.push_str(&format!(
            "a{n}: &a{n} [*a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}]\n"
        ));
    }
    assert!(bad(&text).render().contains("too large or too deep"));
    let mut deep = String::from("b0: &b0 x\n");
    for n in 1..500 {
        deep.push_str(&format!("b{n}: &b{n} [*b{}]\n", n - 1));
    }
    assert!(bad(&deep).render().contains("too large or too deep"));
    assert!(bad(&"[".repeat(100_000)).render().contains("nested"));
    assert!(bad(&format!("{}x", "- ".repeat(100_000))).render().contains("nested"));
}

#[test]
fn secrets_are_never_shown() {
    let key = "MIIEogIBAAKCAQEAtAkBjzr5x9g0aWgyDEmLd7m9u";
    let cases = [
        format!("psk: hunter2hunter2 bad: {key}\n"),
        format!("psk: [{key}]\nmode: x\n"),
        format!("pks: {key}\n"),
        format!("PSK: {key}\n"),
        format!("my_secret: {key}\n"),
        format!(
            "instance_private_key: |\n    -----BEGIN RSA PRIVATE KEY-----\n  {key}\n   {key}\n"
        ),
        format!("instance_private_key:\n  -----BEGIN RSA PRIVATE KEY-----\n  {key}: {key}\n"),
        format!("instance_private_key: \"-----BEGIN PRIVATE KEY-----\\n{key}\n"),
        format!(
            "instance_private_key: -----BEGIN PRIVATE KEY----- {key} -----END PRIVATE KEY-----\n"
        ),
        format!("instance-private-key: |\n  -----BEGIN PRIVATE KEY-----\n  {key}\nx\n"),
        format!("psk:\n  {key}:\n x\n"),
        format!("psk: >\n  {key}\n x: y\n"),
        format!("peers: [{{address: x, psk: '{key}'}}, {{psk: {key}, foo: 1}}]\n"),
        format!("a: &k {key}\npsk: *k\n"),
        format!("peers:\n- psk: {key}\n  psk: {key}\n"),
        format!("{key}\n"),
        format!("{key}: x\n"),
        format!("mode: {key}\njitter: {key}\ncluster: '{key} '\n"),
        format!(
            "instance_certificate: |\n  -----BEGIN PRIVATE KEY-----\n  {key}\n  -----END PRIVATE KEY-----\n"
        ),
    ];
    for text in cases {
        let found = bad(&text);
        let shown = format!("{found}{found:?}{:?}", found.reports());
        assert!(!shown.contains(&key[..16]), "shown for {text:?}:\n{shown}");
    }
}
