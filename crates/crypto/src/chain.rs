//! Certificates: what is loaded from the manifest and what a peer sends.

use wire::identity::Identity;

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
}

impl Certificate {
    /// Reads one certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, ChainError> {
        let _ = der;
        Err(ChainError::Malformed(String::new()))
    }

    /// Whether `identity` is this certificate's subject or one of its alternative names.
    pub fn carries(&self, identity: &Identity) -> bool {
        let _ = identity;
        false
    }
}

impl TrustStore {
    /// Checks that `leaf`, with the `intermediates` that the peer sent, leads to one of the roots at `unix_now`, and may sign.
    pub fn verify(&self, leaf: &Certificate, intermediates: &[Certificate], unix_now: u64) -> Result<(), ChainError> {
        let _ = (leaf, intermediates, unix_now);
        Err(ChainError::Malformed(String::new()))
    }
}

/// What this host proves itself with, and whom it trusts.
pub struct Credentials {
    /// Its own certificate.
    pub leaf: Certificate,
    /// Intermediates sent along with it, leaf's issuer first.
    pub chain: Vec<Certificate>,
    /// Its private key.
    pub key: std::sync::Arc<dyn crate::sign::SigningKey>,
    /// Whom it trusts.
    pub trust: TrustStore,
}
