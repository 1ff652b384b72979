//! Certificate revocation lists (RFC 5280 5), from local files.

use std::fmt;
use std::sync::Arc;

use der::{Decode, Encode};
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_cert::certificate::Raw;
use x509_cert::crl::CertificateList;

use super::{Certificate, ChainError, names_equal, trimmed};

/// Lists in one PEM text, at most.
const MAX_CRLS: usize = 64;

/// One certificate revocation list.
#[derive(Clone)]
pub struct Crl {
    /// Its DER.
    pub der: Vec<u8>,
    /// The CA that made it, as DER of the Name.
    pub issuer: Vec<u8>,
    /// The same for people, RFC 4514.
    pub issuer_text: String,
    /// When it was made, seconds since the Unix epoch.
    pub this_update: u64,
    /// When there is to be a newer one; `None`: not said.
    pub next_update: Option<u64>,
    list: Arc<CertRevocationList<'static>>,
}

impl Crl {
    /// Reads one list.
    pub fn from_der(der: &[u8]) -> Result<Self, ChainError> {
        let malformed =
            |error: String| ChainError::Malformed(format!("a revocation list: {error}"));
        let parsed = CertificateList::<Raw>::from_der(der).map_err(|e| malformed(e.to_string()))?;
        let tbs = &parsed.tbs_cert_list;
        let list = OwnedCertRevocationList::from_der(der).map_err(|e| malformed(e.to_string()))?;
        Ok(Self {
            der: der.to_vec(),
            issuer: tbs.issuer.to_der().map_err(|e| malformed(e.to_string()))?,
            issuer_text: tbs.issuer.to_string(),
            this_update: tbs.this_update.to_unix_duration().as_secs(),
            next_update: tbs.next_update.map(|time| time.to_unix_duration().as_secs()),
            list: Arc::new(CertRevocationList::Owned(list)),
        })
    }

    /// All lists of a PEM text, in its order. At least one.
    pub fn from_pem_all(pem: &str) -> Result<Vec<Self>, ChainError> {
        let mut all = Vec::new();
        for item in CertificateRevocationListDer::pem_slice_iter(pem.as_bytes()) {
            let der = item.map_err(|error| {
                ChainError::Malformed(format!("the PEM text is damaged: {error}"))
            })?;
            if all.len() == MAX_CRLS {
                return Err(ChainError::Malformed(format!(
                    "more than {MAX_CRLS} revocation lists in one text"
                )));
            }
            all.push(Self::from_der(&der)?);
        }
        if all.is_empty() {
            return Err(ChainError::Malformed("no `-----BEGIN X509 CRL-----` in it".into()));
        }
        Ok(all)
    }

    /// When a certificate was revoked, if the list says so; its signature is not looked at.
    pub fn revoked_at(&self, certificate: &Certificate) -> Option<u64> {
        if !names_equal(&self.issuer, &certificate.issuer) {
            return None;
        }
        let parsed = CertificateList::<Raw>::from_der(&self.der).ok()?;
        let entries = parsed.tbs_cert_list.revoked_certificates?;
        let entry = entries
            .iter()
            .find(|entry| trimmed(entry.serial_number.as_bytes()) == certificate.serial)?;
        Some(entry.revocation_date.to_unix_duration().as_secs())
    }

    /// For path validation.
    pub(super) fn list(&self) -> &CertRevocationList<'static> {
        &self.list
    }
}

impl PartialEq for Crl {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Crl {}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crl({}, {})", self.issuer_text, self.this_update)
    }
}
