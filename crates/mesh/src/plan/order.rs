//! Priorities: which policy is looked at first.
//!
//! Below: what IPsec needs, then the exceptions in their order, then the networks, longest prefix
//! first and of one length those in clear first. A network's number follows from itself alone
//! (but for a rare collision), so that a change of the manifest moves no other policy.

use std::collections::BTreeSet;

use ipnet::IpNet;

const IMPLICIT: u32 = 1_000;
const EXCEPTIONS: u32 = 10_000;
const NETWORKS: u32 = 1 << 24;
/// Networks of one length and kind, as bits.
const SLOTS: u32 = 20;

/// What a policy for a network is, in the order of looking.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Clear,
    Protected,
    Silent,
}

/// Gives out priorities, each once.
pub(super) struct Priorities {
    implicit: u32,
    exceptions: u32,
    taken: BTreeSet<u32>,
}

impl Priorities {
    pub(super) fn new() -> Self {
        Self { implicit: IMPLICIT, exceptions: EXCEPTIONS, taken: BTreeSet::new() }
    }

    pub(super) fn implicit(&mut self) -> u32 {
        self.implicit += 1;
        self.implicit - 1
    }

    pub(super) fn exception(&mut self) -> u32 {
        self.exceptions += 1;
        self.exceptions - 1
    }

    pub(super) fn network(&mut self, kind: Kind, net: IpNet) -> u32 {
        let short_by = u32::from(net.max_prefix_len() - net.prefix_len());
        let band = NETWORKS + ((short_by * 4 + kind as u32) << SLOTS);
        let mask = (1 << SLOTS) - 1;
        let mut slot = hash(net) & mask;
        // There are ten times as many slots as policies: a free one is near.
        while !self.taken.insert(band + slot) {
            slot = (slot + 1) & mask;
        }
        band + slot
    }
}

/// FNV-1a: the same on every host and in every version.
fn hash(net: IpNet) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    match net {
        IpNet::V4(net) => net.network().octets().iter().fold(0x811c_9dc5, step),
        IpNet::V6(net) => net.network().octets().iter().fold(0x811c_9dc5, step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_do_not_overlap() {
        let mut order = Priorities::new();
        let net = |text: &str| text.parse::<IpNet>().unwrap_or_default();
        let ranked = [
            order.implicit(),
            order.implicit(),
            order.exception(),
            order.network(Kind::Clear, net("10.0.0.1/32")),
            order.network(Kind::Protected, net("10.0.0.1/32")),
            order.network(Kind::Clear, net("10.0.0.0/16")),
            order.network(Kind::Protected, net("10.0.0.0/16")),
            order.network(Kind::Silent, net("10.0.0.0/16")),
            order.network(Kind::Protected, net("2001:db8::/32")),
            order.network(Kind::Silent, net("::/0")),
        ];
        assert!(ranked.is_sorted_by(|a, b| a < b), "{ranked:?}");
        let again = order.network(Kind::Protected, net("10.0.0.0/16"));
        assert_ne!(again, ranked[6]);
    }
}
