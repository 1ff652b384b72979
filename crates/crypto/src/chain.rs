//! Certificates: what is loaded from the manifest and what a peer sends.

mod crl;
mod name;
mod seen;
mod time;
mod verify;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use der::{Decode, Encode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use wire::identity::Identity;
use wire::registry::HashAlg;
use x509_cert::certificate::{CertificateInner, Raw, Version};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, SubjectAltName};

pub use self::crl::Crl;
pub use self::name::names_equal;
pub use self::seen::Proven;
pub(crate) use self::seen::Seen;
pub use self::time::rfc3339;
pub(crate) use self::verify::{check_issuer, check_leaf, unknown_issuer};
use crate::Provider;
use crate::provider::Unsupported;

/// One parsed X.509 certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its DER.
    pub der: Vec<u8>,
    /// Subject as DER of the Name, SEQUENCE included: what ID_DER_ASN1_DN carries.
    pub subject: Vec<u8>,
    /// Issuer, the same form.
    pub issuer: Vec<u8>,
    /// Subject for people, RFC 4514.
    pub subject_text: String,
    /// Serial number, big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// Validity, seconds since the Unix epoch.
    pub not_before: u64,
    /// Last valid second since the Unix epoch.
    pub not_after: u64,
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// Subject alternative names that can be IKE identities.
    pub alt_names: Vec<Identity>,
    /// Basic constraints: whether it may sign others.
    pub is_ca: bool,
    /// keyUsage bits where the extension is there: digitalSignature, keyCertSign.
    pub key_usage: Option<KeyUsage>,
    /// Purposes of extendedKeyUsage as dotted object identifiers; empty where the extension is not there.
    pub ext_key_usage: Vec<String>,
}

/// The bits of keyUsage that matter here (RFC 4945 5.1.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyUsage {
    /// digitalSignature or nonRepudiation.
    pub digital_signature: bool,
    /// keyCertSign.
    pub cert_sign: bool,
}

/// Why a certificate or a chain was refused. Each is shown with the subject it concerns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Not a certificate.
    #[error("not an X.509 certificate: {0}")]
    Malformed(String),
    /// No path to any of the CAs.
    #[error("`{subject}` was not issued by any of the trusted CAs ({cas})")]
    UnknownIssuer {
        /// The leaf's subject.
        subject: String,
        /// Subjects of the CAs that are trusted.
        cas: String,
    },
    /// Past its end.
    #[error("`{subject}` expired at {not_after}")]
    Expired {
        /// Which certificate.
        subject: String,
        /// When, RFC 3339.
        not_after: String,
    },
    /// Before its beginning.
    #[error("`{subject}` is not valid before {not_before}; is this host's clock right?")]
    NotYetValid {
        /// Which certificate.
        subject: String,
        /// When, RFC 3339.
        not_before: String,
    },
    /// keyUsage or extendedKeyUsage forbids it.
    #[error("`{subject}` must not be used for this: {what}")]
    WrongUsage {
        /// Which certificate.
        subject: String,
        /// What is missing.
        what: String,
    },
    /// A CA revoked it.
    #[error("`{subject}` was revoked at {at} by `{issuer}` (its revocation list says so)")]
    Revoked {
        /// Which certificate.
        subject: String,
        /// When, RFC 3339.
        at: String,
        /// Which CA.
        issuer: String,
    },
    /// The identity that the peer claims is not in its certificate.
    #[error("the certificate `{subject}` does not carry the identity `{identity}`")]
    IdentityNotInCertificate {
        /// The leaf's subject.
        subject: String,
        /// The claimed identity.
        identity: String,
    },
    /// Anything else that path validation finds.
    #[error("`{subject}`: {what}")]
    Other {
        /// Which certificate.
        subject: String,
        /// What it is.
        what: String,
    },
}

/// The CAs that are trusted, with the intermediates that came along with them.
#[derive(Clone, Default)]
pub struct TrustStore {
    /// Anchors.
    pub roots: Vec<Certificate>,
    /// Intermediates known locally.
    pub intermediates: Vec<Certificate>,
    /// Revocation lists, the newest first. A CA without one has revoked nothing; one whose `next_update`
    /// has passed still counts, since what was revoked stays so.
    pub crls: Vec<Crl>,
}

