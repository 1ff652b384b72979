//! Keys of IKE SAs from Wireshark's `ikev2_decryption_table`, and messages opened with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crypto::cipher::Cipher;
use crypto::native::Native;
use ike::endpoint::ExportedKeys;
use wire::message::{Header, IkeSpi};
use zeroize::Zeroizing;

use crate::wireshark::{BadLine, parse_ike_line};

/// Wireshark's name of the table in a profile's folder.
const TABLE: &str = "ikev2_decryption_table";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not to be read.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line that is none of the table's.
    #[error("{path}, line {line}: {error}", path = .path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        error: BadLine,
    },
}

/// The ciphers of both directions of each IKE SA.
#[derive(Default)]
pub struct Keyring(BTreeMap<(IkeSpi, IkeSpi), Pair>);

struct Pair {
    from_initiator: Box<dyn Cipher>,
    from_responder: Box<dyn Cipher>,
}

impl Keyring {
    /// Reads the table; `path` is the file, or the folder with it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let path = if path.is_dir() { path.join(TABLE) } else { path.to_owned() };
        let text = std::fs::read_to_string(&path).map(Zeroizing::new);
        let text = text.map_err(|error| Error::Io { path: path.clone(), error })?;
        let mut ring = Self::default();
        let lines = text.lines().map(str::trim).enumerate();
        for (n, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let bad = |error| Error::Line { path: path.clone(), line: n + 1, error };
            let keys = parse_ike_line(line).map_err(bad)?;
            ring.add(&keys).ok_or_else(|| bad(BadLine::Algorithm))?;
        }
        Ok(ring)
    }

    /// Adds an IKE SA's keys; `None` if the cryptographic library does not have its algorithms.
    pub fn add(&mut self, keys: &ExportedKeys) -> Option<()> {
        if self.0.contains_key(&(keys.spi_i, keys.spi_r)) {
            return Some(());
        }
        let cipher = |encr: &crypto::Secret, integ: &crypto::Secret| {
            crypto::Provider::cipher(&Native, keys.cipher, encr.expose(), integ.expose()).ok()
        };
        let pair = Pair {
            from_initiator: cipher(&keys.sk_ei, &keys.sk_ai)?,
            from_responder: cipher(&keys.sk_er, &keys.sk_ar)?,
        };
        self.0.insert((keys.spi_i, keys.spi_r), pair);
        Some(())
    }

    /// What the sender of this message sealed it with.
    pub fn cipher(&self, header: &Header) -> Option<&dyn Cipher> {
        let pair = self.0.get(&(header.spi_i, header.spi_r))?;
        let by_initiator = header.flags.initiator;
        Some(if by_initiator { &*pair.from_initiator } else { &*pair.from_responder })
    }
}
