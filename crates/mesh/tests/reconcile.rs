//! Desired minus observed.

use std::net::IpAddr;
use std::sync::Arc;

use ike::ChildId;
use ipsec::Spi;
use ipsec::change::Change;
use ipsec::dataplane::{SaUsage, Snapshot};
use ipsec::sa::{Direction, Limits, Mode, Outer, Reqid, Sa, SaKey};
use ipsec::spd::{Action, Flow, Policy, PolicySelector};
use mesh::reconcile::{Reconciler, Repaired};

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn sa(spi: u32) -> Arc<Sa> {
    let key = ipsec_secret();
    Arc::new(Sa {
        spi: Spi(spi),
        src: PEER,
        dst: [10, 0, 0, 1].into(),
        direction: Direction::In,
        mode: Mode::Transport,
        reqid: Reqid(1),
        cipher: cipher(),
        encr_key: key.clone(),
        integ_key: key,
        esn: false,
        replay_window: 64,
        encap: None,
        ipcomp: None,
        limits: Limits::default().into(),
        local_ts: [].into(),
        remote_ts: [].into(),
    })
}

fn ipsec_secret() -> crypto::Secret {
    crypto::Secret::new(vec![1; 20])
}

fn cipher() -> crypto::cipher::CipherSpec {
    use wire::registry::{Encr, Integ};
    crypto::cipher::CipherSpec { encr: Encr::AES_GCM_16, key_bits: 128, integ: Integ::NONE }
}

fn usage(key: SaKey) -> SaUsage {
    SaUsage { key, bytes: 0, packets: 0, last_used: None, replays: 0, bad_icv: 0 }
}

fn policy(priority: u32, action: Action) -> Policy {
    let selector = PolicySelector {
        local: "10.0.0.1/32".parse().unwrap(),
        remote: "10.0.0.0/24".parse().unwrap(),
        protocol: None,
        local_ports: None,
        remote_ports: None,
    };
    Policy { priority, flow: Flow::Out, selector, action }
}

/// A reconciler with one policy and one SA, and a snapshot that shows just that.
fn settled() -> (Reconciler, Snapshot, SaKey) {
    let mut reconciler = Reconciler::default();
    reconciler.set_policies([policy(1, Action::Discard)].into_iter());
    let sa = sa(7);
    let key = sa.key();
    reconciler.add_sa(sa, PEER, ChildId(1));
    let policies = vec![policy(1, Action::Discard).key()];
    let snapshot = Snapshot { sas: vec![usage(key)], policies, ..Snapshot::default() };
    (reconciler, snapshot, key)
}

#[test]
fn new_policies_stand_before_old_ones_go() {
    let mut reconciler = Reconciler::default();
    let (old, new) = (policy(1, Action::Bypass), policy(2, Action::Discard));
    assert_eq!(reconciler.set_policies([old].into_iter()), [Change::PutPolicy(old)]);
    assert_eq!(
        reconciler.set_policies([new].into_iter()),
        [Change::PutPolicy(new), Change::RemovePolicy(old.key())]
    );
    assert_eq!(reconciler.set_policies([new].into_iter()), []);
    let changed = policy(2, Action::Bypass);
    assert_eq!(reconciler.set_policies([changed].into_iter()), [Change::PutPolicy(changed)]);
}

#[test]
fn what_is_right_is_left_alone() {
    let (mut reconciler, snapshot, _) = settled();
    reconciler.begin_look();
    assert_eq!(reconciler.observe(&snapshot), Default::default());
    assert_eq!(reconciler.repaired(), Repaired::default());
}

#[test]
fn nothing_is_pruned_before_a_manifest() {
    let mut reconciler = Reconciler::default();
    let (_, snapshot, _) = settled();
    reconciler.begin_look();
    assert_eq!(reconciler.observe(&snapshot), Default::default());
}

#[test]
fn a_lost_sa_is_told_and_not_installed_again() {
    let (mut reconciler, mut snapshot, key) = settled();
    snapshot.sas.clear();
    reconciler.begin_look();
    let drift = reconciler.observe(&snapshot);
    assert_eq!((drift.changes, drift.lost), (vec![], vec![(key, PEER, ChildId(1))]));
    assert_eq!(drift.text, "1 SAs missing");
    assert_eq!(reconciler.repaired(), Repaired { sas_missing: 1, ..Default::default() });
    reconciler.begin_look();
    assert_eq!(reconciler.observe(&snapshot).lost, [], "told once");
}

