//! Capture files of whole IP packets (LINKTYPE_RAW), with times in nanoseconds.

/// What a file begins with.
pub fn header() -> Vec<u8> {
    words(&[0xa1b2_3c4d, 0x0004_0002, 0, 0, 0xffff, 101])
}

/// One packet; `at` in nanoseconds since 1970.
pub fn record(at: u64, packet: &[u8]) -> Vec<u8> {
    let len = packet.len() as u32;
    let mut out = words(&[(at / 1_000_000_000) as u32, (at % 1_000_000_000) as u32, len, len]);
    out.extend(packet);
    out
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
