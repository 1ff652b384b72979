//! What may stand in a datagram: names and bytes.
//!
//! Pure: no cryptography, no clock, no state. Everything a hostile peer sends is read here first.
#![forbid(unsafe_code)]

pub mod bytes;
pub mod datagram;
pub mod dn;
pub mod esp;
pub mod identity;
pub mod kept;
pub mod message;
pub mod notify;
pub mod payload;
pub mod pretty;
pub mod proposal;
pub mod registry;
pub mod rungs;
pub mod selector;
pub mod suite_text;
