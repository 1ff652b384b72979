//! The parts of IKEv2 that are plain functions, against published vectors and a recorded exchange.

mod auth;
mod auth_methods;
mod collide;
mod cookie;
mod fragment;
mod kdf;
mod mobility;
mod multi_ke;
mod narrow;
mod nat;
mod negotiate;
mod ppk;
mod record;
mod recorded;
mod sk;
mod suite;
mod window;

use crypto::Secret;

/// Bytes from hex digits; anything else is skipped.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "an odd number of hex digits");
    pairs.iter().map(|[high, low]| u8::try_from(high * 16 + low).unwrap()).collect()
}

fn secret(text: &str) -> Secret {
    Secret::new(hex(text))
}
