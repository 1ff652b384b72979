//! What was dropped and why, by name.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One counter.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// Some more.
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Relaxed);
    }
}

macro_rules! counters {
    ($($(#[$meta:meta])* $name:ident,)*) => {
        /// All counters of a pipeline. Packets, if nothing else is said.
        #[derive(Default)]
        pub struct Counters { $($(#[$meta])* pub $name: Counter,)* }

        impl Counters {
            /// Names and values.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.0.load(Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Not an ESP packet, or what was in it is not an IP packet.
    in_malformed,
    /// Verified, and what was compressed in it cannot be had: see [`crate::ipcomp::expand`].
    in_ipcomp_malformed,
    /// No SA of this SPI.
    in_no_sa,
    /// Did not verify.
    in_bad_icv,
    /// Seen before, or too late to know.
    in_replay,
    /// Its SA reached a hard limit.
    in_expired,
    /// A dummy packet (RFC 4303 2.6).
    in_dummy,
    /// Congestion experienced on a packet whose sender does not know of it (RFC 6040 4.2).
    in_ecn_dropped,
    /// Its headers are not what the SA was negotiated for.
    in_selector_mismatch,
    /// No policy, or one that wants another SA.
    in_policy_mismatch,
    /// Came in the clear where it must be protected.
    in_clear,
    /// Came in the clear and met no policy, or one that discards.
    in_discarded,
    /// Decrypted and delivered.
    in_delivered,
    /// Not an IP packet.
    out_malformed,
    /// A fragment that does not fit the others, or too many of them.
    out_bad_fragment,
    /// Met no policy, or one that discards.
    out_discarded,
    /// Sent in the clear by policy.
    out_bypassed,
    /// Sent in the clear because protection is optional and there was no SA.
    out_optional_clear,
    /// To be protected, but not to one host.
    out_not_unicast,
    /// Had to wait for an SA.
    out_no_sa_queued,
    /// Had to wait, but too many do.
    out_queue_full,
    /// Waited in vain.
    out_queue_expired,
    /// Waited for a peer that was refused.
    out_queue_dropped,
    /// Longer than the path takes; the sender was told.
    out_too_big,
    /// Sequence numbers or another hard limit ended.
    out_seq_exhausted,
    /// Protected and sent.
    out_protected,
    /// Of those, compressed (RFC 3173).
    out_compressed,
    /// Events that were not told because too many waited.
    events_dropped,
}
