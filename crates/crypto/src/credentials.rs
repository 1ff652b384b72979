//! Who this host is: its certificate, its key, and whom it trusts; and what can be wrong with them.

use std::fmt;
use std::sync::Arc;

use wire::identity::Identity;
use wire::registry::Prf;

use crate::Secret;
use crate::chain::{Certificate, ChainError, Crl, Proven, Seen, TrustStore, names_equal, rfc3339};
use crate::provider::Provider;
use crate::sign::{self, SignError, SigningKey};

/// Longest path from a leaf to its root that is looked at, and most paths.
const MAX_DEPTH: usize = 8;
const MAX_PATHS: usize = 32;

/// What a host authenticates with, and its peers against.
#[derive(Clone)]
pub struct Credentials {
    /// The host's own certificate.
    pub leaf: Certificate,
    /// Certificates that stood after the leaf in its PEM text.
    pub chain: Vec<Certificate>,
    /// The leaf's private key.
    pub key: Arc<dyn SigningKey>,
    trust: TrustStore,
    seen: Arc<Seen>,
    own_secret: Secret,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Credentials");
        out.field("leaf", &self.leaf)
            .field("chain", &self.chain)
            .field("trust", &self.trust)
            .finish_non_exhaustive()
    }
}

/// Which part of the credentials could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The host's certificate.
    #[error("the certificate: {0}")]
    Certificate(ChainError),
    /// The host's private key.
    #[error("the private key: {0}")]
    Key(#[from] SignError),
    /// One of the revocation lists, counted from 1.
    #[error("revocation list {number}: {error}")]
    Crl {
        /// Which item of the list, from 1.
        number: usize,
        /// What is wrong with it.
        error: ChainError,
    },
    /// One of the CA items, counted from 1.
    #[error("CA certificate {number}: {error}")]
    Ca {
        /// Which item of the list, from 1.
        number: usize,
        /// What is wrong with it.
        error: ChainError,
    },
}

impl Credentials {
    /// A certificate, what stood after it, its key, and the CAs that peers are checked against.
    pub fn new(
        leaf: Certificate,
        chain: Vec<Certificate>,
        key: Arc<dyn SigningKey>,
        trust: TrustStore,
    ) -> Self {
        Self { leaf, chain, key, trust, seen: Arc::default(), own_secret: Secret::default() }
    }

    /// The CAs that peers are checked against.
    pub fn trust(&self) -> &TrustStore {
        &self.trust
    }

    /// Checks that a peer's certificate, with the others that it sent (all DER), leads to one of the CAs at `unix_now`,
    /// and may sign. What was found good is remembered for as long as it is valid.
    pub fn verify_chain(
        &self,
        provider: &dyn Provider,
        leaf: &[u8],
        others: &[&[u8]],
        unix_now: u64,
    ) -> Result<Arc<Proven>, ChainError> {
        self.seen.verify(provider, &self.trust, leaf, others, unix_now)
    }

    /// Makes the secret of [`Self::own_secret`] of the private key (DER).
    pub fn with_own_secret(mut self, provider: &dyn Provider, key: &[u8]) -> Self {
        // As in HKDF-Extract (RFC 5869 2.2), the label in place of the salt. Every provider has this prf; without it
        // there would be no secret.
        let label = b"warren: secret of a host's key";
        self.own_secret = provider.prf(Prf::HMAC_SHA2_256, label, &[key]).unwrap_or_default();
        self
    }

    /// A secret that whoever has the private key has as well, and nobody else; the same after every start. It says
    /// nothing of the key. `None` where only the key's user is known, not the key.
    pub fn own_secret(&self) -> Option<&Secret> {
        (!self.own_secret.is_empty()).then_some(&self.own_secret)
    }

