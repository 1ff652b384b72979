//! Who a peer says it is (RFC 7296 3.5).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bytes::Reader;
use crate::dn;
use crate::message::ParseError;
use crate::registry::IdType;

/// The value of an IDi or IDr payload.
///
/// Equality, order and hash disregard the ASCII case of an FQDN; all else is compared as it is.
/// See [`Identity::matches`] for distinguished names that are encoded differently.
#[derive(Clone)]
pub enum Identity {
    /// ID_IPV4_ADDR.
    Ipv4(Ipv4Addr),
    /// ID_IPV6_ADDR.
    Ipv6(Ipv6Addr),
    /// ID_FQDN, without terminators; compared without regard to ASCII case.
    Fqdn(String),
    /// ID_RFC822_ADDR.
    Email(String),
    /// ID_DER_ASN1_DN: the DER of an X.501 Name, outer SEQUENCE included.
    DerDn(Vec<u8>),
    /// ID_KEY_ID: opaque bytes.
    KeyId(Vec<u8>),
    /// Any other type, as it came; also a name whose bytes are not what its type promises.
    Other(u8, Vec<u8>),
}

/// Why a text is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Nothing but white space.
    #[error("an identity must not be empty")]
    Empty,
    /// Spaces, control characters or non-ASCII letters in a host name.
    #[error(
        "`{0}` is no host name: only printable ASCII without spaces (an international name in its xn-- form)"
    )]
    Fqdn(String),
    /// Spaces or control characters in an email address.
    #[error("`{0}` is no email address: it must not hold spaces or control characters")]
    Email(String),
    /// Not an address, although the prefix says so.
    #[error("`{0}` is no IP address of that family")]
    Address(String),
    /// Not a distinguished name.
    #[error(transparent)]
    Dn(#[from] dn::DnError),
    /// `type-N:` without a number and hex bytes.
    #[error("`{0}` is not of the form type-NUMBER:HEX")]
    Other(String),
}

impl Identity {
    /// Reads an identity as strongSwan's configuration has it.
    ///
    /// In this order: an explicit `ipv4:`, `ipv6:`, `fqdn:`, `email:`, `dn:`, `keyid:` (hex, else text)
    /// or `type-N:` (hex); an IP address; a distinguished name if there is a `=`; a leading `@` marks a host
    /// name; any other `@` an email address; else a host name.
    pub fn from_text(text: &str) -> Result<Self, IdentityError> {
        // Not other spaces: they may end a value of a distinguished name.
        let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
        if let Some((prefix, rest)) = text.split_once(':')
            && let Some(id) = Self::from_prefixed(prefix, rest)?
        {
            return Ok(id);
        }
        if let Ok(addr) = text.parse::<IpAddr>() {
            return Ok(addr.into());
        }
        if text.contains('=') {
            return Ok(Self::DerDn(dn::from_text(text)?));
        }
        if let Some(name) = text.strip_prefix('@') {
            return fqdn(name);
        }
        if text.contains('@') { email(text) } else { fqdn(text) }
    }

    /// Its type and its data on the wire.
    pub fn encode(&self) -> (IdType, Vec<u8>) {
        match self {
            Self::Ipv4(a) => (IdType::IPV4_ADDR, a.octets().to_vec()),
            Self::Ipv6(a) => (IdType::IPV6_ADDR, a.octets().to_vec()),
            Self::Fqdn(s) => (IdType::FQDN, s.as_bytes().to_vec()),
            Self::Email(s) => (IdType::RFC822_ADDR, s.as_bytes().to_vec()),
            Self::DerDn(d) => (IdType::DER_ASN1_DN, d.clone()),
            Self::KeyId(d) => (IdType::KEY_ID, d.clone()),
            Self::Other(kind, d) => (IdType(*kind), d.clone()),
        }
    }

    /// ID_NULL: nobody (RFC 7619 2.2).
    pub fn null() -> Self {
        Self::Other(IdType::NULL.0, Vec::new())
    }

