//! A new manifest changes what it changes, and nothing else.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{eventually, root};
use crate::{BASE, Mesh};

const SSH: &str = "policies: [{action: pass, proto: tcp, remote_port: 22, remote: 10.77.0.3/32}]\n";

#[test]
fn the_others_are_not_touched() {
    if !root() {
        return;
    }
    let mesh = Mesh::start(3, BASE);
    mesh.connect(0, 1);
    mesh.connect(0, 2);
    let one = &mesh.daemons[0];
    let (two, three) = (mesh.address(1), mesh.address(2));
    let before = one.spis(two);
    let count = |row: &Value| row["child_sas"][0]["packets_out"].as_u64().unwrap();
    let sent = count(&one.until(two, "a count", |row| count(row) > 0));
    one.folder.put("warren.yml", format!("{BASE}{SSH}"));
    let reply = one.json(&["reload"]);
    assert!(reply["reloaded"].as_str().unwrap().ends_with("warren.yml"), "{reply:#}");
    assert_eq!(one.json(&["explain", "10.77.0.1", "10.77.0.3", "tcp", "22"])["decision"], "pass");
    mesh.passes(0, 1, "and on it goes");
    assert_eq!(one.spis(two), before);
    one.until(two, "a greater count", |row| count(row) > sent);
    // A host that leaves the mesh: its tunnel goes, the others stay.
    let without = format!("{BASE}no_ipsec_subnets: [10.77.0.3/32]\n");
    one.folder.put("warren.yml", &without);
    one.signal(Signal::HUP);
    let gone = || one.warren(&["status", "10.77.0.3"]).err.contains("not a peer").then_some(());
    eventually("the end of a tunnel", gone);
    mesh.daemons[2].until(mesh.address(0), "the end", |row| row["state"] != "up");
    mesh.passes(0, 1, "and on");
    assert_eq!(one.spis(two), before);
    // And back.
    one.folder.put("warren.yml", BASE);
    one.warren(&["reload"]).ok();
    mesh.connect(0, 2);
    assert_eq!(one.spis(two), before);
    assert_eq!(one.peer(three)["state"], "up");
}

#[test]
fn a_tunnels_own_file_comes_and_goes_alone() {
    if !root() {
        return;
    }
    let mesh = Mesh::start(3, BASE);
    let one = &mesh.daemons[0];
    let (two, three) = (mesh.address(1), mesh.address(2));
    let main = |files: &str| {
        let text = "ipsec_subnets: [10.77.0.1/32]\npsk: correct horse battery staple\n";
        one.folder.put("warren.yml", format!("{text}include: [{files}]\n"));
    };
    for (file, host) in [("two.yml", 2), ("three.yml", 3)] {
        one.folder.put(file, format!("ipsec_subnets: [10.77.0.{host}/32]\n"));
    }
    main("two.yml");
    one.warren(&["reload"]).ok();
    mesh.connect(0, 1);
    let before = one.spis(two);
    let decision = |port: &str| {
        one.json(&["explain", "10.77.0.1", "10.77.0.3", "tcp", port])["decision"].clone()
    };
    assert_eq!(decision("80"), "pass");
    main("two.yml, three.yml");
    one.warren(&["reload"]).ok();
    mesh.connect(0, 2);
    // A file that cannot be read, or makes no sense, takes nothing away.
    let third = one.spis(three);
    for (files, content) in
        [("two.yml, four.yml", None), ("two.yml, three.yml", Some("ipsec_subnets: 7\n"))]
    {
        content.into_iter().for_each(|content| drop(one.folder.put("three.yml", content)));
        main(files);
        let name = files.rsplit(' ').next().unwrap();
        one.warren(&["reload"]).fails(1, &[name]);
        mesh.passes(0, 2, "as before");
        assert_eq!(one.spis(three), third);
    }
    main("two.yml");
    one.warren(&["reload"]).ok();
    assert_eq!(decision("80"), "pass");
    mesh.passes(0, 1, "and on it goes");
    assert_eq!(one.spis(two), before);
}

