//! `warren pki`: a CA and certificates under it, good enough for production and for the lab.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};

use crate::args::KeyType;

/// A key with its certificate, both PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: zeroize::Zeroizing<String>,
}

/// Seconds of a day.
pub const DAY: u64 = 86_400;
/// So much before it is made a certificate begins: small clock differences do no harm.
const EARLIER: u64 = 60;

/// Seconds from now on of a certificate that is good for so many days from its beginning to its end.
pub fn days(count: u32) -> u64 {
    (u64::from(count) * DAY).saturating_sub(EARLIER)
}

/// Why no certificate came about.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is there already.
    #[error("{} is there already; `--force` replaces it", .0.display())]
    Exists(PathBuf),
    /// The certificate library refused.
    #[error("{what}: {source}")]
    Library {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: rcgen::Error,
    },
    /// A key could not be written as text.
    #[error("writing the key: {0}")]
    Encoding(String),
    /// No serial number.
    #[error("{0}")]
    Random(#[from] linux::random::Error),
    /// A name that no certificate can carry.
    #[error("`{0}` is neither an address, a host name nor an e-mail address")]
    BadName(String),
}

/// What a certificate says.
pub struct Request<'a> {
    /// Common name.
    pub name: &'a str,
    /// Kind of key.
    pub key: KeyType,
    /// Seconds of validity after `unix_now`.
    pub seconds: u64,
    /// Subject alternative names.
    pub sans: &'a [String],
    /// Now, in seconds since the Unix epoch.
    pub unix_now: u64,
}

/// A self-signed CA.
pub fn make_ca(request: &Request<'_>) -> Result<Issued, PkiError> {
    let key = generate(request.key)?;
    let mut params = params(request)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(library("signing the CA certificate"))?;
    Ok(Issued { certificate: certificate.pem(), key: key_text(&key)? })
}

/// A certificate for hosts, signed by a CA.
pub fn make_leaf(ca: &Issued, request: &Request<'_>) -> Result<Issued, PkiError> {
    let ca_key = KeyPair::from_pem(&ca.key).map_err(library("reading the CA's key"))?;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, &ca_key)
        .map_err(library("reading the CA's certificate"))?;
    let key = generate(request.key)?;
    let mut params = params(request)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // ipsecIKE (RFC 4945 5.1.3.12); serverAuth for peers that know only that.
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]),
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let certificate =
        params.signed_by(&key, &issuer).map_err(library("signing the certificate"))?;
    Ok(Issued { certificate: certificate.pem(), key: key_text(&key)? })
}

/// Reads `NAME.pem` and `NAME.key`.
pub fn load(dir: &Path, name: &str) -> Result<Issued, PkiError> {
    let read =
        |path: PathBuf| fs::read_to_string(&path).map_err(|source| PkiError::File { path, source });
    Ok(Issued {
        certificate: read(dir.join(format!("{name}.pem")))?,
        key: read(dir.join(format!("{name}.key")))?.into(),
    })
}

/// Writes `NAME.pem`, and `NAME.key` readable by its owner only. Nothing is written if either is there and `force` is not set.
pub fn store(
    dir: &Path,
    name: &str,
    issued: &Issued,
    force: bool,
) -> Result<[PathBuf; 2], PkiError> {
    let paths = [dir.join(format!("{name}.pem")), dir.join(format!("{name}.key"))];
    if let Some(there) = paths.iter().find(|path| path.exists() && !force) {
        return Err(PkiError::Exists(there.clone()));
    }
    fs::create_dir_all(dir).map_err(|source| PkiError::File { path: dir.to_owned(), source })?;
    write(&paths[1], &issued.key, 0o600)?;
    write(&paths[0], &issued.certificate, 0o644)?;
    Ok(paths)
}

/// Writes a file as a whole: it is the old one until it is the new one, which is on the disk when this returns.
pub fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let file = |source| PkiError::File { path: path.to_owned(), source };
    // A file that is replaced keeps its old mode, so it is made anew beside it and moved over it.
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)
        .map_err(file)?;
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.sync_all())
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written.and_then(|()| sync_folder(path)).map_err(file)
}

/// What was renamed is there also after a power failure.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn params(request: &Request<'_>) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, request.name);
    params.subject_alt_names =
        request.sans.iter().map(|name| san(name)).collect::<Result<_, _>>()?;
    params.serial_number = Some(serial()?);
    params.not_before = date(request.unix_now.saturating_sub(EARLIER));
    params.not_after = date(request.unix_now.saturating_add(request.seconds));
    Ok(params)
}

/// 16 random bytes, positive (RFC 5280 4.1.2.2).
fn serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = linux::random::os_seed()?[..16].to_vec();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from(bytes))
}

fn date(unix: u64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(i64::try_from(unix).unwrap_or(i64::MAX))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

fn san(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = |_| PkiError::BadName(name.to_owned());
    if name.contains('@') {
        name.try_into().map(SanType::Rfc822Name).map_err(bad)
    } else {
        name.try_into().map(SanType::DnsName).map_err(bad)
    }
}

fn generate(kind: KeyType) -> Result<KeyPair, PkiError> {
    let algorithm = match kind {
        KeyType::Rsa3072 | KeyType::Rsa4096 => {
            let size = if kind == KeyType::Rsa3072 {
                rcgen::RsaKeySize::_3072
            } else {
                rcgen::RsaKeySize::_4096
            };
            return KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size)
                .map_err(library("making an RSA key"));
        }
        KeyType::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        KeyType::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        KeyType::Ed25519 => &rcgen::PKCS_ED25519,
    };
    KeyPair::generate_for(algorithm).map_err(library("making a key"))
}

/// PKCS#8, version 1: OpenSSL, and with it much else, reads no Ed25519 key of version 2 (RFC 8410 7, RFC 5958).
fn key_text(key: &KeyPair) -> Result<zeroize::Zeroizing<String>, PkiError> {
    /// Version 1, Ed25519, and a string of 32 bytes within a string.
    const V1: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    const SEED: usize = 32;
    let der = zeroize::Zeroizing::new(key.serialize_der());
    // Version 2 begins with the same fields, but for the length and the number of the version.
    let same = der.get(5..V1.len()) == Some(&V1[5..]);
    let Some(seed) = der.get(V1.len()..V1.len() + SEED).filter(|_| same) else {
        return Ok(key.serialize_pem().into());
    };
    let v1 = zeroize::Zeroizing::new([&V1[..], seed].concat());
    der::pem::encode_string("PRIVATE KEY", der::pem::LineEnding::LF, &v1)
        .map(Into::into)
        .map_err(|error| PkiError::Encoding(error.to_string()))
}

fn library(what: &'static str) -> impl Fn(rcgen::Error) -> PkiError {
    move |source| PkiError::Library { what, source }
}