    /// Whether it names nobody.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Other(kind, _) if *kind == IdType::NULL.0)
    }

    /// Reads type and data; the data of an address must have its length.
    ///
    /// A host name or email address that holds what a name cannot hold becomes `Other`, so that it
    /// goes back as it came and equals no configured name.
    pub fn decode(kind: IdType, data: &[u8]) -> Result<Self, ParseError> {
        let bad = ParseError::BadLength("address of ID");
        Ok(match kind {
            IdType::IPV4_ADDR => Self::Ipv4(<[u8; 4]>::try_from(data).map_err(|_| bad)?.into()),
            IdType::IPV6_ADDR => Self::Ipv6(<[u8; 16]>::try_from(data).map_err(|_| bad)?.into()),
            IdType::FQDN => match std::str::from_utf8(data) {
                Ok(s) if is_fqdn(s) => Self::Fqdn(s.to_owned()),
                _ => Self::Other(kind.0, data.to_vec()),
            },
            IdType::RFC822_ADDR => match std::str::from_utf8(data) {
                Ok(s) if is_email(s) => Self::Email(s.to_owned()),
                _ => Self::Other(kind.0, data.to_vec()),
            },
            IdType::DER_ASN1_DN => Self::DerDn(data.to_vec()),
            IdType::KEY_ID => Self::KeyId(data.to_vec()),
            _ => Self::Other(kind.0, data.to_vec()),
        })
    }

    /// The body of an ID payload: type, three reserved bytes, data. AUTH covers it in this form (RFC 7296 2.15).
    pub fn to_body(&self) -> Vec<u8> {
        let (kind, data) = self.encode();
        let mut body = vec![kind.0, 0, 0, 0];
        body.extend(data);
        body
    }

    /// Reads the body of an ID payload.
    pub fn from_body(body: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader::new(body, "ID");
        let kind = IdType(r.u8()?);
        r.take(3)?;
        Self::decode(kind, r.rest())
    }

    /// Whether both name the same: equal, or distinguished names that differ only in string type, in
    /// ASCII case and in repeated spaces.
    pub fn matches(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::DerDn(a), Self::DerDn(b)) => a == b || dn::same(a, b),
            _ => self == other,
        }
    }

    fn from_prefixed(prefix: &str, rest: &str) -> Result<Option<Self>, IdentityError> {
        let bad = || IdentityError::Address(rest.to_owned());
        Ok(Some(match prefix {
            "ipv4" => Self::Ipv4(rest.parse().map_err(|_| bad())?),
            "ipv6" => Self::Ipv6(rest.parse().map_err(|_| bad())?),
            "fqdn" => fqdn(rest)?,
            "email" | "rfc822" | "userfqdn" => email(rest)?,
            "dn" | "asn1dn" => Self::DerDn(dn::from_text(rest)?),
            "keyid" if rest.is_empty() => return Err(IdentityError::Empty),
            "keyid" => Self::KeyId(dn::from_hex(rest).unwrap_or_else(|| rest.as_bytes().to_vec())),
            _ => match prefix.strip_prefix("type-") {
                Some(number) => other(number, rest)?,
                None => return Ok(None),
            },
        }))
    }

    /// The text without a prefix that tells the type, where there is one.
    fn plain(&self) -> Option<String> {
        match self {
            Self::Ipv4(a) => Some(a.to_string()),
            Self::Ipv6(a) => Some(a.to_string()),
            Self::Fqdn(s) | Self::Email(s) => Some(s.clone()),
            Self::DerDn(d) => dn::to_text(d).filter(|text| !text.is_empty()),
            Self::KeyId(_) | Self::Other(..) => None,
        }
    }

    fn kind_and_key(&self) -> (u8, Vec<u8>) {
        let (kind, mut data) = self.encode();
        if matches!(self, Self::Fqdn(_)) {
            data.make_ascii_lowercase();
        }
        (kind.0, data)
    }
}

/// What [`Identity::from_text`] reads as the same identity: a prefix says the type where the bare text
/// would be read as another, so that a peer cannot pass a host name off as a distinguished name.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(plain) = self.plain() else { return self.fmt_bytes(f) };
        match Self::from_text(&plain) {
            Ok(id) if id.matches(self) => return f.write_str(&plain),
            _ => {}
        }
        match self {
            Self::Fqdn(_) => write!(f, "fqdn:{plain}"),
            Self::Email(_) => write!(f, "email:{plain}"),
            _ => write!(f, "dn:{plain}"),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Identity {
    fn fmt_bytes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, data) = self.encode();
        match self {
            Self::KeyId(d) if !d.is_empty() => f.write_str("keyid:")?,
            _ => write!(f, "type-{}:", kind.0)?,
        }
        data.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ipv4(a), Self::Ipv4(b)) => a == b,
            (Self::Ipv6(a), Self::Ipv6(b)) => a == b,
            (Self::Fqdn(a), Self::Fqdn(b)) => a.eq_ignore_ascii_case(b),
            (Self::Email(a), Self::Email(b)) => a == b,
            (Self::DerDn(a), Self::DerDn(b)) | (Self::KeyId(a), Self::KeyId(b)) => a == b,
            (Self::Other(k, a), Self::Other(l, b)) => k == l && a == b,
            _ => false,
        }
    }
}

impl Eq for Identity {}

impl Ord for Identity {
    fn cmp(&self, other: &Self) -> Ordering {
        // `Other` may carry a known type's number, so the variant decides the tie.
        let variant = |id: &Self| matches!(id, Self::Other(..));
        self.kind_and_key()
            .cmp(&other.kind_and_key())
            .then_with(|| variant(self).cmp(&variant(other)))
    }
}

impl PartialOrd for Identity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind_and_key().hash(state);
    }
}

impl From<IpAddr> for Identity {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(a) => Self::Ipv4(a),
            IpAddr::V6(a) => Self::Ipv6(a),
        }
    }
}

fn fqdn(name: &str) -> Result<Identity, IdentityError> {
    match name {
        "" => Err(IdentityError::Empty),
        _ if is_fqdn(name) => Ok(Identity::Fqdn(name.to_owned())),
        _ => Err(IdentityError::Fqdn(name.to_owned())),
    }
}

fn email(address: &str) -> Result<Identity, IdentityError> {
    match address {
        "" => Err(IdentityError::Empty),
        _ if is_email(address) => Ok(Identity::Email(address.to_owned())),
        _ => Err(IdentityError::Email(address.to_owned())),
    }
}

fn other(number: &str, hex: &str) -> Result<Identity, IdentityError> {
    let bad = || IdentityError::Other(format!("type-{number}:{hex}"));
    let kind = number.parse().map_err(|_| bad())?;
    let data = if hex.is_empty() { Vec::new() } else { dn::from_hex(hex).ok_or_else(bad)? };
    Identity::decode(IdType(kind), &data).map_err(|_| bad())
}

/// RFC 7296 3.5: all ASCII, no terminators.
fn is_fqdn(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic())
}

/// RFC 7296 3.5: no terminators; UTF-8 is allowed for.
fn is_email(address: &str) -> bool {
    !address.is_empty() && address.chars().all(|c| !c.is_whitespace() && !dn::is_deceptive(c))
}
