//! A CA of the lab, and what it issues.

use std::path::{Path, PathBuf};

use crate::args::KeyType;
use crate::pki::{self, Issued, Request};

/// A CA whose files lie in a folder.
pub struct Authority {
    dir: PathBuf,
    key: KeyType,
    ca: Issued,
}

impl Authority {
    /// Makes one that is good for so many seconds: `FILE.pem` and `FILE.key`. It issues keys of the kind of its own.
    pub fn new(
        dir: &Path,
        file: &str,
        name: &str,
        key: KeyType,
        seconds: u64,
    ) -> Result<Self, String> {
        let ca = pki::make_ca(&request(name, key, seconds)).map_err(|error| error.to_string())?;
        pki::store(dir, file, &ca, true).map_err(|error| error.to_string())?;
        Ok(Self { dir: dir.to_owned(), key, ca })
    }

    /// The one whose files are there; it issues RSA keys.
    pub fn open(dir: &Path, file: &str) -> Result<Self, String> {
        let ca = pki::load(dir, file).map_err(|error| error.to_string())?;
        Ok(Self { dir: dir.to_owned(), key: KeyType::Rsa3072, ca })
    }

    /// A certificate under it for the hosts, good for so many seconds: `FILE.pem` and `FILE.key`.
    pub fn issue(&self, file: &str, name: &str, seconds: u64) -> Result<(), String> {
        let leaf = pki::make_leaf(&self.ca, &request(name, self.key, seconds));
        let leaf = leaf.map_err(|error| error.to_string())?;
        pki::store(&self.dir, file, &leaf, true).map(drop).map_err(|error| error.to_string())
    }
}

fn request(name: &str, key: KeyType, seconds: u64) -> Request<'_> {
    Request { name, key, seconds, sans: &[], unix_now: linux::clock::unix_now() }
}
