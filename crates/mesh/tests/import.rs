//! Configurations of other systems: what becomes of them, what is said of the rest, and that no input harms.

use mesh::import::{Error, Format, Given, Imported, Source, import};
use mesh::manifest::{self, Manifest, NoFiles};
use proptest::prelude::*;

fn read(name: &str, text: &str) -> Imported {
    all(&[(name, text)]).unwrap()
}

fn all(files: &[(&str, &str)]) -> Result<Imported, Error> {
    let source = |(name, text): &(&str, &str)| Source {
        name: (*name).into(),
        text: (*text).into(),
        format: None,
    };
    let include = |path: &str, from: &str| Err(format!("{path} of {from} is not there"));
    import(files.iter().map(source).collect(), &include, Given::default())
}

/// What a manifest with a key, given or found, says.
#[track_caller]
fn parsed(imported: &Imported) -> Manifest {
    let mut text = imported.manifest.clone();
    if !text.contains("\npsk:") {
        text += "psk: correct horse battery staple\n";
    }
    match Manifest::parse("warren.yml", &text, &NoFiles) {
        Ok((manifest, _)) => manifest,
        Err(found) => panic!("{}\n{text}", found.render()),
    }
}

#[track_caller]
fn noted(imported: &Imported, line: usize, words: &[&str]) {
    let fits = |text: &str| words.iter().all(|word| text.contains(word));
    let found = imported.notes.iter().any(|note| note.line == line && fits(&note.text));
    assert!(found, "no note of line {line} with {words:?}: {:#?}", imported.notes);
}

fn nets(manifest: &Manifest) -> Vec<String> {
    manifest.ipsec_subnets.iter().map(ToString::to_string).collect()
}

const SETKEY: &str = "#!/usr/sbin/setkey -f
flush;
spdflush;
spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//require;
spdadd 192.0.2.2 192.0.2.1 any -P in ipsec esp/transport//require;
spdadd 192.0.2.1 198.51.100.0/24 any -P out ipsec esp/transport//use;
spdadd 192.0.2.1 203.0.113.9[8140] tcp -P out ipsec esp/transport//require;
spdadd 0.0.0.0/0[22] 0.0.0.0/0 tcp -P out prio def +100 none; # ssh
spdadd 0.0.0.0/0 0.0.0.0/0[22] tcp -P in prio def +100 none;
spdadd 0.0.0.0/0 0.0.0.0/0 icmp -P out prio def +200 none;
spdadd 0.0.0.0/0 0.0.0.0/0 icmp -P in prio def +200 none;
spdadd 192.0.2.1 192.0.2.66 any -P out discard;
add 192.0.2.1 192.0.2.2 esp 0x10001 -E aes-cbc \"0123456789abcdef\";
";

const RACOON: &str = "path pre_shared_key \"/etc/racoon/psk.txt\";
remote anonymous {
    exchange_mode main, aggressive;
    dpd_delay 20;
    lifetime time 12 hours;
    nat_traversal force;
    proposal {
        authentication_method pre_shared_key;
        dh_group modp3072;
        encryption_algorithm aes 256;
        hash_algorithm sha256;
    }
    proposal { encryption_algorithm 3des; hash_algorithm md5; dh_group 2; }
}
sainfo anonymous {
    pfs_group modp3072;
    encryption_algorithm aes 128, blowfish;
    authentication_algorithm hmac_sha256, hmac_sha1;
    compression_algorithm deflate;
    lifetime time 30 min;
}
";

