//! An accepted manifest as the program hands it over: parsed, checked, its credentials resolved.

use crate::plan::Plan;

/// An accepted manifest; a refused one never gets here.
#[derive(Clone)]
pub struct Loaded {
    /// Where it was read.
    pub path: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// What it means for this host; of the same address as the mesh's identity.
    pub plan: Plan,
    /// What this host proves itself with, made from the manifest's credentials.
    pub auth: ike::Auth,
    /// This host's data plane carries ESP faster in UDP: so it goes to peers of which the same holds.
    pub prefer_encap: bool,
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
    /// SHA-1 of its public key, hexadecimal: what peers call a CA by (RFC 7296 3.7).
    pub key_id: String,
    /// Of the CA that it leads to, if that is known. A root has none.
    pub ca: Option<String>,
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
