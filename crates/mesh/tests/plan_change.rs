//! What a new manifest changes, and what it leaves alone.

mod manifest_support;

use std::net::IpAddr;

use manifest_support::*;
use mesh::plan::{Plan, PlanDiff, SettingsDiff};

fn plan(lines: &str) -> Plan {
    let (m, _) = ok(&format!("psk: {PSK}\n{lines}\n"));
    Plan::for_host(&m, IpAddr::from([10, 0, 0, 1])).unwrap()
}

fn diff(old: &str, new: &str) -> PlanDiff {
    plan(new).diff(&plan(old))
}

const BASE: &str = "ipsec_subnets: [10.0.0.0/16, 10.2.0.0/16]";

#[test]
fn nothing_changes() {
    let d = diff(
        BASE,
        &format!("# a comment\n{}\nno_ipsec_subnets: []", BASE.replace("10.0.0.0", "10.0.7.7")),
    );
    assert!(d.is_empty(), "{d:?}");
    assert_eq!(d.to_string(), "");
}

#[test]
fn a_network_more_or_less_moves_no_other_policy() {
    let more = "ipsec_subnets: [10.1.0.0/16, 10.0.0.0/16, 10.2.0.0/16]";
    let d = diff(BASE, more);
    assert_eq!(
        (d.policies_added.len(), d.policies_removed.len(), d.policies_changed.len()),
        (2, 0, 0)
    );
    assert!(d.routes);
    let d = diff(more, BASE);
    assert_eq!(
        (d.policies_added.len(), d.policies_removed.len(), d.policies_changed.len()),
        (0, 2, 0)
    );
    assert!(d.to_string().contains("- protect (transport) out 10.1.0.0/16 any"), "{d}");
}

#[test]
fn from_protected_to_clear_is_a_change_of_the_fleet_not_of_others() {
    let d = diff(BASE, &format!("{BASE}\nno_ipsec_subnets: [10.2.0.0/16]"));
    assert_eq!((d.policies_added.len(), d.policies_removed.len()), (2, 2));
    assert!(d.policies_changed.is_empty() && d.routes);
}

#[test]
fn optional_changes_policies_in_place() {
    let d = diff(&format!("{BASE}\noptional: true"), BASE);
    assert_eq!(d.policies_changed.len(), 4);
    assert!(d.policies_changed.iter().all(|(old, new)| old.priority == new.priority));
    assert!(
        d.policies_added.is_empty()
            && d.policies_removed.is_empty()
            && d.settings.optional
            && !d.routes
    );
    assert!(
        d.to_string().contains(
            "~ protect (transport) out 10.0.0.0/16 any (was protect (transport), or clear)"
        )
    );
}

#[test]
fn peers() {
    let old =
        format!("{BASE}\npeers: [{{address: 10.0.0.2, name: a}}, {{address: 10.0.0.3, name: b}}]");
    let new = format!(
        "{BASE}\npeers: [{{address: 10.0.0.4}}, {{address: 10.0.0.3, name: b, id: b.example}}]"
    );
    let d = diff(&old, &new);
    let one = |last: u8| vec![IpAddr::from([10, 0, 0, last])];
    assert_eq!((d.peers_added, d.peers_removed, d.peers_changed), (one(4), one(2), one(3)));
    assert!(d.policies_added.is_empty() && d.settings == SettingsDiff::default());
}

#[test]
fn settings_by_kind() {
    let changed = |line: &str| diff(BASE, &format!("{BASE}\n{line}")).settings;
    let none = SettingsDiff::default();
    assert_eq!(changed("cluster: blue"), SettingsDiff { cluster: true, ..none });
    assert_eq!(changed("ike_proposals: aes256-sha384-ecp384"), SettingsDiff { ike: true, ..none });
    assert_eq!(changed("esp_proposals: aes256gcm16"), SettingsDiff { esp: true, ..none });
    assert_eq!(changed("force_udp_encapsulation: true"), SettingsDiff { esp: true, ..none });
    assert_eq!(changed("child_lifetime: 1h"), SettingsDiff { timers: true, ..none });
    assert_eq!(changed("dpddelay: 10"), SettingsDiff { timers: true, ..none });
    assert_eq!(changed("log_level: 2"), SettingsDiff { local: true, ..none });
    let (m, _) = ok(&format!("psk: another key of twenty bytes\n{BASE}\n"));
    let other = Plan::for_host(&m, IpAddr::from([10, 0, 0, 1])).unwrap();
    assert_eq!(other.diff(&plan(BASE)).settings, SettingsDiff { identity: true, ..none });
}
