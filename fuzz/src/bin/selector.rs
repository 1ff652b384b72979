//! A TS payload: the algebra of the selectors that it holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::payload::Payload;
use wire::registry::PayloadType;
use wire::selector::TrafficSelector;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Payload::TsI(selectors)) = Payload::parse(PayloadType::TS_I, false, bytes) else {
        return;
    };
    for a in selectors.iter().take(8) {
        one(a);
        selectors.iter().take(8).for_each(|b| two(a, b));
    }
});

fn one(a: &TrafficSelector) {
    let _ = a.to_string();
    assert!(a.contains(a));
    assert_eq!(a.intersect(a), Some(*a));
    let nets = a.to_nets();
    assert!(!nets.is_empty() && nets.len() <= 254);
    assert_eq!(nets.iter().map(|n| n.network()).min(), Some(a.start));
    assert_eq!(nets.iter().map(|n| n.broadcast()).max(), Some(a.end));
}

fn two(a: &TrafficSelector, b: &TrafficSelector) {
    let both = a.intersect(b);
    assert_eq!(both, b.intersect(a));
    assert_eq!(a.contains(b), both == Some(*b));
    for (addr, port) in [(a.start, Some(a.start_port)), (b.end, Some(b.end_port)), (b.start, None)]
    {
        let each = a.admits(addr, a.protocol, port) && b.admits(addr, a.protocol, port);
        assert_eq!(each, both.is_some_and(|i| i.admits(addr, a.protocol, port)));
    }
}
