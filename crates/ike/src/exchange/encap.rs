//! Two hosts that both carry ESP faster in UDP agree to do so: the kernel sends and receives many datagrams at once, but
//! not many packets of another protocol.
//!
//! Each says so with a status notify of the private range in IKE_SA_INIT, the responder only to one who has; others
//! ignore it (RFC 7296 3.10.1). From there on it is as behind a NAT (RFC 7296 2.23).

use wire::payload::Payload;
use wire::registry::NotifyType;

use crate::config::PeerConfig;
use crate::ike_sa::{error_notify, find_notify};

/// The sender prefers ESP in UDP. Without data.
/// Of the range for private use (RFC 7296 3.10.1: 40960 to 65535).
const UDP_PREFERRED: NotifyType = NotifyType(47_388);

/// What the initiator says, and the responder if both agree.
pub(crate) fn payload(config: &PeerConfig) -> Option<Payload> {
    config.common.prefer_encap.then(|| error_notify(UDP_PREFERRED))
}

/// Whether ESP goes in UDP though there may be no NAT: one end wants it at any rate, or both prefer it.
pub(crate) fn wanted(config: &PeerConfig, theirs: &[Payload]) -> bool {
    config.common.force_encap || agreed(config, theirs)
}

/// Whether both prefer it.
pub(crate) fn agreed(config: &PeerConfig, theirs: &[Payload]) -> bool {
    config.common.prefer_encap && find_notify(theirs, UDP_PREFERRED).is_some()
}