#[test]
fn a_refused_manifest_changes_nothing() {
    if !root() {
        return;
    }
    let mut mesh = Mesh::pair(BASE);
    let (node, spis) = {
        let one = &mesh.daemons[0];
        (one.json(&["status"])["node"]["manifest"].clone(), one.spis(mesh.address(1)))
    };
    for (bad, why) in [
        ("ipsec_subnets: [10.77.0.0/33]\n", "warren.yml:1"),
        ("ipsec_subnets: [10.99.0.0/24]\npsk: correct horse battery staple\n", "10.77.0.1"),
        ("\0\u{ff}", "warren.yml"),
        ("", "warren.yml"),
    ] {
        let one = &mut mesh.daemons[0];
        one.folder.put("warren.yml", bad);
        one.warren(&["reload"]).fails(1, &[why]);
        one.signal(Signal::HUP);
        assert_eq!(one.json(&["status"])["node"]["manifest"], node);
        assert!(one.is_running());
    }
    std::fs::remove_file(mesh.daemons[0].manifest()).unwrap();
    mesh.daemons[0].warren(&["reload"]).fails(1, &["warren.yml", "No such file"]);
    mesh.passes(0, 1, "as before");
    assert_eq!(mesh.daemons[0].spis(mesh.address(1)), spis);
    assert!(mesh.daemons[0].log().contains("ERROR"), "SIGHUP with a bad manifest goes unsaid");
}

#[test]
fn plan_says_what_would_change_and_changes_nothing() {
    if !root() {
        return;
    }
    let mesh = Mesh::pair(BASE);
    let one = &mesh.daemons[0];
    let spis = one.spis(mesh.address(1));
    let plan = |text: &str| {
        let path = one.folder.put("next.yml", text);
        one.json(&["plan", path.to_str().unwrap()])["changes"].clone()
    };
    let suite = format!("{BASE}esp_proposals: aes256gcm16\n");
    let suite = one.folder.put("suite.yml", suite);
    let pairs = one.json(&["plan", suite.to_str().unwrap()])["pairs"].clone();
    assert_eq!(
        (&pairs["changed"][0]["effect"], &pairs["untouched"]),
        (&"renegotiated".into(), &0.into())
    );
    let text = one.warren(&["plan", suite.to_str().unwrap()]).ok();
    assert!(text.contains("pairs: 1 renegotiated, 0 untouched"), "{text}");
    assert_eq!(plan(BASE)["nothing"], true);
    let changes = plan(&format!("{BASE}{SSH}"));
    assert_eq!(changes["nothing"], false);
    let added = changes["policies_added"].as_array().unwrap();
    assert!(!added.is_empty() && added.iter().all(|row| row["action"] == "pass"), "{changes:#}");
    let changes =
        plan(&format!("{BASE}esp_proposals: aes256gcm16\nike_proposals: aes256-sha384-ecp384\n"));
    assert_eq!(changes["settings"].as_array().unwrap().len(), 2, "{changes:#}");
    let changes = plan(&BASE.replace("correct horse", "incorrect horse"));
    assert_eq!(changes["nothing"], false, "another secret is a change: {changes:#}");
    let bad = one.folder.put("bad.yml", "ipsec_subnets: [nonsense]\n");
    one.warren(&["plan", bad.to_str().unwrap()]).fails(1, &["bad.yml:1", "nonsense"]);
    // A relative path is the operator's, not the daemon's.
    let mut relative = one.typed(&["plan", "next.yml"]);
    crate::world::finish(relative.current_dir(&*one.folder)).ok();
    // Without a daemon: two files.
    let (a, b) = (one.folder.put("a.yml", BASE), one.folder.put("b.yml", format!("{BASE}{SSH}")));
    let text = one.warren(&["plan", b.to_str().unwrap(), "--against", a.to_str().unwrap()]).ok();
    assert!(text.contains("pass"), "{text}");
    assert_eq!(one.spis(mesh.address(1)), spis);
    assert!(mesh.net.udp_arrives(0, 1, "as before", Duration::from_secs(5)));
}

#[test]
fn what_the_operator_took_down_stays_down() {
    if !root() {
        return;
    }
    let mesh = Mesh::pair(BASE);
    let one = &mesh.daemons[0];
    one.warren(&["down", "10.77.0.2"]).ok();
    one.folder.put("warren.yml", format!("{BASE}{SSH}"));
    one.warren(&["reload"]).ok();
    assert!(!mesh.net.udp_arrives(0, 1, "knock", Duration::from_millis(400)));
    assert_eq!(one.peer(mesh.address(1))["state"], "down");
    one.warren(&["up", "10.77.0.2"]).ok();
    mesh.connect(0, 1);
}

