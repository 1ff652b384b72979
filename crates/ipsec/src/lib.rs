//! RFC 4301 on one host: SAs, policies, what a packet meets, and the userspace ESP that does it.
//!
//! The nouns shared by who makes SAs (`ike`), who decides about them (`mesh`) and who installs them
//! (`linux`). Pure: packets, time and randomness come in as arguments.
#![forbid(unsafe_code)]

pub mod change;
pub mod checksum;
pub mod clock;
pub mod coalesce;
pub mod dataplane;
pub mod ecn;
pub mod esp;
pub mod handover;
pub mod icmp;
pub mod ipcomp;
pub mod memory;
pub mod packet;
pub mod pipeline;
pub mod reassembly;
pub mod replay;
pub mod sa;
pub mod sad;
pub mod segment;
pub mod spd;

pub use clock::Instant;
pub use wire::esp::Spi;
