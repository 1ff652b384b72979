//! What this process holds of memory.

/// Bytes that the program has asked the C library for and not given back, its bookkeeping included; `None` where the C
/// library does not say. Memory that cryptography or a thread mapped by itself is not in it.
pub fn heap_in_use() -> Option<usize> {
    crate::sys::heap_in_use()
}

/// Gives to the system what the C library keeps of freed memory for later; allocations of other threads may wait meanwhile. Does nothing
/// where the C library is another one than glibc.
pub fn give_back() {
    crate::sys::give_back();
}
