//! Fleets that share a network and must not talk to each other.
//!
//! Each names itself in IKE_SA_INIT by a Vendor ID (RFC 7296 3.12): a prefix, and a digest of its
//! name. AUTH covers both messages (2.15), so that nobody can take it out. Who sends none is of no
//! fleet, as other daemons are.

use crypto::Provider;
use wire::payload::Payload;
use wire::registry::HashAlg;

/// Before the digest.
const PREFIX: &[u8] = b"warren cluster: ";
/// Of the digest; enough to tell names apart, and no secret.
const DIGEST: usize = 16;

/// What names this host's fleet, if it has a name.
pub(crate) fn payload(provider: &dyn Provider, name: Option<&str>) -> Option<Payload> {
    vendor_id(provider, name?).map(Payload::VendorId)
}

/// Whether the peer is of a fleet of another name.
pub(crate) fn differs(provider: &dyn Provider, name: Option<&str>, payloads: &[Payload]) -> bool {
    let Some(name) = name else { return false };
    let own = vendor_id(provider, name);
    payloads.iter().any(|payload| match payload {
        Payload::VendorId(id) => id.starts_with(PREFIX) && Some(id) != own.as_ref(),
        _ => false,
    })
}

fn vendor_id(provider: &dyn Provider, name: &str) -> Option<Vec<u8>> {
    let digest = provider.hash(HashAlg::SHA2_256, &[PREFIX, name.as_bytes()]).ok()?;
    let mut id = PREFIX.to_vec();
    id.extend(digest.iter().take(DIGEST));
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::toy::Toy;

    #[test]
    fn only_two_names_that_differ_keep_apart() {
        let says = |name: Option<&str>| Vec::from_iter(payload(&Toy, name));
        let (west, east) = (says(Some("west")), says(Some("east")));
        assert!(differs(&Toy, Some("west"), &east));
        assert!(!differs(&Toy, Some("west"), &west));
        assert!(!differs(&Toy, Some("west"), &says(None)));
        assert!(!differs(&Toy, None, &east));
        assert!(!differs(&Toy, Some("west"), &[Payload::VendorId(b"strongSwan".to_vec())]));
        assert!(differs(&Toy, Some("west"), &[Payload::VendorId(PREFIX.to_vec())]));
    }
}
