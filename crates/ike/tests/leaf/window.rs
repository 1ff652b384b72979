//! Message ids, repeats and the retransmission schedule.

use std::time::Duration;

use ike::config::Retransmit;
use ike::window::{Answered, Due, Inbound, Window};
use ipsec::Instant;

const SCHEDULE: Retransmit = Retransmit {
    first: Duration::from_secs(1),
    factor_percent: 200,
    cap: Duration::from_secs(8),
    tries: 7,
};

fn at(secs: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(secs)
}

fn bytes(text: &str) -> Vec<Vec<u8>> {
    vec![text.as_bytes().to_vec()]
}

#[test]
fn one_request_at_a_time() {
    let mut window = Window::new();
    assert_eq!(window.next_id(), Some(0));
    window.sent(at(0), bytes("a"), SCHEDULE);
    assert_eq!((window.next_id(), window.outstanding()), (None, Some(0)));
    // A second one is not taken.
    window.sent(at(0), bytes("b"), SCHEDULE);
    assert_eq!(window.outstanding(), Some(0));
    assert_eq!(window.answered(at(3), 1), None);
    assert_eq!(
        window.answered(at(3), 0),
        Some(Answered { rtt: Some(Duration::from_secs(3)), tries: 1 })
    );
    assert_eq!(window.answered(at(3), 0), None);
    assert_eq!(window.next_id(), Some(1));
}

#[test]
fn schedule_grows_to_its_cap_and_ends() {
    let mut window = Window::new();
    window.sent(at(0), bytes("a"), SCHEDULE);
    let mut sent_at = Vec::new();
    let mut now;
    loop {
        now = window.next_timeout().unwrap();
        match window.due(now) {
            Due::Resend { messages, attempt } => {
                assert_eq!(messages, bytes("a"));
                sent_at.push((attempt, now.since(Instant::ZERO).as_secs()));
            }
            Due::GiveUp { tries, elapsed } => {
                assert_eq!((tries, elapsed.as_secs()), (7, 39));
                break;
            }
            Due::Nothing => panic!("due at {now} and yet nothing"),
        }
    }
    assert_eq!(sent_at, [(2, 1), (3, 3), (4, 7), (5, 15), (6, 23), (7, 31)]);
    window.forget();
    assert_eq!((window.next_timeout(), window.next_id()), (None, Some(1)));
}

#[test]
fn nothing_is_due_early_and_a_repeated_request_tells_no_rtt() {
    let mut window = Window::new();
    assert_eq!(window.due(at(99)), Due::Nothing);
    window.sent(at(10), bytes("a"), SCHEDULE);
    assert_eq!(window.due(at(10)), Due::Nothing);
    assert!(matches!(window.due(at(11)), Due::Resend { attempt: 2, .. }));
    assert_eq!(window.due(at(12)), Due::Nothing);
    assert_eq!(window.answered(at(12), 0), Some(Answered { rtt: None, tries: 2 }));
}

#[test]
fn replacing_keeps_the_id_and_starts_anew() {
    let mut window = Window::new();
    window.replace(at(0), bytes("nothing to replace"));
    assert_eq!(window.outstanding(), None);
    window.sent(at(0), bytes("a"), SCHEDULE);
    assert!(matches!(window.due(at(1)), Due::Resend { .. }));
    window.replace(at(2), bytes("with cookie"));
    assert_eq!((window.outstanding(), window.next_timeout()), (Some(0), Some(at(3))));
    assert!(
        matches!(window.due(at(3)), Due::Resend { messages, attempt: 2 } if messages == bytes("with cookie"))
    );
}

#[test]
fn a_silly_schedule_neither_floods_nor_overflows() {
    let silly = Retransmit {
        first: Duration::from_secs(1),
        factor_percent: 0,
        cap: Duration::MAX,
        tries: 9,
    };
    let mut window = Window::new();
    window.sent(at(0), bytes("a"), silly);
    window.due(at(1));
    assert_eq!(window.next_timeout(), Some(at(2)));
    let endless = Retransmit { first: Duration::MAX, factor_percent: u32::MAX, ..silly };
    let mut window = Window::new();
    window.sent(at(5), bytes("a"), endless);
    assert_eq!(window.next_timeout(), Some(Instant::NEVER));
}

#[test]
fn inbound_ids() {
    let mut window = Window::new();
    assert_eq!(window.classify(0), Inbound::New);
    assert_eq!(window.classify(1), Inbound::OutOfWindow);
    // Not begun: still new, as a forged one must not use it up.
    assert_eq!(window.classify(0), Inbound::New);
    window.begin();
    assert_eq!(window.classify(0), Inbound::InProgress);
    assert_eq!(window.classify(1), Inbound::New);
    window.responded(bytes("r0"));
    assert_eq!(window.classify(0), Inbound::Repeat(&bytes("r0")));
    window.begin();
    assert_eq!(window.classify(0), Inbound::OutOfWindow);
    assert_eq!(window.classify(1), Inbound::InProgress);
    assert_eq!(window.classify(u32::MAX), Inbound::OutOfWindow);
}

#[test]
fn ids_run_out_instead_of_wrapping() {
    let mut window = Window::resume(u32::MAX, u32::MAX);
    assert_eq!(window.classify(0), Inbound::OutOfWindow);
    window.sent(at(0), bytes("last"), SCHEDULE);
    assert!(window.answered(at(0), u32::MAX).is_some());
    assert!(window.exhausted());
    assert_eq!(window.next_id(), None);
}