/// Most certificates that one PEM text may hold, and most that are considered of what a peer sends.
pub const MAX_CERTIFICATES: usize = 64;

impl Certificate {
    /// Reads one certificate. Nothing may follow it.
    pub fn from_der(der: &[u8]) -> Result<Self, ChainError> {
        let parsed = CertificateInner::<Raw>::from_der(der).map_err(malformed)?;
        let tbs = parsed.tbs_certificate();
        let (subject, issuer) = (tbs.subject(), tbs.issuer());
        let mut certificate = Self {
            der: der.to_vec(),
            subject: subject.to_der().map_err(malformed)?,
            issuer: issuer.to_der().map_err(malformed)?,
            subject_text: subject.to_string(),
            serial: trimmed(tbs.serial_number().as_bytes()).to_vec(),
            not_before: tbs.validity().not_before.to_unix_duration().as_secs(),
            not_after: tbs.validity().not_after.to_unix_duration().as_secs(),
            spki: tbs.subject_public_key_info().to_der().map_err(malformed)?,
            alt_names: Vec::new(),
            is_ca: false,
            key_usage: None,
            ext_key_usage: Vec::new(),
        };
        if tbs.version() == Version::V3 {
            certificate.read_extensions(&parsed)?;
        } else {
            // Version 1 knows no extensions; whoever trusts a self-signed one means it as a CA.
            certificate.is_ca = certificate.subject == certificate.issuer;
        }
        Ok(certificate)
    }

    fn read_extensions(&mut self, parsed: &CertificateInner<Raw>) -> Result<(), ChainError> {
        let tbs = parsed.tbs_certificate();
        if let Some((_, constraints)) =
            tbs.get_extension::<BasicConstraints>().map_err(malformed)?
        {
            self.is_ca = constraints.ca;
        }
        if let Some((_, usage)) =
            tbs.get_extension::<x509_cert::ext::pkix::KeyUsage>().map_err(malformed)?
        {
            self.key_usage = Some(KeyUsage {
                digital_signature: usage.digital_signature() || usage.non_repudiation(),
                cert_sign: usage.key_cert_sign(),
            });
        }
        if let Some((_, purposes)) = tbs.get_extension::<ExtendedKeyUsage>().map_err(malformed)? {
            self.ext_key_usage = purposes.0.iter().map(ToString::to_string).collect();
        }
        if let Some((_, names)) = tbs.get_extension::<SubjectAltName>().map_err(malformed)? {
            self.alt_names = names.0.iter().filter_map(alt_name).collect();
        }
        Ok(())
    }

    /// All certificates of a PEM text, in its order; text around them is ignored. At least one, at most [`MAX_CERTIFICATES`].
    pub fn from_pem_all(pem: &str) -> Result<Vec<Self>, ChainError> {
        let mut all = Vec::new();
        for item in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let der = item.map_err(|error| {
                ChainError::Malformed(format!("the PEM text is damaged: {error}"))
            })?;
            if all.len() == MAX_CERTIFICATES {
                return Err(ChainError::Malformed(format!(
                    "more than {MAX_CERTIFICATES} certificates in one text"
                )));
            }
            all.push(Self::from_der(&der)?);
        }
        if all.is_empty() {
            return Err(ChainError::Malformed("no `-----BEGIN CERTIFICATE-----` in it".into()));
        }
        Ok(all)
    }

    /// Whether `identity` is this certificate's subject or one of its alternative names.
    pub fn carries(&self, identity: &Identity) -> bool {
        let is_subject =
            matches!(identity, Identity::DerDn(name) if names_equal(name, &self.subject));
        is_subject || self.alt_names.iter().any(|alt| alternative_matches(alt, identity))
    }

    /// SHA-1 of the SubjectPublicKeyInfo: how a CERTREQ payload names a CA (RFC 7296 3.7).
    pub fn key_id_sha1(&self, provider: &dyn Provider) -> Result<Vec<u8>, Unsupported> {
        provider.hash(HashAlg::SHA1, &[&self.spki])
    }

    /// Whether subject and issuer are the same name.
    pub fn is_self_issued(&self) -> bool {
        names_equal(&self.subject, &self.issuer)
    }

    /// Serial number in hexadecimal, as OpenSSL shows it.
    pub fn serial_text(&self) -> String {
        if self.serial.is_empty() {
            return "00".into();
        }
        self.serial.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, serial {})", self.subject_text, self.serial_text())
    }
}

