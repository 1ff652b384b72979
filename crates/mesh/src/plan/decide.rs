//! Which policy decides on a packet, and which ones were looked at before it.

use ipsec::dataplane::PacketInfo;
use ipsec::spd::Flow;

use super::{Plan, Planned};

/// What becomes of a packet, by the policies alone.
#[derive(Clone, Debug)]
pub struct Decision<'a> {
    /// Out, or in; `None` where neither address is this host's: then no policy of it decides.
    pub flow: Option<Flow>,
    /// The policy that decides; `None`: none does, the packet is not Warren's and passes.
    pub policy: Option<&'a Planned>,
    /// The policies of the flow in order, up to the one that decides.
    pub trace: Vec<Trace<'a>>,
}

/// A policy that was looked at.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// Which one.
    pub planned: &'a Planned,
    /// Whether it is for the packet.
    pub matches: bool,
}

impl Plan {
    /// Decides on a packet as the data plane does.
    pub fn decide(&self, packet: &PacketInfo) -> Decision<'_> {
        let Some(flow) = self.flow_of(packet) else {
            return Decision { flow: None, policy: None, trace: Vec::new() };
        };
        let mut trace = Vec::new();
        for planned in self.policies.iter().filter(|planned| planned.policy.flow == flow) {
            let matches = planned.policy.matches(packet);
            trace.push(Trace { planned, matches });
            if matches {
                return Decision { flow: Some(flow), policy: Some(planned), trace };
            }
        }
        Decision { flow: Some(flow), policy: None, trace }
    }

    /// Policies may be for other addresses of this host too.
    fn flow_of(&self, packet: &PacketInfo) -> Option<Flow> {
        let own = |address| {
            self.is_me(address)
                || self
                    .policies
                    .iter()
                    .any(|p| p.policy.selector.local == ipnet::IpNet::from(address))
        };
        if own(packet.src) { Some(Flow::Out) } else { own(packet.dst).then_some(Flow::In) }
    }
}