    /// Reads PEM texts: the leaf (with intermediates after it, if any), its key, and the CA items (root first in each).
    ///
    /// Only parses; [`Self::check`] says what is wrong with what was read.
    pub fn load(
        provider: &dyn Provider,
        certificate: &str,
        private_key: &str,
        ca_items: &[&str],
    ) -> Result<Self, LoadError> {
        let mut chain = Certificate::from_pem_all(certificate).map_err(LoadError::Certificate)?;
        let leaf = chain.remove(0);
        let der = sign::load_pem(private_key)?;
        let key = provider.signing_key(der.expose())?;
        let mut items = Vec::with_capacity(ca_items.len());
        for (index, item) in ca_items.iter().enumerate() {
            let parsed = Certificate::from_pem_all(item);
            items.push(parsed.map_err(|error| LoadError::Ca { number: index + 1, error })?);
        }
        let trust = TrustStore::from_ca_items(&items);
        Ok(Self::new(leaf, chain, key.into(), trust).with_own_secret(provider, der.expose()))
    }

    /// Adds PEM texts with revocation lists.
    pub fn with_crls(mut self, items: &[&str]) -> Result<Self, LoadError> {
        for (index, item) in items.iter().enumerate() {
            let parsed = Crl::from_pem_all(item);
            let crls = parsed.map_err(|error| LoadError::Crl { number: index + 1, error })?;
            self.trust.add_crls(crls);
        }
        // What was good without these lists need not be so with them.
        self.seen = Arc::default();
        Ok(self)
    }

    /// The identity that the certificate stands for: its subject.
    pub fn identity(&self) -> Identity {
        Identity::DerDn(self.leaf.subject.clone())
    }

    /// What to send in CERT payloads: the leaf, then the intermediates up to a root, which is left out
    /// (RFC 7296 3.6). Intermediates come from the leaf's text and from the CA items alike, since a peer may know the root alone.
    pub fn chain_to_send(&self) -> Vec<&Certificate> {
        let mut out = vec![&self.leaf];
        while out.len() <= MAX_DEPTH {
            let issuer = &out[out.len() - 1].issuer;
            if self.trust.roots.iter().any(|root| names_equal(&root.subject, issuer)) {
                break;
            }
            let known = self.chain.iter().chain(&self.trust.intermediates);
            let next =
                known.into_iter().find(|c| !out.contains(c) && names_equal(&c.subject, issuer));
            let Some(next) = next.filter(|next| !next.is_self_issued()) else { break };
            out.push(next);
        }
        out
    }

    /// The CA that the certificate leads to: of several the first that it does, at `unix_now` or as long as it was valid.
    pub fn root(&self, provider: &dyn Provider, unix_now: u64) -> Option<&Certificate> {
        if let [only] = &self.trust.roots[..] {
            return Some(only);
        }
        let at =
            unix_now.clamp(self.leaf.not_before, self.leaf.not_after.max(self.leaf.not_before));
        let between: Vec<_> = self.chain.iter().map(|c| c.der.as_slice()).collect();
        let leads = |root: &&Certificate| {
            let alone = TrustStore { roots: vec![(*root).clone()], ..self.trust.clone() };
            provider.verify_chain(&alone, &self.leaf.der, &between, at).is_ok()
        };
        self.trust.roots.iter().find(leads)
    }

    /// Everything that is wrong at `unix_now`, see [`check_credentials`].
    pub fn check(&self, provider: &dyn Provider, unix_now: u64) -> Vec<CredentialProblem> {
        check_credentials(
            provider,
            &self.leaf,
            &self.chain,
            self.key.as_ref(),
            &self.trust,
            unix_now,
        )
    }
}

