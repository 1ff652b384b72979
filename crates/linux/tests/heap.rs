//! The heap of this process: a program of its own, since what other tests' threads ask for and give back counts as well.
#![cfg(target_env = "gnu")]

use linux::memory::heap_in_use;

#[test]
fn what_is_asked_for_is_counted_until_it_is_given_back() {
    const SOME: usize = 300_000;
    let before = heap_in_use().unwrap();
    let more = vec![std::hint::black_box(1u8); SOME];
    let with = heap_in_use().unwrap();
    drop(std::hint::black_box(more));
    let after = heap_in_use().unwrap();
    assert!(with >= before + SOME, "{before} -> {with}");
    assert!(after < before + SOME / 2, "{before} -> {with} -> {after}");
}