#[test]
fn a_mesh_of_racoon_hosts() {
    let keys =
        "# keys\n192.0.2.2 the key of all of them here\n192.0.2.3 the key of all of them here\n";
    let files = [("ipsec-tools.conf", SETKEY), ("racoon.conf", RACOON), ("psk.txt", keys)];
    let imported = all(&files).unwrap();
    let manifest = parsed(&imported);
    assert_eq!(nets(&manifest), ["192.0.2.1/32", "192.0.2.2/32", "198.51.100.0/24"]);
    assert_eq!(manifest.mode, ipsec::sa::Mode::Transport);
    assert_eq!(manifest.ike_proposals.text, ["aes256-sha256-modp3072"]);
    assert_eq!(manifest.esp_proposals.text, ["aes128-sha256-modp3072", "aes128-sha1-modp3072"]);
    assert_eq!(manifest.lifetimes.ike.as_secs(), 12 * 3600);
    assert_eq!(manifest.lifetimes.child.as_secs(), 1800);
    assert_eq!(manifest.dpddelay.as_secs(), 20);
    assert!(manifest.force_udp_encapsulation);
    assert!(imported.manifest.contains("psk: \"the key of all of them here\""));
    // The highest priority first; both directions of one are one.
    let lines: Vec<&str> =
        imported.manifest.lines().filter(|l| l.starts_with("- {action")).collect();
    assert_eq!(
        lines,
        [
            "- {action: pass, proto: icmp}",
            "- {action: pass, proto: tcp, local_port: 22}",
            "- {action: protect, proto: tcp, remote_port: 8140, remote: \"203.0.113.9/32\", direction: out}",
            "- {action: drop, remote: \"192.0.2.66/32\", direction: out}",
        ]
    );
    noted(&imported, 6, &["optional: true"]);
    noted(&imported, 13, &["keys that are written down"]);
    noted(&imported, 3, &["aggressive"]);
    noted(&imported, 13, &["3des"]);
    noted(&imported, 15, &["blowfish"]);
    noted(&imported, 0, &["IKEv1"]);
}

/// Nothing that is protected passes in the clear because of what was read.
#[track_caller]
fn nothing_passes(imported: &Imported, line: usize) {
    noted(imported, line, &["left out", "no_ipsec_subnets"]);
    assert!(!imported.manifest.contains("action: pass"), "{}", imported.manifest);
    parsed(imported);
}

#[test]
fn a_rule_that_lets_everything_pass_is_left_out() {
    let protect = "spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//require;\n";
    for pass in [
        "spdadd 0.0.0.0/0 0.0.0.0/0 any -P out none;",
        "spdadd 192.0.2.1 192.0.2.0/24 any -P out none;",
        "spdadd 192.0.2.2 0.0.0.0/0 0 -P in none;",
    ] {
        nothing_passes(&read("ipsec-tools.conf", &format!("{protect}{pass}\n")), 2);
    }
    let protect = "ike esp transport from 192.0.2.1 to 192.0.2.2\n";
    for pass in ["flow esp from any to any type bypass", "flow from 10.1.0.1 to any type bypass"] {
        nothing_passes(&read("ipsec.conf", &format!("{protect}{pass}\n")), 2);
    }
    for remote in ["0.0.0.0/0", "dynamic", "192.0.2.7", "0.0.0.0/0[any]", "::/0[]"] {
        let text = format!(
            "connections {{ west {{ remote_addrs = 192.0.2.7\nchildren {{ all {{ mode = transport }}\n\
             clear {{ mode = pass\nremote_ts = {remote} }} }} }} }}\n"
        );
        nothing_passes(&read("swanctl.conf", &text), 3);
    }
}

#[test]
fn a_rule_that_lets_others_pass_is_taken_over() {
    let text = "spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//require;\n\
                spdadd 192.0.2.1 198.51.100.0/24 any -P out none;\n";
    let imported = read("ipsec-tools.conf", text);
    let line = "- {action: pass, remote: \"198.51.100.0/24\", direction: out}";
    assert!(imported.manifest.contains(line), "{}", imported.manifest);
    noted(&imported, 2, &["192.0.2.1/32", "every host"]);
}

#[test]
fn sections_that_are_too_deep_end_where_they_end() {
    let deep = "x {\n".repeat(20) + "mode = pass\n" + &"}\n".repeat(20);
    let text = format!(
        "connections {{ west {{ remote_addrs = 192.0.2.7\nchildren {{ all {{ mode = transport\n{deep}\
         remote_ts = 192.0.2.9 }} }} }} }}\n"
    );
    let imported = read("swanctl.conf", &text);
    assert_eq!(nets(&parsed(&imported)), ["192.0.2.9/32"]);
    assert!(imported.notes.iter().any(|note| note.text.contains("not read")));
}