/// One thing that is wrong with a host's credentials, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialProblem {
    /// The private key is another certificate's.
    #[error(
        "the private key does not belong to the certificate `{subject}`; \
         put the key that the certificate was issued for next to it, or have a certificate issued for this key"
    )]
    KeyMismatch {
        /// The leaf's subject.
        subject: String,
    },
    /// No path from the leaf to a CA.
    #[error(
        "{0}; add the CA that issued it to ca_certificates (and any intermediate, after its root, in the same item), \
         or have it issued by one of these CAs"
    )]
    NoPath(ChainError),
    /// Past its end.
    #[error(
        "`{subject}` expired at {not_after}; have it issued anew, with `warren pki renew` if the CA is Warren's"
    )]
    Expired {
        /// Which certificate.
        subject: String,
        /// When, RFC 3339.
        not_after: String,
        /// Whether it is a CA's.
        is_ca: bool,
    },
    /// Before its beginning.
    #[error(
        "`{subject}` is not valid before {not_before}; set this host's clock right, or wait until then"
    )]
    NotYetValid {
        /// Which certificate.
        subject: String,
        /// When, RFC 3339.
        not_before: String,
        /// Whether it is a CA's.
        is_ca: bool,
    },
    /// keyUsage, extendedKeyUsage or basicConstraints forbid what it is used for.
    #[error(
        "{0}; have it issued anew with the right usage: digitalSignature for hosts, CA:TRUE and keyCertSign for CAs"
    )]
    WrongUsage(ChainError),
    /// A CA and the leaf below it have one serial number.
    #[error(
        "the CA `{ca}` and the certificate `{subject}` have the same serial number {serial}; have the certificate issued anew with a serial number of its own"
    )]
    SerialOfCa {
        /// The CA's subject.
        ca: String,
        /// The leaf's subject.
        subject: String,
        /// Hexadecimal.
        serial: String,
    },
    /// A CA and the leaf below it have one subject.
    #[error(
        "the CA and the certificate have the same subject `{subject}`; have the certificate issued anew with a subject of its own"
    )]
    SubjectOfCa {
        /// The subject.
        subject: String,
    },
    /// Two CAs of one chain have one serial number.
    #[error(
        "`{first}` and `{second}` of one chain have the same serial number {serial}; have one of them issued anew"
    )]
    DuplicateSerial {
        /// One subject.
        first: String,
        /// The other.
        second: String,
        /// Hexadecimal.
        serial: String,
    },
    /// Two CAs of one chain have one subject.
    #[error(
        "two certificates of one chain have the same subject `{subject}`; have one of them issued anew under another name"
    )]
    DuplicateSubject {
        /// The subject.
        subject: String,
    },
    /// A revocation list is older than it should be.
    #[error(
        "the revocation list of `{issuer}` was to be replaced by {next_update}; fetch the present one: what was revoked since is accepted"
    )]
    StaleCrl {
        /// The CA.
        issuer: String,
        /// RFC 3339.
        next_update: String,
    },
    /// A revocation list of a CA that is not trusted here.
    #[error(
        "the revocation list of `{issuer}` is of none of these CAs; remove it, or add its CA to ca_certificates"
    )]
    ForeignCrl {
        /// The CA.
        issuer: String,
    },
    /// Path validation failed for another reason.
    #[error("{0}")]
    Invalid(ChainError),
}

impl CredentialProblem {
    /// Whether the host cannot authenticate with this. An expired CA beside the one that is used is none such.
    pub fn is_fatal(&self) -> bool {
        !matches!(
            self,
            Self::Expired { is_ca: true, .. }
                | Self::NotYetValid { is_ca: true, .. }
                | Self::StaleCrl { .. }
                | Self::ForeignCrl { .. }
        )
    }
}

/// Everything that is wrong with a host's credentials at `unix_now`; empty where all is well.
///
/// Checked: the key is the leaf's; the leaf leads to a CA and may be used; dates of every certificate; serial numbers
/// and subjects within each chain from the leaf to a root, which strongSwan confuses where they are equal.
pub fn check_credentials(
    provider: &dyn Provider,
    leaf: &Certificate,
    chain: &[Certificate],
    key: &dyn SigningKey,
    trust: &TrustStore,
    unix_now: u64,
) -> Vec<CredentialProblem> {
    let mut problems = Vec::new();
    if key.spki() != leaf.spki {
        problems.push(CredentialProblem::KeyMismatch { subject: leaf.subject_text.clone() });
    }
    problems.extend(
        std::iter::once(leaf)
            .chain(chain)
            .chain(trust.all())
            .filter_map(|c| date_problem(c, unix_now)),
    );
    let intermediates: Vec<_> =
        chain.iter().map(|certificate| certificate.der.as_slice()).collect();
    let path_problem = provider.verify_chain(trust, &leaf.der, &intermediates, unix_now).err();
    problems.extend(path_problem.map(CredentialProblem::from));
    problems.extend(trust.crls.iter().filter_map(|crl| crl_problem(crl, trust, unix_now)));
    for path in paths(leaf, chain, trust) {
        problems.extend(duplicates(&path));
    }
    let mut seen = Vec::new();
    problems.retain(|problem| {
        !seen.contains(problem) && {
            seen.push(problem.clone());
            true
        }
    });
    problems
}

