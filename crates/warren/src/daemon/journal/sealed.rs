//! The journal's bytes: a header, then frames, each encrypted and authenticated under its place.
//!
//! ```text
//! header: magic (8) | boot id (36) | salt (32)
//! frame:  length (4) | its complement (4) | IV | ciphertext of (kind (1) | key (8) | record) | ICV
//! ```
//! Numbers are big-endian. Every file has a key of its own, derived from the host's and the salt: frame
//! numbers, which are the nonces, begin anew in each. The salt and the number are authenticated with the
//! frame, so that none can be moved, left out or taken from elsewhere.

use std::collections::BTreeMap;

use crypto::cipher::{Cipher, CipherSpec};
use crypto::provider::{Unsupported, prf_plus};
use crypto::{Provider, Secret};
use mesh::journal::Key;
use wire::bytes::{Put, Reader};
use wire::registry::{Encr, Integ, Prf};

/// Bytes of the host's key.
pub const KEY_LEN: usize = 32;
/// Bytes of a salt.
pub const SALT_LEN: usize = 32;
/// Bytes of a boot id as the kernel writes it.
pub const BOOT_LEN: usize = 36;

const MAGIC: &[u8; 8] = b"WARRENJ1";
const HEADER: usize = MAGIC.len() + BOOT_LEN + SALT_LEN;
const CIPHER: CipherSpec = CipherSpec { encr: Encr::AES_GCM_16, key_bits: 256, integ: Integ::NONE };
/// Before a frame's body.
const LENGTHS: usize = 8;
/// Kind and key.
const NAMES: usize = 9;
/// A longer frame is not written and not read.
const MAX_FRAME: usize = 1 << 22;

/// Why a journal is not gone on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Another build wrote it, or it is none.
    #[error("it has another layout than this build's")]
    Layout,
    /// Its SAs are gone, and its times mean nothing.
    #[error("it is of another boot of this host")]
    OtherBoot,
    /// Not what was written under this key.
    #[error("frame {0} was changed, or the key is another one")]
    Damaged(u64),
    /// The provider refused.
    #[error("{0}")]
    Cipher(String),
}

/// Makes the frames of one file.
pub struct Sealer {
    cipher: Box<dyn Cipher>,
    salt: [u8; SALT_LEN],
    next: u64,
}

impl Sealer {
    /// For a new file; `salt` must be fresh randomness. Also the file's beginning.
    pub fn new(
        provider: &dyn Provider,
        key: &Secret,
        boot: &[u8; BOOT_LEN],
        salt: [u8; SALT_LEN],
    ) -> Result<(Self, Vec<u8>), Unsupported> {
        let cipher = keyed(provider, key, &salt)?;
        let header = [&MAGIC[..], boot, &salt].concat();
        Ok((Self { cipher, salt, next: 0 }, header))
    }

    /// The next frame: a record, or that there is none any more. `None` if it is longer than any.
    pub fn frame(&mut self, key: Key, record: Option<&Secret>) -> Option<Vec<u8>> {
        let record_len = record.map_or(0, Secret::len);
        let (iv, icv) = (self.cipher.iv_len(), self.cipher.icv_len());
        let len = iv + NAMES + record_len + icv;
        if len > MAX_FRAME {
            return None;
        }
        let mut body = Vec::with_capacity(len);
        body.resize(iv, 0);
        body.put_u8(u8::from(record.is_some()));
        body.put_u64(key.0);
        body.put(record.map_or(&[], Secret::expose));
        body.resize(len, 0);
        self.cipher.seal(self.next, &place(&self.salt, self.next), None, &mut body);
        self.next += 1;
        let len = u32::try_from(len).ok()?;
        Some([&len.to_be_bytes()[..], &(!len).to_be_bytes(), &body].concat())
    }
}

/// The records that a file ends with. A last frame of which only the beginning is there does not count:
/// what would have followed from it did not happen.
pub fn read(
    provider: &dyn Provider,
    key: &Secret,
    boot: &[u8; BOOT_LEN],
    file: &[u8],
) -> Result<BTreeMap<Key, Secret>, Unreadable> {
    let (header, mut rest) = file.split_at_checked(HEADER).ok_or(Unreadable::Layout)?;
    let (magic, header) = header.split_at(MAGIC.len());
    let (their_boot, salt) = header.split_at(BOOT_LEN);
    if magic != MAGIC {
        return Err(Unreadable::Layout);
    }
    if their_boot != boot {
        return Err(Unreadable::OtherBoot);
    }
    let salt = <[u8; SALT_LEN]>::try_from(salt).map_err(|_| Unreadable::Layout)?;
    let cipher = keyed(provider, key, &salt).map_err(|e| Unreadable::Cipher(e.to_string()))?;
    let mut records = BTreeMap::new();
    for number in 0.. {
        let damaged = Unreadable::Damaged(number);
        let Some((body, after)) = next_frame(rest).map_err(|()| damaged.clone())? else { break };
        let (key, record) = open(&*cipher, &salt, number, body).ok_or(damaged)?;
        match record {
            Some(record) => records.insert(key, record),
            None => records.remove(&key),
        };
        rest = after;
    }
    Ok(records)
}

/// A frame's body, and what comes after it.
type Frame<'a> = (&'a [u8], &'a [u8]);

/// The next frame; `None` where the file ends before it does.
fn next_frame(rest: &[u8]) -> Result<Option<Frame<'_>>, ()> {
    let Some((lengths, rest)) = rest.split_at_checked(LENGTHS) else { return Ok(None) };
    let mut lengths = Reader::new(lengths, "lengths");
    let (len, complement) = (lengths.u32().map_err(drop)?, lengths.u32().map_err(drop)?);
    let size = usize::try_from(len).map_err(drop)?;
    if len != !complement || size > MAX_FRAME {
        return Err(());
    }
    Ok(rest.split_at_checked(size))
}

