//! What this process may do.

use rustix::thread::{CapabilitySet, capabilities};

/// Privileges that are not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} missing: run as root, or `setcap cap_net_admin,cap_net_raw+ep` on the program, or AmbientCapabilities= in its unit", .capabilities.join(" and "))]
pub struct Missing {
    /// Their names.
    pub capabilities: Vec<&'static str>,
}

/// Whether this thread may change the network (`CAP_NET_ADMIN`) and open raw sockets (`CAP_NET_RAW`).
pub fn privileges() -> Result<(), Missing> {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    missing(effective)
}

fn missing(effective: CapabilitySet) -> Result<(), Missing> {
    let wanted =
        [(CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"), (CapabilitySet::NET_RAW, "CAP_NET_RAW")];
    let capabilities: Vec<_> =
        wanted.iter().filter(|(set, _)| !effective.contains(*set)).map(|(_, name)| *name).collect();
    if capabilities.is_empty() { Ok(()) } else { Err(Missing { capabilities }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        assert_eq!(missing(CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW), Ok(()));
        assert_eq!(missing(CapabilitySet::NET_ADMIN).unwrap_err().capabilities, ["CAP_NET_RAW"]);
        let both = missing(CapabilitySet::empty()).unwrap_err();
        assert!(both.to_string().starts_with("CAP_NET_ADMIN and CAP_NET_RAW missing"), "{both}");
    }
}
