//! ECDH on the NIST curves (RFC 5903) and X25519 (RFC 8031).

use aws_lc_rs::agreement::{self, Algorithm, ParsedPublicKey, PrivateKey, UnparsedPublicKey};
use wire::registry::Ke;

use super::expand;
use crate::Secret;
use crate::kx::{KxError, PrivateKx};
use crate::provider::Unsupported;

/// First byte of an uncompressed point in SEC1, which IKE leaves out (RFC 5903 7).
const UNCOMPRESSED: u8 = 4;

#[derive(Clone, Copy)]
struct Curve {
    algorithm: &'static Algorithm,
    /// Bytes of a scalar and of one coordinate.
    len: usize,
    /// Bits of the top byte of a scalar that can be set.
    top: u8,
    nist: bool,
}

fn curve(method: Ke) -> Option<Curve> {
    Some(match method {
        Ke::ECP_256 => Curve { algorithm: &agreement::ECDH_P256, len: 32, top: 0xff, nist: true },
        Ke::ECP_384 => Curve { algorithm: &agreement::ECDH_P384, len: 48, top: 0xff, nist: true },
        Ke::ECP_521 => Curve { algorithm: &agreement::ECDH_P521, len: 66, top: 0x01, nist: true },
        Ke::CURVE25519 => Curve { algorithm: &agreement::X25519, len: 32, top: 0xff, nist: false },
        _ => return None,
    })
}

pub(crate) fn knows(method: Ke) -> bool {
    curve(method).is_some()
}

pub(crate) fn check(method: Ke, public: &[u8]) -> Option<Result<(), KxError>> {
    let curve = curve(method)?;
    Some(curve.check_len(public).and_then(|()| {
        // Every 32-byte string is a public key of X25519; the zero result is caught in `agree`.
        if !curve.nist {
            return Ok(());
        }
        ParsedPublicKey::try_from(curve.peer(public)).map(|_| ()).map_err(|_| KxError::Invalid)
    }))
}

struct Ecdh {
    curve: Curve,
    private: PrivateKey,
    public: Vec<u8>,
}

pub(crate) fn private(
    method: Ke,
    seed: &[u8; 64],
) -> Option<Result<Box<dyn PrivateKx>, Unsupported>> {
    let curve = curve(method)?;
    // A candidate is refused if it is 0 or not below the order: 1 in 2^32 at worst, so a few tries are plenty.
    let made = (0..=u8::MAX).find_map(|attempt| {
        let mut scalar = Secret::new(expand(seed, method, attempt)).expose()[..curve.len].to_vec();
        scalar[0] &= curve.top;
        let scalar = Secret::new(scalar);
        PrivateKey::from_private_key(curve.algorithm, scalar.expose()).ok()
    });
    let kx = made.and_then(|private| Ecdh::new(curve, private));
    Some(kx.map(|kx| Box::new(kx) as _).ok_or_else(|| Unsupported(method.to_string())))
}

pub(crate) fn with_private(method: Ke, private: &[u8]) -> Option<Box<dyn PrivateKx>> {
    let curve = curve(method)?;
    let private = PrivateKey::from_private_key(curve.algorithm, private).ok()?;
    Ecdh::new(curve, private).map(|kx| Box::new(kx) as _)
}

impl Curve {
    fn public_len(&self) -> usize {
        if self.nist { 2 * self.len } else { self.len }
    }

    fn check_len(&self, public: &[u8]) -> Result<(), KxError> {
        let (expected, got) = (self.public_len(), public.len());
        if expected == got { Ok(()) } else { Err(KxError::Length { expected, got }) }
    }

    fn peer(&self, public: &[u8]) -> UnparsedPublicKey<Vec<u8>> {
        let mut point = Vec::with_capacity(1 + public.len());
        if self.nist {
            point.push(UNCOMPRESSED);
        }
        point.extend_from_slice(public);
        UnparsedPublicKey::new(self.algorithm, point)
    }
}

impl Ecdh {
    fn new(curve: Curve, private: PrivateKey) -> Option<Self> {
        let public = private.compute_public_key().ok()?;
        let public = public.as_ref();
        let public = if curve.nist { public.strip_prefix(&[UNCOMPRESSED])? } else { public };
        Some(Self { curve, private, public: public.to_vec() })
    }
}

impl PrivateKx for Ecdh {
    fn public(&self) -> Vec<u8> {
        self.public.clone()
    }

    fn agree(&self, peer_public: &[u8]) -> Result<Secret, KxError> {
        self.curve.check_len(peer_public)?;
        let peer = self.curve.peer(peer_public);
        agreement::agree(&self.private, peer, KxError::Invalid, |shared| Ok(Secret::from(shared)))
    }
}