#[test]
fn another_secret_is_for_the_next_tunnel() {
    if !root() {
        return;
    }
    let other = BASE.replace("correct horse", "another horse");
    let mesh = Mesh::pair(BASE);
    let [one, two] = [&mesh.daemons[0], &mesh.daemons[1]];
    let spis = one.spis(two.address);
    one.folder.put("warren.yml", &other);
    one.warren(&["reload"]).ok();
    mesh.passes(0, 1, "as before");
    assert_eq!(one.spis(two.address), spis);
    // Child and IKE SAs are rekeyed without it; a new tunnel needs it.
    one.warren(&["rekey", "10.77.0.2"]).ok();
    one.until(two.address, "new SAs", |row| {
        crate::settled(row) && row["child_sas"][0]["spi_in"].as_str() != Some(&spis.0)
    });
    one.warren(&["restart", "10.77.0.2"]).ok();
    one.until(two.address, "a refusal", |row| row["verdict"] == "ipsec_broken");
    two.folder.put("warren.yml", &other);
    two.warren(&["reload"]).ok();
    one.warren(&["restart", "10.77.0.2"]).ok();
    mesh.connect(0, 1);
}

/// A tunnel is replaced by the side that did not begin it, and by the side that did.
#[test]
fn another_suite_replaces_the_tunnel_from_either_side() {
    if !root() {
        return;
    }
    let text = |suite: &str| format!("{BASE}esp_proposals: [{suite}]\n");
    let both = |first, second| format!("{BASE}esp_proposals: [{first}, {second}]\n");
    let mesh = Mesh::pair(&text("aes128gcm16"));
    let suite_at = |host: usize, suite: &str| {
        let peer = mesh.address(1 - host);
        mesh.daemons[host].until(peer, suite, |row| {
            crate::settled(row) && row["child_sas"][0]["suite"] == *suite
        });
    };
    let (mut old, mut new) = ("aes128gcm16", "aes256gcm16");
    for round in 0..6 {
        let [first, second] = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        // Both take either; then one of the two wants the new one alone, and has to begin.
        for host in [0, 1] {
            mesh.daemons[host].folder.put("warren.yml", both(old, new));
            mesh.daemons[host].warren(&["reload"]).ok();
            mesh.daemons[host].until(mesh.address(1 - host), "calm", crate::settled);
        }
        mesh.daemons[first].folder.put("warren.yml", text(new));
        mesh.daemons[first].warren(&["reload"]).ok();
        for host in [first, second] {
            suite_at(host, new);
        }
        mesh.daemons[second].folder.put("warren.yml", text(new));
        mesh.daemons[second].warren(&["reload"]).ok();
        mesh.passes(first, second, "over the new one");
        suite_at(first, new);
        (old, new) = (new, old);
    }
}

/// New secrets and certificates count at once with `--reauth`, and no packet is lost.
#[test]
fn reauthentication_on_demand_loses_nothing() {
    if !root() {
        return;
    }
    let other = BASE.replace("correct horse", "another horse");
    let mesh = Mesh::pair(BASE);
    let [one, two] = [&mesh.daemons[0], &mesh.daemons[1]];
    let spi = |row: &Value| row["ike_sas"][0]["spi_i"].as_str().unwrap_or_default().to_owned();
    let anew = |host: &crate::world::daemon::Daemon, peer, old: &str| {
        host.until(peer, "another tunnel", |row| crate::settled(row) && spi(row) != old)
    };
    let mut old = spi(&one.peer(two.address));
    for (here, there) in [(0, 1), (1, 0)] {
        let lost = mesh.net.lost(here, there, 1000, |number| {
            if number == 100 {
                let peer = mesh.address(there).to_string();
                mesh.daemons[here].warren(&["rekey", &peer, "--reauth"]).ok();
            }
        });
        assert_eq!(lost, 0, "{here} -> {there}");
        let row = anew(&mesh.daemons[here], mesh.address(there), &old);
        anew(&mesh.daemons[there], mesh.address(here), &old);
        old = spi(&row);
    }
    // Another secret: the first that asks for it is refused and keeps the tunnel, until the other has it too.
    for daemon in [one, two] {
        daemon.folder.put("warren.yml", &other);
    }
    one.warren(&["reload", "--reauth"]).ok();
    let refused = one.until(two.address, "a refusal", |row| row["last_error"].is_string());
    assert_eq!(
        (&refused["state"], spi(&refused)),
        (&Value::from("up"), old.clone()),
        "{refused:#}"
    );
    let lost = mesh.net.lost(0, 1, 1000, |number| {
        if number == 100 {
            two.warren(&["reload", "--reauth"]).ok();
        }
    });
    assert_eq!(lost, 0);
    anew(one, two.address, &old);
    anew(two, one.address, &old);
}
