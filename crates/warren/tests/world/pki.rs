//! Certificates of every kind, good and bad. Keys are P-256: they cost nothing.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// A certificate with its key.
pub struct Made {
    pub pem: String,
    pub key: KeyPair,
}

/// What a certificate is to say.
#[derive(Clone, Copy)]
pub struct Wish {
    pub name: &'static str,
    pub serial: u64,
    /// Days from now.
    pub from: i64,
    pub to: i64,
}

impl Wish {
    pub fn new(name: &'static str, serial: u64) -> Self {
        Self { name, serial, from: -1, to: 300 }
    }

    pub fn days(self, from: i64, to: i64) -> Self {
        Self { from, to, ..self }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, self.name);
        params.serial_number = Some(SerialNumber::from(self.serial));
        let now = OffsetDateTime::now_utc();
        params.not_before = now + Duration::days(self.from);
        params.not_after = now + Duration::days(self.to);
        params
    }
}

pub fn ca(wish: Wish) -> Made {
    let key = KeyPair::generate().unwrap();
    let mut params = wish.params();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Made { pem: params.self_signed(&key).unwrap().pem(), key }
}

pub fn leaf(ca: &Made, wish: Wish) -> Made {
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_ca_cert_pem(&ca.pem, &ca.key).unwrap();
    let mut params = wish.params();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Made { pem: params.signed_by(&key, &issuer).unwrap().pem(), key }
}

/// The three properties of a manifest.
pub fn properties(certificate: &str, key: &str, ca: &str) -> String {
    format!(
        "instance_certificate: |\n{}instance_private_key: |\n{}ca_certificates:\n- |\n{}",
        indented(certificate),
        indented(key),
        indented(ca)
    )
}

/// A CA and a leaf under it as properties.
pub fn good() -> String {
    let ca = ca(Wish::new("the CA", 1));
    let leaf = leaf(&ca, Wish::new("a host", 2));
    properties(&leaf.pem, &leaf.key.serialize_pem(), &ca.pem)
}

pub fn indented(pem: &str) -> String {
    pem.lines().map(|line| format!("  {line}\n")).collect()
}
