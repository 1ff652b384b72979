//! Seeds that failed once: what they found is mended, and must stay so.

use sim::{Options, scenario};

/// Scenario, hosts, seed; and what was wrong.
const FOUND: [(&str, usize, u64, &str); 12] = [
    ("halfling", 5, 3, "of two child SAs the one was kept that the peer had not got any more"),
    ("halfling", 5, 6, "the same"),
    ("halfling", 5, 8, "the same, and another pair suffered"),
    ("halfling", 5, 10, "the same"),
    ("halfling", 5, 19, "the same"),
    ("nat", 5, 4, "ESP was followed to a new mapping, IKE was not, and a living peer given up"),
    ("stuck-peer", 5, 2, "a handshake in IKE_AUTH went on being sent after `down`"),
    ("stuck-peer", 5, 3, "the same"),
    (
        "halfling",
        60,
        2,
        "a new daemon that did not know yet what it had slept for no time, again and again",
    ),
    ("drift", 5, 2, "a second handshake came to its end while policies were put right"),
    (
        "rekey",
        66,
        10,
        "a first request was let in without the cookie that its sender had been asked for",
    ),
    ("rekey", 70, 55, "both ends refused each other's rekeys until the lifetime was over"),
];

#[test]
fn what_was_found_once_stays_mended() {
    for (name, hosts, seed, what) in FOUND {
        let scenario = scenario::find(name).expect("a scenario of this name");
        let report = sim::run(Options { scenario, hosts, seed, duration: None });
        let ladder = report.ladder.as_deref().unwrap_or_default();
        assert!(report.ok, "{} ({what}): {:#?}\n{ladder}", report.replay(), report.violations);
    }
}
