//! SA proposals (RFC 7296 3.3): what a peer offers and what it takes.

use std::fmt;

use crate::registry::{Encr, Integ, Ke, Prf, ProtocolId, Sn, TransformType};

/// One transform: an algorithm of one type, with its key length where it has one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Transform {
    /// Which kind of algorithm.
    pub kind: TransformType,
    /// The algorithm's number in the registry of its kind.
    pub id: u16,
    /// Key length attribute, in bits (RFC 7296 3.3.5).
    pub key_bits: Option<u16>,
    /// Whether an attribute was there that is not known here: such a transform is never chosen (RFC 7296 3.3.6).
    pub unknown_attribute: bool,
}

/// One proposal: a protocol, the sender's SPI for it, and the transforms to choose from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Proposal {
    /// Proposal number: 1, 2, … in an offer; the chosen one in an answer.
    pub number: u8,
    /// What is negotiated.
    pub protocol: ProtocolId,
    /// The sender's SPI: empty in IKE_SA_INIT, 8 bytes when an IKE SA is rekeyed, 4 for ESP.
    pub spi: Vec<u8>,
    /// The transforms, in order of preference within each type.
    pub transforms: Vec<Transform>,
}

impl Transform {
    /// An algorithm without a key length.
    pub fn new(kind: TransformType, id: u16) -> Self {
        Self { kind, id, key_bits: None, unknown_attribute: false }
    }

    /// An encryption algorithm; `bits` is its key length, `None` where it has only one.
    pub fn encr(encr: Encr, bits: Option<u16>) -> Self {
        Self { key_bits: bits, ..Self::new(TransformType::ENCR, encr.0) }
    }

    /// A pseudorandom function.
    pub fn prf(prf: Prf) -> Self {
        Self::new(TransformType::PRF, prf.0)
    }

    /// An integrity algorithm.
    pub fn integ(integ: Integ) -> Self {
        Self::new(TransformType::INTEG, integ.0)
    }

    /// A key exchange method.
    pub fn ke(ke: Ke) -> Self {
        Self::new(TransformType::KE, ke.0)
    }

    /// A choice of sequence numbers.
    pub fn sn(sn: Sn) -> Self {
        Self::new(TransformType::SN, sn.0)
    }
}

impl Proposal {
    /// Its transforms of one type, in order of preference.
    pub fn of_kind(&self, kind: TransformType) -> impl Iterator<Item = &Transform> {
        self.transforms.iter().filter(move |t| t.kind == kind)
    }

    /// Whether a transform of this type is there.
    pub fn has(&self, kind: TransformType) -> bool {
        self.of_kind(kind).next().is_some()
    }

    /// Additional key exchanges, with the number (1 to 7) of each (RFC 9370).
    pub fn additional_kes(&self) -> impl Iterator<Item = (u8, &Transform)> {
        self.transforms.iter().filter_map(|t| Some((additional_ke(t.kind)?, t)))
    }
}

/// `AES_CBC_128`, `PRF_HMAC_SHA2_256`, `KE1_ML_KEM_768`, as strongSwan's log writes it.
impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TransformType::ENCR => Encr(self.id).fmt(f)?,
            TransformType::PRF => write!(f, "PRF_{}", Prf(self.id))?,
            TransformType::INTEG => Integ(self.id).fmt(f)?,
            TransformType::KE => Ke(self.id).fmt(f)?,
            TransformType::SN => match Sn(self.id) {
                Sn::SEQ_32 => f.write_str("NO_EXT_SEQ")?,
                Sn::ESN => f.write_str("EXT_SEQ")?,
                sn => sn.fmt(f)?,
            },
            kind => match additional_ke(kind) {
                Some(n) => write!(f, "KE{n}_{}", Ke(self.id))?,
                None => write!(f, "{kind}_{}", self.id)?,
            },
        }
        if let Some(bits) = self.key_bits {
            write!(f, "_{bits}")?;
        }
        if self.unknown_attribute { f.write_str("(?)") } else { Ok(()) }
    }
}

/// `IKE:AES_CBC_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048`, as strongSwan's log writes it.
impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.protocol)?;
        let mut sorted: Vec<_> = self.transforms.iter().collect();
        sorted.sort_by_key(|t| rank(t.kind));
        for (i, transform) in sorted.into_iter().enumerate() {
            write!(f, "{}{transform}", if i == 0 { "" } else { "/" })?;
        }
        Ok(())
    }
}

fn additional_ke(kind: TransformType) -> Option<u8> {
    let (first, last) = (TransformType::ADDKE1, TransformType::ADDKE7);
    (first <= kind && kind <= last).then(|| kind.0 - first.0 + 1)
}

/// The place of a kind in the text: integrity before PRF, sequence numbers last.
fn rank(kind: TransformType) -> u8 {
    match kind {
        TransformType::ENCR => 0,
        TransformType::INTEG => 1,
        TransformType::PRF => 2,
        TransformType::SN => u8::MAX,
        TransformType(n) => n,
    }
}