fn open(
    cipher: &dyn Cipher,
    salt: &[u8; SALT_LEN],
    number: u64,
    body: &[u8],
) -> Option<(Key, Option<Secret>)> {
    let mut body = zeroize::Zeroizing::new(body.to_vec());
    cipher.open(&place(salt, number), None, &mut body).ok()?;
    let end = body.len().checked_sub(cipher.icv_len())?;
    let mut plain = Reader::new(body.get(cipher.iv_len()..end)?, "frame");
    let (kind, key) = (plain.u8().ok()?, Key(plain.u64().ok()?));
    let record = Secret::from(plain.rest());
    (kind <= 1).then_some((key, (kind == 1).then_some(record)))
}

fn place(salt: &[u8; SALT_LEN], number: u64) -> Vec<u8> {
    [&salt[..], &number.to_be_bytes()].concat()
}

fn keyed(
    provider: &dyn Provider,
    key: &Secret,
    salt: &[u8; SALT_LEN],
) -> Result<Box<dyn Cipher>, Unsupported> {
    let seed: [&[u8]; 2] = [MAGIC, salt];
    let len = CIPHER.encr_key_len();
    let derived = prf_plus(provider, Prf::HMAC_SHA2_256, key.expose(), &seed, len)?;
    provider.cipher(CIPHER, derived.expose(), &[])
}

#[cfg(test)]
mod tests {
    use crypto::native::Native;

    use super::*;

    const BOOT: &[u8; BOOT_LEN] = b"6f1c9a52-1b7e-4c7f-9d0a-2f1e5d3c4b5a";

    fn secret(n: u8, len: usize) -> Secret {
        Secret::new(vec![n; len])
    }

    fn host_key() -> Secret {
        secret(9, KEY_LEN)
    }

    type Records = BTreeMap<Key, Secret>;

    /// A file, where its frames end, and what it means up to each.
    fn sample() -> (Vec<u8>, Vec<(usize, Records)>) {
        let (mut sealer, mut file) = Sealer::new(&Native, &host_key(), BOOT, [3; 32]).unwrap();
        let mut records = Records::new();
        let mut ends = vec![(file.len(), records.clone())];
        for (key, record) in
            [(1, Some(40)), (2, Some(7)), (1, Some(0)), (2, None), (3, Some(90)), (9, None)]
        {
            let (key, record) = (Key(key), record.map(|len| secret(key as u8, len)));
            file.extend(sealer.frame(key, record.as_ref()).unwrap());
            match record {
                Some(record) => records.insert(key, record),
                None => records.remove(&key),
            };
            ends.push((file.len(), records.clone()));
        }
        (file, ends)
    }

    fn read_all(file: &[u8]) -> Result<Records, Unreadable> {
        read(&Native, &host_key(), BOOT, file)
    }

    #[test]
    fn torn_at_every_byte_it_is_what_was_whole_before() {
        let (file, ends) = sample();
        assert_eq!(read_all(&file).as_ref(), Ok(&ends.last().unwrap().1));
        for cut in 0..=file.len() {
            let whole = ends.iter().rev().find(|(end, _)| *end <= cut);
            match whole {
                Some((_, records)) => assert_eq!(read_all(&file[..cut]).as_ref(), Ok(records)),
                None => assert_eq!(read_all(&file[..cut]), Err(Unreadable::Layout)),
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (file, _) = sample();
        for byte in 0..file.len() {
            for bit in 0..8 {
                let mut spoilt = file.clone();
                spoilt[byte] ^= 1 << bit;
                assert!(read_all(&spoilt).is_err(), "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn frames_stay_where_they_are() {
        let (file, ends) = sample();
        let frame = |n: usize| &file[ends[n].0..ends[n + 1].0];
        let header = &file[..ends[0].0];
        let swapped = [header, frame(1), frame(0)].concat();
        assert_eq!(read_all(&swapped), Err(Unreadable::Damaged(0)));
        let left_out = [header, frame(0), frame(2)].concat();
        assert_eq!(read_all(&left_out), Err(Unreadable::Damaged(1)));
        let (mut other, begin) = Sealer::new(&Native, &host_key(), BOOT, [4; 32]).unwrap();
        let of_another = [&begin[..], frame(0)].concat();
        assert_eq!(read_all(&of_another), Err(Unreadable::Damaged(0)));
        assert_ne!(other.frame(Key(1), Some(&secret(1, 40))).unwrap(), frame(0));
    }

    #[test]
    fn other_keys_boots_and_layouts_are_refused() {
        let (file, _) = sample();
        let other = secret(8, KEY_LEN);
        assert_eq!(read(&Native, &other, BOOT, &file), Err(Unreadable::Damaged(0)));
        let boot = &[b'0'; BOOT_LEN];
        assert_eq!(read(&Native, &host_key(), boot, &file), Err(Unreadable::OtherBoot));
        let newer = [b"WARRENJ2", &file[8..]].concat();
        assert_eq!(read_all(&newer), Err(Unreadable::Layout));
    }

    #[test]
    fn no_plaintext_shows_and_no_frame_is_endless() {
        let (mut sealer, _) = Sealer::new(&Native, &host_key(), BOOT, [3; 32]).unwrap();
        let frame = sealer.frame(Key(1), Some(&secret(0x77, 64))).unwrap();
        assert!(!frame.windows(4).any(|w| w == [0x77; 4]));
        assert!(sealer.frame(Key(1), Some(&secret(1, MAX_FRAME))).is_none());
    }
}