impl From<ChainError> for CredentialProblem {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::UnknownIssuer { .. } => Self::NoPath(error),
            ChainError::WrongUsage { .. } => Self::WrongUsage(error),
            // Only of the leaf, or of a CA that no other can stand in for: fatal either way.
            ChainError::Expired { subject, not_after } => {
                Self::Expired { subject, not_after, is_ca: false }
            }
            ChainError::NotYetValid { subject, not_before } => {
                Self::NotYetValid { subject, not_before, is_ca: false }
            }
            other => Self::Invalid(other),
        }
    }
}

fn crl_problem(crl: &Crl, trust: &TrustStore, unix_now: u64) -> Option<CredentialProblem> {
    let issuer = crl.issuer_text.clone();
    if !trust.all().any(|ca| names_equal(&ca.subject, &crl.issuer)) {
        return Some(CredentialProblem::ForeignCrl { issuer });
    }
    let next_update = crl.next_update.filter(|at| unix_now > *at).map(rfc3339)?;
    Some(CredentialProblem::StaleCrl { issuer, next_update })
}

fn date_problem(certificate: &Certificate, unix_now: u64) -> Option<CredentialProblem> {
    let (subject, is_ca) = (certificate.subject_text.clone(), certificate.is_ca);
    if unix_now > certificate.not_after {
        return Some(CredentialProblem::Expired {
            subject,
            not_after: rfc3339(certificate.not_after),
            is_ca,
        });
    }
    (unix_now < certificate.not_before).then(|| CredentialProblem::NotYetValid {
        subject,
        not_before: rfc3339(certificate.not_before),
        is_ca,
    })
}

/// Every way up from the leaf by names, each ending where no further issuer is known.
fn paths<'a>(
    leaf: &'a Certificate,
    chain: &'a [Certificate],
    trust: &'a TrustStore,
) -> Vec<Vec<&'a Certificate>> {
    let (mut open, mut done) = (vec![vec![leaf]], Vec::new());
    while let Some(path) = open.pop() {
        let last = path[path.len() - 1];
        let issuers = chain.iter().chain(trust.all());
        let next: Vec<_> = issuers
            .filter(|c| names_equal(&c.subject, &last.issuer) && !path.contains(c))
            .collect();
        if next.is_empty() || path.len() > MAX_DEPTH || done.len() + open.len() > MAX_PATHS {
            done.push(path);
            continue;
        }
        // A root ends its path, though other certificates may bear its name.
        if trust.roots.contains(last) && path.len() > 1 {
            done.push(path);
            continue;
        }
        open.extend(next.into_iter().map(|issuer| [path.as_slice(), &[issuer]].concat()));
    }
    done
}

fn duplicates(path: &[&Certificate]) -> Vec<CredentialProblem> {
    let mut out = Vec::new();
    for (index, a) in path.iter().enumerate() {
        for b in &path[index + 1..] {
            if a.serial == b.serial {
                out.push(same_serial(a, b, index == 0));
            }
            if names_equal(&a.subject, &b.subject) {
                let subject = a.subject_text.clone();
                out.push(if index == 0 {
                    CredentialProblem::SubjectOfCa { subject }
                } else {
                    CredentialProblem::DuplicateSubject { subject }
                });
            }
        }
    }
    out
}

fn same_serial(a: &Certificate, b: &Certificate, a_is_leaf: bool) -> CredentialProblem {
    let (first, second, serial) = (a.subject_text.clone(), b.subject_text.clone(), a.serial_text());
    if a_is_leaf {
        CredentialProblem::SerialOfCa { ca: second, subject: first, serial }
    } else {
        CredentialProblem::DuplicateSerial { first, second, serial }
    }
}
