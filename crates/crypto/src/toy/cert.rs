//! The toy's keys, signatures and certificates.
//!
//! A certificate is, all numbers big-endian:
//! `"TOYCERT1" | CA? (1) | serial (8) | not before (8) | not after (8) | public key (8) | subject | issuer |
//! count of names (1) | names… | signature (8)`, with `subject` and `issuer` as `length (2) | DER Name`
//! and a name as `ID type (1) | length (2) | value`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use der::Decode;
use wire::identity::Identity;
use x509_cert::name::Name;

use super::{GENERATOR, Mix, P, power};
use crate::chain::{Certificate, ChainError, TrustStore, check_issuer, check_leaf, unknown_issuer};
use crate::credentials::Credentials;
use crate::sign::{KeyKind, Scheme, SignError, SigningKey, VerifyError};

const KEY_MAGIC: &[u8; 8] = b"TOYKEY01";
const SPKI_MAGIC: &[u8; 8] = b"TOYSPKI1";
const CERT_MAGIC: &[u8; 8] = b"TOYCERT1";
const MAX_DEPTH: usize = 8;

/// A key that signs so that anyone can forge it, yet not by accident.
#[derive(Clone, Copy)]
pub struct ToyKey {
    secret: u64,
}

impl ToyKey {
    /// The key of a name: the same name gives the same key.
    pub fn of(name: &str) -> Self {
        let mut mix = Mix::new(b"key");
        mix.update(name.as_bytes());
        Self { secret: 2 + mix.value() % (P - 3) }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, SignError> {
        let secret = bytes.strip_prefix(KEY_MAGIC).and_then(|rest| rest.try_into().ok());
        let secret = secret.ok_or_else(|| SignError::Malformed("not a toy key".into()))?;
        Ok(Self { secret: u64::from_be_bytes(secret) })
    }

    /// What [`crate::Provider::signing_key`] of the toy reads.
    pub fn to_bytes(self) -> Vec<u8> {
        [KEY_MAGIC.as_slice(), &self.secret.to_be_bytes()].concat()
    }

    fn public(self) -> u64 {
        power(GENERATOR, self.secret)
    }
}

impl SigningKey for ToyKey {
    fn kind(&self) -> KeyKind {
        KeyKind::Toy
    }

    fn spki(&self) -> Vec<u8> {
        spki(self.public())
    }

    fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(signature(scheme, &self.spki(), message))
    }
}

fn spki(public: u64) -> Vec<u8> {
    [SPKI_MAGIC.as_slice(), &public.to_be_bytes()].concat()
}

fn signature(scheme: Scheme, spki: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mix = Mix::new(b"signature");
    mix.update(&scheme.hash().0.to_be_bytes());
    mix.update(spki);
    mix.update(message);
    mix.bytes(64)
}

pub(super) fn verify(
    scheme: Scheme,
    spki: &[u8],
    message: &[u8],
    signed: &[u8],
) -> Result<(), VerifyError> {
    if !spki.starts_with(SPKI_MAGIC) {
        return Err(VerifyError::Unsupported("not a toy key".into()));
    }
    if signature(scheme, spki, message) == signed { Ok(()) } else { Err(VerifyError::BadSignature) }
}

/// A toy CA.
#[derive(Clone)]
pub struct Authority {
    key: ToyKey,
    /// Its certificate, for trust stores.
    pub certificate: Certificate,
}

impl Authority {
    /// The CA of a name, self-signed and valid for all time; the same name gives the same CA.
    pub fn new(name: &str) -> Self {
        let key = ToyKey::of(name);
        let certificate = build(true, name, &[], (0, u64::MAX), key.public(), &name_der(name), key);
        Self { key, certificate }
    }

    /// An intermediate CA under this one.
    pub fn intermediate(&self, name: &str) -> Self {
        let key = ToyKey::of(name);
        let certificate = build(
            true,
            name,
            &[],
            (0, u64::MAX),
            key.public(),
            &self.certificate.subject,
            self.key,
        );
        Self { key, certificate }
    }

    /// A host's certificate and key, valid between two instants (seconds since the Unix epoch).
    pub fn issue(
        &self,
        name: &str,
        alt_names: &[Identity],
        validity: (u64, u64),
    ) -> (Certificate, ToyKey) {
        let key = ToyKey::of(name);
        let certificate = build(
            false,
            name,
            alt_names,
            validity,
            key.public(),
            &self.certificate.subject,
            self.key,
        );
        (certificate, key)
    }
}

/// Credentials of a host named `name` under the CA `toy CA`, valid for all time.
pub fn credentials(name: &str) -> Credentials {
    let authority = Authority::new("toy CA");
    let (leaf, key) = authority.issue(name, &[], (0, u64::MAX));
    let trust = TrustStore { roots: vec![authority.certificate], ..TrustStore::default() };
    Credentials::new(leaf, Vec::new(), Arc::new(key), trust)
        .with_own_secret(&super::Toy, &key.to_bytes())
}

