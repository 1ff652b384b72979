//! Post-quantum pre-shared keys: a secret besides the one that authenticates goes into the keys (RFC 8784).

use crypto::provider::{Unsupported, prf_plus};
use crypto::{Provider, Secret};
use wire::payload::Notify;
use wire::registry::{NotifyType, Prf};

use crate::keys::IkeKeys;

/// A post-quantum pre-shared key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ppk {
    /// What both sides call it (PPK_ID).
    pub id: Vec<u8>,
    /// The key; 256 bits of entropy or more (RFC 8784 6).
    pub secret: Secret,
    /// Whether a peer that does not have it is refused; else the IKE SA is made without it.
    pub required: bool,
}

/// PPK_ID_FIXED: the identity names one key for as long as both keep it (RFC 8784 5.1).
const FIXED: u8 = 2;
/// PPK_ID_OPAQUE: its meaning is its maker's.
const OPAQUE: u8 = 1;

/// The three keys of an IKE SA into which the key goes (RFC 8784 3).
#[derive(Clone)]
pub struct PpkKeys {
    sk_d: Secret,
    pub(crate) sk_pi: Secret,
    pub(crate) sk_pr: Secret,
}

impl PpkKeys {
    /// `SK_d = prf+ (PPK, SK_d')`, and the same of SK_pi and SK_pr.
    pub fn derive(
        provider: &dyn Provider,
        prf: Prf,
        keys: &IkeKeys,
        ppk: &Secret,
    ) -> Result<Self, Unsupported> {
        let mix = |key: &Secret| {
            prf_plus(provider, prf, ppk.expose(), &[key.expose()], key.expose().len())
        };
        Ok(Self { sk_d: mix(&keys.sk_d)?, sk_pi: mix(&keys.sk_pi)?, sk_pr: mix(&keys.sk_pr)? })
    }

    /// Takes the place of the keys that it was made of.
    pub fn replace(&self, keys: &mut IkeKeys) {
        keys.sk_d = self.sk_d.clone();
        keys.sk_pi = self.sk_pi.clone();
        keys.sk_pr = self.sk_pr.clone();
    }
}

/// PPK_IDENTITY of an initiator.
pub fn identity(id: &[u8]) -> Notify {
    Notify::new(NotifyType::PPK_IDENTITY, [&[FIXED], id].concat())
}

/// Reads the data of an initiator's PPK_IDENTITY.
pub fn parse_identity(data: &[u8]) -> Option<&[u8]> {
    let (kind, id) = data.split_first()?;
    matches!(*kind, FIXED | OPAQUE).then_some(id)
}