#[test]
fn what_an_sa_has_carried_is_shown_until_it_is_noted() {
    let (mut reconciler, mut snapshot, key) = settled();
    let other = SaKey { spi: Spi(3), ..key };
    reconciler.add_sa(sa(3), PEER, ChildId(3));
    // Nobody's, and in no order.
    snapshot.sas.extend([usage(other), usage(SaKey { spi: Spi(5), ..key })]);
    snapshot.sas.iter_mut().for_each(|usage| usage.packets = 4);
    let shown = |reconciler: &Reconciler, snapshot: &Snapshot| -> Vec<_> {
        reconciler
            .carried(snapshot)
            .iter()
            .map(|(owner, usage)| (owner.child.0, usage.key))
            .collect()
    };
    assert_eq!(shown(&reconciler, &snapshot), [(3, other), (1, key)]);
    reconciler.note_carried(&snapshot.sas[0].clone());
    assert_eq!(shown(&reconciler, &snapshot), [(3, other)]);
    snapshot.sas[0].bytes += 1;
    assert_eq!(shown(&reconciler, &snapshot), [(3, other), (1, key)]);
    // One of the same name that is installed anew has carried nothing yet.
    snapshot.sas[0].bytes -= 1;
    reconciler.remove_sa(key);
    reconciler.add_sa(sa(7), PEER, ChildId(4));
    assert_eq!(shown(&reconciler, &snapshot), [(3, other), (4, key)]);
}

#[test]
fn in_which_order_a_data_plane_lists_its_sas_does_not_matter() {
    let (mut reconciler, mut snapshot, key) = settled();
    let named = |spi| SaKey { spi: Spi(spi), ..key };
    for spi in [11, 5, 8] {
        reconciler.add_sa(sa(spi), PEER, ChildId(spi.into()));
    }
    // 5 is gone; 6 and 12 are nobody's; one is told twice.
    snapshot.sas = [12, 7, 11, 6, 7, 8].map(|spi| usage(named(spi))).into();
    reconciler.begin_look();
    let drift = reconciler.observe(&snapshot);
    assert_eq!(drift.lost, [(named(5), PEER, ChildId(5))]);
    assert_eq!(drift.changes, [6, 12].map(|spi| Change::RemoveSa(named(spi))));
}

#[test]
fn missing_policies_come_back_and_extra_entries_go() {
    let (mut reconciler, mut snapshot, key) = settled();
    let stranger = SaKey { spi: Spi(9), ..key };
    let extra = policy(5, Action::Bypass);
    reconciler.begin_look();
    reconciler.observe(&snapshot);
    snapshot.sas.push(usage(stranger));
    snapshot.policies = vec![extra.key()];
    reconciler.begin_look();
    let drift = reconciler.observe(&snapshot);
    assert_eq!(
        drift.changes,
        [
            Change::PutPolicy(policy(1, Action::Discard)),
            Change::RemovePolicy(extra.key()),
            Change::RemoveSa(stranger),
        ]
    );
    let found =
        Repaired { policies_missing: 1, policies_extra: 1, sas_extra: 1, ..Default::default() };
    assert_eq!((reconciler.repaired(), drift.found), (found, found));
    assert_eq!(
        (found.drift(), drift.text.as_str()),
        (3, "1 policies missing, 1 policies extra, 1 SAs extra")
    );
}

#[test]
fn what_changed_during_a_look_is_not_judged_by_it() {
    let (mut reconciler, snapshot, key) = settled();
    reconciler.begin_look();
    // The snapshot is older than these.
    let late = sa(8);
    let late_key = late.key();
    reconciler.add_sa(late, PEER, ChildId(2));
    reconciler.remove_sa(key);
    reconciler.set_policies([policy(3, Action::Discard)].into_iter());
    assert_eq!(reconciler.observe(&snapshot), Default::default());
    // The next one is not.
    reconciler.begin_look();
    let drift = reconciler.observe(&snapshot);
    assert_eq!(drift.lost, [(late_key, PEER, ChildId(2))]);
    assert!(drift.changes.contains(&Change::RemoveSa(key)));
}

#[test]
fn a_refused_policy_is_not_drift() {
    let (mut reconciler, mut snapshot, _) = settled();
    assert!(reconciler.policy_refused(policy(1, Action::Discard).key()));
    assert!(!reconciler.policy_refused(policy(1, Action::Discard).key()));
    snapshot.policies.clear();
    reconciler.begin_look();
    let drift = reconciler.observe(&snapshot);
    assert_eq!((drift.text.as_str(), drift.found), ("", Repaired::default()));
    // But it is tried again: what was in its way may be gone, and until then nothing protects.
    assert_eq!(drift.changes, [Change::PutPolicy(policy(1, Action::Discard))]);
    // Once it was there, its absence is drift again, and another refusal worth telling.
    snapshot.policies.push(policy(1, Action::Discard).key());
    reconciler.begin_look();
    assert_eq!(reconciler.observe(&snapshot), Default::default());
    snapshot.policies.clear();
    reconciler.begin_look();
    assert_eq!(reconciler.observe(&snapshot).found.policies_missing, 1);
    assert!(reconciler.policy_refused(policy(1, Action::Discard).key()));
}