fn build(
    is_ca: bool,
    name: &str,
    alt_names: &[Identity],
    (not_before, not_after): (u64, u64),
    public: u64,
    issuer: &[u8],
    issuer_key: ToyKey,
) -> Certificate {
    let subject = name_der(name);
    let mut serial = Mix::new(b"serial");
    serial.update(&subject);
    serial.update(&public.to_be_bytes());
    let mut out = CERT_MAGIC.to_vec();
    out.push(u8::from(is_ca));
    for number in [serial.value(), not_before, not_after, public] {
        out.extend(number.to_be_bytes());
    }
    for text in [&subject, issuer] {
        out.extend((text.len() as u16).to_be_bytes());
        out.extend_from_slice(text);
    }
    let names: Vec<_> =
        alt_names.iter().filter_map(encode_name).take(usize::from(u8::MAX)).collect();
    out.push(names.len() as u8);
    for (id_type, value) in names {
        out.push(id_type);
        out.extend((value.len() as u16).to_be_bytes());
        out.extend(value);
    }
    out.extend(certificate_signature(issuer_key.public(), &out).to_be_bytes());
    parse(&out).expect("what was just built parses")
}

fn certificate_signature(issuer_public: u64, content: &[u8]) -> u64 {
    let mut mix = Mix::new(b"certificate");
    mix.update(&issuer_public.to_be_bytes());
    mix.update(content);
    mix.value()
}

/// The DER Name `CN=name`; names beyond 100 bytes are cut, so that all lengths fit one byte.
fn name_der(name: &str) -> Vec<u8> {
    let cut = (0..=name.len().min(100)).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    let value = [&[0x0c, cut as u8], &name.as_bytes()[..cut]].concat();
    let attribute = [&[6, 3, 0x55, 4, 3], value.as_slice()].concat();
    let wrap =
        |tag: u8, content: Vec<u8>| [&[tag, content.len() as u8], content.as_slice()].concat();
    wrap(0x30, wrap(0x31, wrap(0x30, attribute)))
}

fn encode_name(identity: &Identity) -> Option<(u8, Vec<u8>)> {
    let (id_type, value) = match identity {
        Identity::Ipv4(address) => (1, address.octets().to_vec()),
        Identity::Fqdn(name) => (2, name.as_bytes().to_vec()),
        Identity::Email(name) => (3, name.as_bytes().to_vec()),
        Identity::Ipv6(address) => (5, address.octets().to_vec()),
        Identity::DerDn(name) => (9, name.clone()),
        Identity::KeyId(_) | Identity::Other(..) => return None,
    };
    (value.len() <= usize::from(u16::MAX)).then_some((id_type, value))
}

fn decode_name(id_type: u8, value: &[u8]) -> Option<Identity> {
    Some(match id_type {
        1 => Identity::Ipv4(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?)),
        2 => Identity::Fqdn(String::from_utf8(value.to_vec()).ok()?),
        3 => Identity::Email(String::from_utf8(value.to_vec()).ok()?),
        5 => Identity::Ipv6(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?)),
        9 => Identity::DerDn(value.to_vec()),
        _ => return None,
    })
}

/// Reads from the front of a slice, as far as it reaches.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let len = u16::from_be_bytes(self.array()?);
        self.take(usize::from(len))
    }
}

fn parse(bytes: &[u8]) -> Option<Certificate> {
    let mut cursor = Cursor(bytes);
    if cursor.take(CERT_MAGIC.len())? != CERT_MAGIC {
        return None;
    }
    let [is_ca] = cursor.array()?;
    let (serial, not_before, not_after, public) =
        (cursor.number()?, cursor.number()?, cursor.number()?, cursor.number()?);
    let (subject, issuer) = (cursor.sized()?.to_vec(), cursor.sized()?.to_vec());
    let [count] = cursor.array()?;
    let mut alt_names = Vec::new();
    for _ in 0..count {
        let [id_type] = cursor.array()?;
        alt_names.push(decode_name(id_type, cursor.sized()?)?);
    }
    cursor.number()?;
    let subject_text = Name::from_der(&subject).ok()?.to_string();
    let serial = serial.to_be_bytes();
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    cursor.0.is_empty().then(|| Certificate {
        der: bytes.to_vec(),
        subject_text,
        subject,
        issuer,
        serial: serial[zeros..].to_vec(),
        not_before,
        not_after,
        spki: spki(public),
        alt_names,
        is_ca: is_ca != 0,
        key_usage: None,
        ext_key_usage: Vec::new(),
    })
}

pub(super) fn verify_chain(
    trust: &TrustStore,
    leaf: &[u8],
    sent: &[&[u8]],
    unix_now: u64,
) -> Result<Certificate, ChainError> {
    let leaf = parse(leaf).ok_or_else(|| ChainError::Malformed("not a toy certificate".into()))?;
    check_leaf(&leaf, unix_now)?;
    let sent: Vec<_> = sent.iter().filter_map(|bytes| parse(bytes)).collect();
    let mut current = leaf.clone();
    for _ in 0..MAX_DEPTH {
        if let Some(root) = trust.roots.iter().find(|root| issued(root, &current)) {
            return check_issuer(root, unix_now).map(|()| leaf);
        }
        let between =
            trust.intermediates.iter().chain(&sent).find(|issuer| issued(issuer, &current));
        let issuer = between.ok_or_else(|| unknown_issuer(trust, &current))?;
        check_issuer(issuer, unix_now)?;
        current = issuer.clone();
    }
    Err(unknown_issuer(trust, &current))
}

fn issued(issuer: &Certificate, certificate: &Certificate) -> bool {
    let Some((content, signed)) = certificate.der.split_last_chunk::<8>() else { return false };
    let public = issuer.spki.strip_prefix(SPKI_MAGIC).and_then(|public| public.try_into().ok());
    let Some(public) = public.map(u64::from_be_bytes) else { return false };
    issuer.subject == certificate.issuer
        && u64::from_be_bytes(*signed) == certificate_signature(public, content)
}
