//! Which list decides on an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::diagnostic::{Diagnostic, Severity};
use super::source::Span;

/// Where an address lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In this one of `ipsec_subnets`.
    Protected(IpNet),
    /// In this one of `no_ipsec_subnets`.
    Excluded(IpNet),
    /// In neither.
    Nowhere,
}

/// Both lists, so that the longest prefix is found in as many steps as there are lengths.
#[derive(Clone, Default)]
pub(crate) struct Places {
    /// Whether the network is protected; a network in both lists is not.
    nets: BTreeMap<IpNet, bool>,
    /// Lengths in use, longest first, of IPv4 and IPv6.
    lengths: [Vec<u8>; 2],
}

impl Places {
    pub(crate) fn new(protected: &[IpNet], excluded: &[IpNet]) -> Self {
        let mut nets = BTreeMap::new();
        nets.extend(protected.iter().map(|net| (*net, true)));
        nets.extend(excluded.iter().map(|net| (*net, false)));
        let lengths = [false, true].map(|v6| {
            let of_family = nets.keys().filter(|net| net.addr().is_ipv6() == v6);
            let mut lengths: Vec<u8> = of_family.map(IpNet::prefix_len).collect();
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
            lengths
        });
        Self { nets, lengths }
    }

    pub(crate) fn of(&self, address: IpAddr) -> Place {
        for length in &self.lengths[usize::from(address.is_ipv6())] {
            let Ok(net) = IpNet::new(address, *length) else { continue };
            let net = net.trunc();
            match self.nets.get(&net) {
                Some(true) => return Place::Protected(net),
                Some(false) => return Place::Excluded(net),
                None => {}
            }
        }
        Place::Nowhere
    }
}

pub(crate) fn nowhere(address: IpAddr, span: Option<Span>) -> Diagnostic {
    let length = if address.is_ipv6() { 128 } else { 32 };
    Diagnostic {
        severity: Severity::Error,
        span,
        message: format!(
            "this host's address {address} lies in neither ipsec_subnets nor no_ipsec_subnets"
        ),
        remedy: format!(
            "add `- {address}/{length}` (or its network) to ipsec_subnets if this host's traffic is to be \
             protected, to no_ipsec_subnets if not; or give the host's other address with --address"
        ),
    }
}