const OPENBSD: &str = "# gateway
me = \"192.0.2.1\"
branches = \"{ 198.51.100.1, 198.51.100.2 }\"
include \"customer.conf\"
ike active esp transport from $me to $branches \\
    main auth hmac-sha2-256 enc aes-256 group modp2048 lifetime 3600 \\
    quick enc aes-128-gcm group none psk \"a secret that is long enough\"
ike passive esp from 10.1.0.0/16 to 10.2.0.0/16 peer 203.0.113.7 main auth hmac-md5 enc 3des group modp1024 srcid me.example psk \"another long secret, \\\"q\\\"\"
flow esp proto tcp from $me port 22 to any type bypass
esp transport from 192.0.2.1 to 192.0.2.2 spi 0x1000:0x1001 auth hmac-sha2-256
tcpmd5 from 192.0.2.1 to 192.0.2.9 spi 0x1
";

#[test]
fn a_gateway_of_openbsd() {
    let imported = read("ipsec.conf", OPENBSD);
    let manifest = parsed(&imported);
    assert_eq!(
        nets(&manifest),
        ["192.0.2.1/32", "198.51.100.1/32", "198.51.100.2/32", "203.0.113.7/32"]
    );
    let peer = manifest.peer([203, 0, 113, 7].into()).unwrap();
    assert!(peer.ike_proposals.is_none() && peer.psk.is_some());
    noted(&imported, 8, &["10.2.0.0/16 behind the gateway 203.0.113.7"]);
    for unknown in ["hmac-md5", "3des", "modp1024", "srcid me.example", "passive"] {
        noted(&imported, 8, &[unknown]);
    }
    noted(&imported, 4, &["customer.conf", "is not there"]);
    noted(&imported, 10, &["keys that are written down"]);
    noted(&imported, 11, &["TCP-MD5"]);
    assert!(
        imported.manifest.contains("- {action: pass, proto: tcp, local_port: 22}"),
        "{}",
        imported.manifest
    );
    assert_eq!(peer.psk.as_ref().unwrap().expose(), b"another long secret, \"q\"");
    // A rule without a peer means the other ends themselves.
    let peer = manifest.peer([198, 51, 100, 2].into()).unwrap();
    assert_eq!(peer.ike_proposals.as_ref().unwrap().text, ["aes256-sha256-modp2048"]);
    assert_eq!(peer.esp_proposals.as_ref().unwrap().text, ["aes128gcm16"]);
    assert_eq!(peer.psk.as_ref().unwrap().expose(), b"a secret that is long enough");
    assert_eq!(manifest.lifetimes.ike.as_secs(), 3600);
}

