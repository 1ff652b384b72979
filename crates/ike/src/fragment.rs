//! Encrypted messages in pieces that no network has to fragment (RFC 7383).

use std::collections::BTreeMap;

use crypto::cipher::Cipher;
use wire::message::Header;
use wire::registry::{ExchangeType, PayloadType};

use crate::error::Misbehaviour;
use crate::sk;

/// Fragments of one message, at most.
pub const MAX_FRAGMENTS: u16 = 64;
/// Bytes inside the fragments of one message, at most: what an SK payload could hold.
pub const MAX_BYTES: usize = 64 * 1024;

/// A peer that stops in the middle of a request is waited for so long (RFC 7383 2.6).
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// The messages that carry `plain`: one with an SK payload if that has at most `limit` bytes or there is
/// no limit, else one with an SKF payload for each piece. `counter` gives a fresh number for each message.
pub fn seal(
    header: &Header,
    first: PayloadType,
    plain: &[u8],
    cipher: &dyn Cipher,
    limit: Option<usize>,
    mut counter: impl FnMut() -> u64,
) -> Vec<Vec<u8>> {
    let whole = plain.len() + sk::overhead(plain.len(), false, cipher);
    let room = limit.filter(|limit| whole > *limit).map(|limit| sk::fragment_room(limit, cipher));
    let pieces = room.map(|room| (plain.len().div_ceil(room), room));
    let Some((Ok(total), room)) = pieces.map(|(total, room)| (u16::try_from(total), room)) else {
        return vec![sk::seal_bytes(header, first, None, plain, cipher, counter())];
    };
    let numbered = (1..=total).zip(plain.chunks(room));
    let sealed = numbered.map(|(number, piece)| {
        // Only the first says what is inside (RFC 7383 2.5).
        let first = if number == 1 { first } else { PayloadType::NONE };
        sk::seal_bytes(header, first, Some((number, total)), piece, cipher, counter())
    });
    sealed.collect()
}

/// Which piece of which message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Message id of all pieces.
    pub message_id: u32,
    /// Exchange type of all pieces.
    pub exchange: ExchangeType,
    /// Counted from 1; at most `total`.
    pub number: u16,
    /// How many pieces there are.
    pub total: u16,
}

/// The pieces of one message, until all are there. The next message's take the place of one that was
/// not finished.
#[derive(Clone, Default)]
pub struct Gather(Option<Box<Pieces>>);

#[derive(Clone)]
struct Pieces {
    message_id: u32,
    exchange: ExchangeType,
    total: u16,
    first: PayloadType,
    bytes: usize,
    content: BTreeMap<u16, Vec<u8>>,
}

impl Gather {
    /// Whether a fragment is worth verifying: not if it is here already (RFC 7383 2.6). An error names
    /// what is wrong with it; it is dropped.
    pub fn wants(&self, of: Fragment) -> Result<bool, Misbehaviour> {
        if of.number == 0 || of.number > of.total {
            return Err(Misbehaviour::Fragment);
        }
        if of.total > MAX_FRAGMENTS {
            return Err(Misbehaviour::FragmentLimit);
        }
        match self.pieces(of) {
            Some(pieces) if of.exchange != pieces.exchange || of.total < pieces.total => {
                Err(Misbehaviour::Fragment)
            }
            Some(pieces) if of.total == pieces.total => {
                Ok(!pieces.content.contains_key(&of.number))
            }
            _ => Ok(true),
        }
    }

    /// Keeps a verified fragment that is wanted: `first` is its next payload field, `plain` what is inside.
    /// The whole message's first payload type and content, once it is complete.
    pub fn add(
        &mut self,
        of: Fragment,
        first: PayloadType,
        plain: Vec<u8>,
    ) -> Result<Option<(PayloadType, Vec<u8>)>, Misbehaviour> {
        // More pieces than before: the peer makes them smaller now (RFC 7383 2.5.2).
        let fits = self.pieces(of).is_some_and(|pieces| pieces.total == of.total);
        let mut pieces = match self.0.take() {
            Some(pieces) if fits => pieces,
            _ => Box::new(Pieces::new(of)),
        };
        pieces.bytes += plain.len();
        if pieces.bytes > MAX_BYTES {
            return Err(Misbehaviour::FragmentLimit);
        }
        if of.number == 1 {
            pieces.first = first;
        }
        pieces.content.insert(of.number, plain);
        if pieces.content.len() == usize::from(pieces.total) {
            let content = pieces.content.into_values().collect::<Vec<_>>().concat();
            return Ok(Some((pieces.first, content)));
        }
        self.0 = Some(pieces);
        Ok(None)
    }

    /// Forgets what is here.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn pieces(&self, of: Fragment) -> Option<&Pieces> {
        self.0.as_deref().filter(|pieces| pieces.message_id == of.message_id)
    }
}

impl Pieces {
    fn new(of: Fragment) -> Self {
        Self {
            message_id: of.message_id,
            exchange: of.exchange,
            total: of.total,
            first: PayloadType::NONE,
            bytes: 0,
            content: BTreeMap::new(),
        }
    }
}
