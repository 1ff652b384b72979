//! Public-key work, done off the loop by whoever carries out the outputs.

use std::sync::Arc;

use crypto::chain::{ChainError, Proven};
use crypto::kx::{KxError, PrivateKx};
use crypto::sign::{Scheme, SignError, SigningKey};
use crypto::{Credentials, Provider, Secret};
use wire::identity::Identity;
use wire::registry::Ke;
use zeroize::Zeroizing;

use crate::error::AuthError;

/// Names a job; a result with a name that is not waited for any more is ignored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct JobId(pub u64);

/// One job.
#[derive(Clone)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What is to be done.
    pub work: Work,
}

/// What is to be done.
#[derive(Clone)]
pub enum Work {
    /// Make a private value from the seed and, if the peer's public value is known, agree with it.
    KeyShare {
        /// The method.
        method: Ke,
        /// Fresh randomness.
        seed: Zeroizing<[u8; 64]>,
        /// The peer's public value.
        peer: Option<Vec<u8>>,
    },
    /// Agree.
    Agree {
        /// The private value made earlier.
        private: Arc<dyn PrivateKx>,
        /// The peer's public value.
        peer: Vec<u8>,
    },
    /// Sign the octets of RFC 7296 2.15.
    Sign {
        /// With this key.
        key: Arc<dyn SigningKey>,
        /// In this way.
        scheme: Scheme,
        /// What is signed.
        octets: Vec<u8>,
    },
    /// Check a peer's chain, identity and signature.
    Verify {
        /// Whom to trust.
        credentials: Arc<Credentials>,
        /// DER of what the peer sent, its own certificate first.
        certificates: Vec<Vec<u8>>,
        /// Who it says it is.
        identity: Identity,
        /// How it signed.
        scheme: Scheme,
        /// What it signed.
        octets: Vec<u8>,
        /// Its signature.
        signature: Vec<u8>,
        /// Wall-clock time, seconds since the Unix epoch.
        unix_now: u64,
    },
}

/// A finished job.
#[derive(Clone)]
pub enum Done {
    /// Of `KeyShare`.
    KeyShare(Result<KeyShare, KxError>),
    /// Of `Agree`.
    Agree(Result<Secret, KxError>),
    /// Of `Sign`.
    Sign(Result<Vec<u8>, SignError>),
    /// Of `Verify`.
    Verify(Result<Arc<Proven>, AuthError>),
}

/// A private value with its public one.
#[derive(Clone)]
pub struct KeyShare {
    /// Kept until the peer's public value comes.
    pub private: Arc<dyn PrivateKx>,
    /// For the KE payload.
    pub public: Vec<u8>,
    /// The shared secret, if the peer's public value was given.
    pub shared: Option<Secret>,
}

impl Work {
    /// Does it. Takes from microseconds to some milliseconds.
    pub fn run(self, provider: &dyn Provider) -> Done {
        match self {
            Self::KeyShare { method, seed, peer } => {
                Done::KeyShare(key_share(provider, method, &seed, peer))
            }
            Self::Agree { private, peer } => Done::Agree(private.agree(&peer)),
            Self::Sign { key, scheme, octets } => Done::Sign(key.sign(scheme, &octets)),
            Self::Verify {
                credentials,
                certificates,
                identity,
                scheme,
                octets,
                signature,
                unix_now,
            } => {
                let claim = Claim { identity, scheme, octets, signature };
                Done::Verify(verify(provider, &credentials, &certificates, &claim, unix_now))
            }
        }
    }
}

fn key_share(
    provider: &dyn Provider,
    method: Ke,
    seed: &[u8; 64],
    peer: Option<Vec<u8>>,
) -> Result<KeyShare, KxError> {
    // A method that the provider lacks is never offered and never chosen.
    let private: Arc<dyn PrivateKx> = match &peer {
        None => provider.kx(method, seed).map_err(|_| KxError::Invalid)?.into(),
        Some(public) => provider.kx_answer(method, seed, public)?.into(),
    };
    let shared = peer.map(|public| private.agree(&public)).transpose()?;
    Ok(KeyShare { public: private.public(), private, shared })
}

/// What a peer says of itself.
struct Claim {
    identity: Identity,
    scheme: Scheme,
    octets: Vec<u8>,
    signature: Vec<u8>,
}

fn verify(
    provider: &dyn Provider,
    credentials: &Credentials,
    certificates: &[Vec<u8>],
    claim: &Claim,
    unix_now: u64,
) -> Result<Arc<Proven>, AuthError> {
    let (der, others) = certificates.split_first().ok_or(AuthError::NoCertificate)?;
    let others: Vec<_> = others.iter().map(Vec::as_slice).collect();
    let proven = credentials.verify_chain(provider, der, &others, unix_now)?;
    let leaf = &proven.leaf;
    if !leaf.carries(&claim.identity) {
        return Err(AuthError::Chain(ChainError::IdentityNotInCertificate {
            subject: leaf.subject_text.clone(),
            identity: claim.identity.to_string(),
        }));
    }
    provider
        .verify(claim.scheme, &leaf.spki, &claim.octets, &claim.signature)
        .map_err(|e| AuthError::BadProof(e.to_string()))?;
    Ok(proven)
}
