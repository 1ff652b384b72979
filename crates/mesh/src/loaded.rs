//! An accepted manifest as the program hands it over: parsed, checked, its credentials resolved.

use std::sync::Arc;

use ike::{Credentials, Secret};

/// An accepted manifest; a refused one never gets here.
#[derive(Clone)]
pub struct Loaded {
    /// Where it was read.
    pub path: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// This host's certificate, key and CAs; absent with a PSK.
    pub credentials: Option<Arc<Credentials>>,
    /// The pre-shared key of the fleet.
    pub psk: Option<Secret>,
    /// Certificates in use, for `status` and for warnings.
    pub certificates: Vec<CertificateFact>,
}

/// What `status` says of a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFact {
    /// Subject, RFC 4514.
    pub subject: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Last valid second since the Unix epoch.
    pub not_after: u64,
    /// What it is for.
    pub role: CertificateRole,
}

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateRole {
    /// This host's.
    Leaf,
    /// A root or an intermediate.
    Ca,
}

/// Days before a certificate's end at which it is spoken of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Periods {
    /// `[INFO]`.
    pub info: u32,
    /// `[WARN]`.
    pub warn: u32,
    /// `[ERROR]`.
    pub error: u32,
    /// `[CRITICAL]`.
    pub critical: u32,
}

impl Default for Periods {
    fn default() -> Self {
        Self { info: 30, warn: 14, error: 7, critical: 3 }
    }
}