const SWANCTL: &str = "connections {
    west {
        version = 2
        remote_addrs = 192.0.2.7
        proposals = aes256gcm16-prfsha384-ecp384, 3des-md5-modp1024, default
        dpd_delay = 15s
        local { auth = pubkey
            certs = host.pem }
        remote { auth = pubkey
            id = \"CN=west, O=fleet\" } # who
        children {
            all {
                local_ts = 192.0.2.0/24
                remote_ts = dynamic
                mode = transport
                esp_proposals = aes256gcm16-ecp384
                start_action = start
                updown = /bin/true
            }
            ssh { mode = pass
                remote_ts = 192.0.2.0/24[tcp/22] }
        }
    }
}
secrets { ike-west { id = 192.0.2.7
  secret = \"one secret for west alone # really\" } }
pools { p { addrs = 10.9.0.0/24 } }
include conf.d/*.conf
";

#[test]
fn connections_of_strongswan() {
    let imported = read("swanctl.conf", SWANCTL);
    let manifest = parsed(&imported);
    assert_eq!(nets(&manifest), ["192.0.2.0/24", "192.0.2.7/32"]);
    let peer = manifest.peer([192, 0, 2, 7].into()).unwrap();
    assert_eq!(peer.name.as_deref(), Some("west"));
    assert_eq!(peer.start, Some(manifest::Start::Eager));
    assert_eq!(peer.ike_proposals.as_ref().unwrap().text, ["aes256gcm16-prfsha384-ecp384"]);
    assert_eq!(peer.esp_proposals.as_ref().unwrap().text, ["aes256gcm16-ecp384"]);
    assert_eq!(peer.psk.as_ref().unwrap().expose(), b"one secret for west alone # really");
    assert_eq!(peer.id.as_ref().unwrap().to_string(), "CN=west, O=fleet");
    assert_eq!(manifest.dpddelay.as_secs(), 15);
    assert_eq!(manifest.mode, ipsec::sa::Mode::Transport);
    assert!(
        imported.manifest.contains(
            "- {action: pass, proto: tcp, remote_port: 22, remote: \"192.0.2.0/24\", name: \"ssh\"}"
        ),
        "{}",
        imported.manifest
    );
    noted(&imported, 5, &["3des-md5-modp1024"]);
    noted(&imported, 8, &["host.pem", "--certificate"]);
    noted(&imported, 18, &["scripts"]);
    noted(&imported, 27, &["pools"]);
    noted(&imported, 28, &["conf.d"]);
}

#[test]
fn credentials_that_are_given_win_and_missing_ones_are_named() {
    let given = Given {
        certificate: Some("file:a.pem".into()),
        key: Some("file:a.key".into()),
        ca: Some("file:ca.pem".into()),
        psk: None,
    };
    let source = || Source { name: "s".into(), text: SETKEY.into(), format: Some(Format::Setkey) };
    let include = |_: &str, _: &str| Ok(Vec::new());
    let with = import(vec![source()], &include, given).unwrap();
    assert!(with.manifest.contains("instance_certificate: \"file:a.pem\"\n"), "{}", with.manifest);
    assert!(with.manifest.contains("ca_certificates:\n- \"file:ca.pem\"\n"));
    let without = import(vec![source()], &include, Given::default()).unwrap();
    assert!(without.manifest.contains("#instance_certificate: file:"), "{}", without.manifest);
    assert!(without.notes.iter().any(|note| note.text.contains("no credentials")));
}

#[test]
fn what_is_none_of_them_is_refused() {
    assert_eq!(all(&[("x", "hello world\n")]), Err(Error::Format("x".into())));
    assert_eq!(all(&[("x", "spdflush;\n")]), Err(Error::Nothing));
}

#[test]
fn files_that_include_themselves_end() {
    let include = |path: &str, _: &str| {
        Ok(vec![Source {
            name: path.into(),
            text: "include \"b\"\nflow from 10.0.0.1 to 10.0.0.2\n".into(),
            format: None,
        }])
    };
    let source = Source { name: "a".into(), text: "include \"b\"\n".into(), format: None };
    let imported = import(vec![source], &include, Given::default()).unwrap();
    assert!(
        imported.notes.iter().any(|note| note.text.contains("too many files")),
        "{imported:#?}"
    );
}

proptest! {
    /// Pieces of the samples in any order, with anything between: no panic, and what comes out can be read.
    #[test]
    fn no_text_harms(
        format in prop::sample::select(vec![Format::OpenBsd, Format::Setkey, Format::Racoon, Format::RacoonKeys, Format::Swanctl]),
        cuts in prop::collection::vec((0usize..1400, 0usize..200, 0usize..3, ".{0,4}"), 1..12),
    ) {
        let samples = [OPENBSD, SETKEY, RACOON, SWANCTL];
        let own = match format {
            Format::OpenBsd => 0,
            Format::Setkey => 1,
            Format::Racoon | Format::RacoonKeys => 2,
            Format::Swanctl => 3,
        };
        let mut text = String::new();
        for (from, len, which, noise) in cuts {
            let sample = samples[if which == 0 { 0 } else { own }];
            text.extend(sample.chars().skip(from).take(len));
            text += &noise;
        }
        let source = Source { name: "any".into(), text, format: Some(format) };
        let include = |_: &str, _: &str| Err("no".to_owned());
        if let Ok(imported) = import(vec![source], &include, Given::default()) {
            let refused = imported.notes.iter().find(|note| note.text.contains("is no YAML") || note.text.contains("unknown property"));
            prop_assert!(refused.is_none(), "{imported:#?}");
        }
    }
}