impl TrustStore {
    /// From `ca_certificates`: each item is one CA, or a chain with the root first and intermediates after it.
    ///
    /// A certificate after the first that is self-issued and a CA is taken as a root of its own, so that a bundle of
    /// several roots in one item works as well; unless it bears the name of one before it, which no chain may have.
    pub fn from_ca_items(items: &[Vec<Certificate>]) -> Self {
        let mut store = Self::default();
        for item in items {
            for (position, certificate) in item.iter().enumerate() {
                let new_name =
                    !item[..position].iter().any(|c| names_equal(&c.subject, &certificate.subject));
                let root = position == 0
                    || (certificate.is_ca && certificate.is_self_issued() && new_name);
                let list = if root { &mut store.roots } else { &mut store.intermediates };
                if !list.contains(certificate) {
                    list.push(certificate.clone());
                }
            }
        }
        store
    }

    /// Adds revocation lists.
    pub fn add_crls(&mut self, crls: impl IntoIterator<Item = Crl>) {
        self.crls.extend(crls);
        self.crls.sort_by_key(|crl| std::cmp::Reverse(crl.this_update));
        self.crls.dedup();
    }

    /// Every certificate of the store.
    pub fn all(&self) -> impl Iterator<Item = &Certificate> {
        self.roots.iter().chain(&self.intermediates)
    }

    /// Checks that `leaf`, with the `intermediates` that the peer sent, leads to one of the roots at `unix_now`, and may sign.
    ///
    /// Path building and signatures are webpki's. What it leaves out is checked here: dates and
    /// keyUsage of the root, keyCertSign of every issuer, keyUsage of the leaf, and an extendedKeyUsage
    /// that allows IKE (RFC 4945 5.1.3.12): ipsecIKE and its predecessors, serverAuth, clientAuth, any.
    pub fn verify(
        &self,
        leaf: &Certificate,
        intermediates: &[Certificate],
        unix_now: u64,
    ) -> Result<(), ChainError> {
        verify::verify(self, leaf, intermediates, unix_now)
    }
}

impl fmt::Debug for TrustStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustStore")
            .field("roots", &self.roots)
            .field("intermediates", &self.intermediates)
            .field("crls", &self.crls)
            .finish()
    }
}

fn malformed(error: der::Error) -> ChainError {
    ChainError::Malformed(error.to_string())
}

fn trimmed(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

fn alt_name(name: &GeneralName) -> Option<Identity> {
    Some(match name {
        GeneralName::DnsName(name) => Identity::Fqdn(name.as_str().to_owned()),
        GeneralName::Rfc822Name(name) => Identity::Email(name.as_str().to_owned()),
        GeneralName::DirectoryName(name) => Identity::DerDn(name.to_der().ok()?),
        GeneralName::IpAddress(address) => match address.as_bytes().len() {
            4 => Identity::Ipv4(Ipv4Addr::from(<[u8; 4]>::try_from(address.as_bytes()).ok()?)),
            16 => Identity::Ipv6(Ipv6Addr::from(<[u8; 16]>::try_from(address.as_bytes()).ok()?)),
            _ => return None,
        },
        _ => return None,
    })
}

/// A name in a certificate against a claimed identity: domain names without regard to case, the
/// local part of a mail address with it (RFC 5280 7.2, 7.5), addresses bit for bit.
fn alternative_matches(alt: &Identity, claimed: &Identity) -> bool {
    match (alt, claimed) {
        (Identity::Fqdn(a), Identity::Fqdn(b)) => a.eq_ignore_ascii_case(b),
        (Identity::Email(a), Identity::Email(b)) => {
            match (a.rsplit_once('@'), b.rsplit_once('@')) {
                (Some((a, a_host)), Some((b, b_host))) => {
                    a == b && a_host.eq_ignore_ascii_case(b_host)
                }
                _ => false,
            }
        }
        (Identity::DerDn(a), Identity::DerDn(b)) => names_equal(a, b),
        _ => alt == claimed,
    }
}
