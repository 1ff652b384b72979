//! Chains that were found good. In a fleet the same few come again and again, and building a path costs a signature or two.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use wire::registry::HashAlg;

use super::{Certificate, ChainError, TrustStore};
use crate::provider::Provider;

/// Chains that are remembered, at most; then all are forgotten.
const MOST: usize = 4096;

/// By what a peer proved who it is.
#[derive(Clone, Debug)]
pub struct Proven {
    /// Its certificate.
    pub leaf: Certificate,
    /// The trusted CA that the certificate leads to; the first, where there are several.
    pub root: Option<Certificate>,
}

/// What was found good under one [`TrustStore`]. Of no use for another one.
#[derive(Default)]
pub(crate) struct Seen(Mutex<BTreeMap<Vec<u8>, Good>>);

struct Good {
    proven: Arc<Proven>,
    /// When it was looked at, and the first end of any certificate that may have been needed, seconds since the Unix epoch.
    from: u64,
    until: u64,
}

impl Seen {
    /// Looks at a chain, the leaf first, unless that was done; refused ones are looked at each time.
    pub(crate) fn verify(
        &self,
        provider: &dyn Provider,
        trust: &TrustStore,
        leaf: &[u8],
        others: &[&[u8]],
        unix_now: u64,
    ) -> Result<Arc<Proven>, ChainError> {
        let name = name(provider, leaf, others);
        if let Some(proven) = name.as_ref().and_then(|name| self.find(name, unix_now)) {
            return Ok(proven);
        }
        let proven = Arc::new(look(provider, trust, leaf, others, unix_now)?);
        if let Some(name) = name {
            let until = first_end(trust, &proven.leaf, others, unix_now);
            self.keep(name, Good { proven: proven.clone(), from: unix_now, until });
        }
        Ok(proven)
    }

    fn find(&self, name: &[u8], unix_now: u64) -> Option<Arc<Proven>> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let good = table.get(name).filter(|good| (good.from..=good.until).contains(&unix_now))?;
        Some(good.proven.clone())
    }

    fn keep(&self, name: Vec<u8>, good: Good) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= MOST {
            table.clear();
        }
        table.insert(name, good);
    }
}

/// SHA-256 of all certificates with their lengths; `None` where the provider has no SHA-256.
fn name(provider: &dyn Provider, leaf: &[u8], others: &[&[u8]]) -> Option<Vec<u8>> {
    let all = || std::iter::once(&leaf).chain(others);
    let lengths: Vec<[u8; 8]> = all().map(|der| (der.len() as u64).to_be_bytes()).collect();
    let parts: Vec<&[u8]> =
        lengths.iter().zip(all()).flat_map(|(len, der)| [&len[..], der]).collect();
    provider.hash(HashAlg::SHA2_256, &parts).ok()
}

fn look(
    provider: &dyn Provider,
    trust: &TrustStore,
    leaf: &[u8],
    others: &[&[u8]],
    unix_now: u64,
) -> Result<Proven, ChainError> {
    let verified = |trust: &TrustStore| provider.verify_chain(trust, leaf, others, unix_now);
    let leaf = verified(trust)?;
    let alone = |root: &Certificate| TrustStore { roots: vec![root.clone()], ..trust.clone() };
    let root = match &trust.roots[..] {
        [only] => Some(only.clone()),
        several => several.iter().find(|root| verified(&alone(root)).is_ok()).cloned(),
    };
    Ok(Proven { leaf, root })
}

/// Which path was found is not known: the first end of all that could have been on it.
fn first_end(trust: &TrustStore, leaf: &Certificate, others: &[&[u8]], unix_now: u64) -> u64 {
    let sent = others.iter().filter_map(|der| Certificate::from_der(der).ok().map(|c| c.not_after));
    let known = trust.all().map(|c| c.not_after);
    sent.chain(known).filter(|end| *end >= unix_now).fold(leaf.not_after, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::{Authority, Toy};

    const NOW: u64 = 1000;

    fn chain(until: u64) -> (TrustStore, Certificate) {
        let authority = Authority::new("CA");
        let (leaf, _) = authority.issue("host", &[], (0, until));
        (TrustStore { roots: vec![authority.certificate], ..TrustStore::default() }, leaf)
    }

    #[test]
    fn a_chain_is_looked_at_once_within_its_validity() {
        let (trust, leaf) = chain(2 * NOW);
        let (seen, nobody) = (Seen::default(), TrustStore::default());
        let verify = |trust, at| seen.verify(&Toy, trust, &leaf.der, &[], at);
        assert!(verify(&nobody, NOW).is_err());
        assert_eq!(verify(&trust, NOW).unwrap().root.as_ref(), trust.roots.first());
        // Nobody is trusted here: only what is remembered can be good.
        assert!(verify(&nobody, NOW).is_ok() && verify(&nobody, 2 * NOW).is_ok());
        for outside in [NOW - 1, 2 * NOW + 1] {
            assert!(verify(&nobody, outside).is_err(), "at {outside}");
        }
    }

    #[test]
    fn another_chain_is_another() {
        let (trust, leaf) = chain(2 * NOW);
        let (seen, nobody) = (Seen::default(), TrustStore::default());
        seen.verify(&Toy, &trust, &leaf.der, &[], NOW).unwrap();
        let (other, _) = Authority::new("CA").issue("other", &[], (0, 2 * NOW));
        assert!(seen.verify(&Toy, &nobody, &other.der, &[], NOW).is_err());
        assert!(seen.verify(&Toy, &nobody, &leaf.der, &[&leaf.der], NOW).is_err());
    }
}
