//! Records of IKE SAs as bytes: what the next process of this host reads, and no other host.
//!
//! One byte of version, what the fleet knows, and then the IKE SA as `ike` writes it ([`ike::record`]).

use std::net::IpAddr;

use ike::record::SaRecord;
use ike::{IkeSaId, Secret};
use wire::bytes::{Put, Reader};
use wire::esp::Spi;
use wire::kept::{Kept, KeptError, flag, ip, put_ip};

/// The layout that is written, and the only one that is read.
pub const VERSION: u8 = 2;

/// Names a record among those of one host: the local SPI of its IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u64);

/// One IKE SA with what the fleet knows of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The peer.
    pub peer: IpAddr,
    /// Whether this host began the first of the IKE SAs that led to it by rekeys.
    pub initiated: bool,
    /// The IKE SA.
    pub sa: SaRecord,
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another build wrote it.
    #[error("it has the layout {0}, and this build reads {VERSION}; its tunnel is negotiated anew")]
    Version(u8),
    /// Its beginning is cut short, or holds what it cannot hold.
    #[error("{0}")]
    Field(#[from] KeptError),
    /// The IKE SA in it.
    #[error("{0}")]
    Sa(#[from] ike::record::DecodeError),
}

/// What a mesh keeps about its journal.
#[derive(Default)]
pub(crate) struct Journal {
    /// Whether records are written at all.
    pub(crate) on: bool,
    /// Records of an earlier process that were not looked at yet.
    pub(crate) found: Vec<(Key, Secret)>,
    /// What is written.
    pub(crate) written: std::collections::BTreeMap<IkeSaId, Key>,
    /// Records whose outer part changed.
    pub(crate) unsaved: std::collections::BTreeSet<IkeSaId>,
    /// Restored IKE SAs without a sign of life, and whether one was missed already.
    pub(crate) unproven: std::collections::BTreeMap<IpAddr, (IkeSaId, bool)>,
    /// SPIs that peers send to and this host lost, until there are others for them.
    pub(crate) bereft: std::collections::BTreeMap<IpAddr, Vec<Spi>>,
}

impl Record {
    /// Its key.
    pub fn key(&self) -> Key {
        Key(self.sa.local_spi().0)
    }

    /// As bytes; keys are among them.
    pub fn encode(&self) -> Secret {
        let mut out = Vec::with_capacity(32 + self.sa.encoded_len());
        out.put_u8(VERSION);
        put_ip(&mut out, self.peer);
        out.put_u8(u8::from(self.initiated));
        self.sa.encode(&mut out);
        Secret::new(out)
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they are of another version, or not what [`encode`](Self::encode) makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes, "record");
        match r.u8().map_err(KeptError::from)? {
            VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        let (peer, initiated) = names(&mut r)?;
        Ok(Self { peer, initiated, sa: SaRecord::decode(r)? })
    }
}

fn names(r: &mut Reader<'_>) -> Kept<(IpAddr, bool)> {
    Ok((ip(r)?, flag(r)?))
}