#[test]
fn altered_entries_are_put_right_by_kind() {
    let (mut reconciler, mut snapshot, key) = settled();
    let rule = policy(1, Action::Discard);
    snapshot.altered_policies = std::mem::take(&mut snapshot.policies);
    snapshot.altered_sas.push(key);
    reconciler.begin_look();
    let drift = reconciler.observe(&snapshot);
    assert_eq!(drift.changes, [Change::PutPolicy(rule), Change::RemoveSa(key)]);
    assert_eq!(drift.lost, [(key, PEER, ChildId(1))], "its child SA is replaced");
    let found = Repaired { policies_altered: 1, sas_altered: 1, ..Default::default() };
    assert_eq!((drift.found, reconciler.repaired()), (found, found));
    assert_eq!(drift.text, "1 policies altered, 1 SAs altered");
}

#[test]
fn what_an_earlier_process_left_is_no_drift() {
    let (mut reconciler, mut snapshot, key) = settled();
    snapshot.sas.push(usage(SaKey { spi: Spi(9), ..key }));
    snapshot.policies.push(policy(5, Action::Bypass).key());
    reconciler.begin_look();
    let drift = reconciler.observe(&snapshot);
    assert_eq!((drift.changes.len(), drift.found.left_behind, drift.found.drift()), (2, 2, 0));
    // Later the same is somebody else's doing.
    reconciler.begin_look();
    assert_eq!(reconciler.observe(&snapshot).found.drift(), 2);
}

#[test]
fn flush_takes_sas_before_policies() {
    let (mut reconciler, _, key) = settled();
    let rule = policy(1, Action::Discard).key();
    assert_eq!(reconciler.flush(), [Change::RemoveSa(key), Change::RemovePolicy(rule)]);
    assert_eq!(reconciler.desired(), (0, 0));
}

/// Two peers that come to be at one address may have chosen one SPI: nobody takes another's SA over.
#[test]
fn an_sa_does_not_move_to_the_name_of_another() {
    let (there, local) = (IpAddr::from([192, 0, 2, 9]), IpAddr::from([10, 0, 0, 1]));
    let outbound =
        |dst| Arc::new(Sa { src: local, dst, direction: Direction::Out, ..(*sa(7)).clone() });
    let mut reconciler = Reconciler::default();
    let (own, other) = (outbound(PEER), outbound(there));
    let (own_key, other_key) = (own.key(), other.key());
    reconciler.add_sa(own, PEER, ChildId(1));
    reconciler.add_sa(other, [10, 0, 0, 3].into(), ChildId(2));
    let outer = Outer { local, remote: there, encap: None };
    assert_eq!(reconciler.move_sa(own_key, outer), None);
    let child = |key| reconciler.owner(key).map(|owner| owner.child);
    assert_eq!((child(own_key), child(other_key)), (Some(ChildId(1)), Some(ChildId(2))));
    let free = Outer { remote: [192, 0, 2, 10].into(), ..outer };
    let moved = reconciler.move_sa(own_key, free).unwrap();
    assert_eq!((moved.dst, reconciler.owner(own_key)), (free.remote, None));
}

/// What a newer SA to the same place carries is let go later; one to another place may carry packets until it is gone.
#[test]
fn only_a_newer_one_to_the_same_place_supersedes() {
    let mut reconciler = Reconciler::default();
    let outbound = |spi, dst: [u8; 4]| {
        Arc::new(Sa { direction: Direction::Out, dst: dst.into(), ..(*sa(spi)).clone() })
    };
    let old = outbound(7, [10, 0, 0, 2]);
    let key = old.key();
    reconciler.add_sa(old, PEER, ChildId(1));
    assert!(!reconciler.is_superseded(key));
    reconciler.add_sa(outbound(8, [192, 0, 2, 1]), PEER, ChildId(2));
    assert!(!reconciler.is_superseded(key));
    reconciler.add_sa(outbound(9, [10, 0, 0, 2]), PEER, ChildId(3));
    assert!(reconciler.is_superseded(key));
}
