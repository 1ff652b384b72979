//! What this process holds of memory.

/// Bytes that the program has asked the C library for and not given back, its bookkeeping included; `None` where the C
/// library does not say. Memory that cryptography or a thread mapped by itself is not in it.
pub fn heap_in_use() -> Option<usize> {
    crate::sys::heap_in_use()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_is_asked_for_is_counted_until_it_is_given_back() {
        const SOME: usize = 300_000;
        let before = heap_in_use().unwrap();
        let more = vec![std::hint::black_box(1u8); SOME];
        let with = heap_in_use().unwrap();
        drop(std::hint::black_box(more));
        // Other tests' threads ask for memory at the same time, each from an arena of its own that counts as well.
        assert!(with >= before + SOME / 2, "{before} -> {with}");
    }
}
