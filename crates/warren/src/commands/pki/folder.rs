//! The folder from which certificates are handed out: `ca.pem` with the CAs that hosts accept, `ca.key`, the hosts'
//! certificate and key; during a rotation also the next CA, and after it the last one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crypto::chain::{Certificate, TrustStore};

use super::fleet::Host;
use super::phase::{Phase, Rotation};
use crate::exit::Failure;
use crate::load;
use crate::pki::{self, Issued};

/// Name of the next CA's files.
pub const NEXT: &str = "next-ca";
/// Name of the last CA's files.
pub const LAST: &str = "old-ca";

/// What is in it.
pub struct Folder {
    /// Where it is.
    pub dir: PathBuf,
    /// Name of the hosts' certificate.
    pub name: String,
    /// What hosts accept; the one with the key comes first.
    pub cas: Vec<Certificate>,
    /// The CA that comes, during a rotation.
    pub next: Option<Certificate>,
    last: Vec<Certificate>,
    /// The hosts' certificate.
    pub leaf: Certificate,
}

impl Folder {
    /// Reads it.
    pub fn open(dir: &Path, name: &str) -> Result<Self, Failure> {
        let all = |name: &str| certificates(&dir.join(format!("{name}.pem")));
        let maybe = |name: &str| match dir.join(format!("{name}.pem")).exists() {
            true => all(name),
            false => Ok(Vec::new()),
        };
        let mut leaf = all(name)?;
        Ok(Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            cas: all("ca")?,
            next: maybe(NEXT)?.into_iter().next(),
            last: maybe(LAST)?,
            leaf: leaf.remove(0),
        })
    }

    /// The phase in which hosts are that have just these files.
    pub fn phase(&self) -> Phase {
        match &self.next {
            Some(next) if !self.cas.contains(next) => Phase::Before,
            Some(next) if leads_to(&self.leaf, next) => Phase::NewLeaf,
            Some(_) => Phase::Appended,
            None if self.rotation().is_some() => Phase::Dropped,
            None => Phase::Before,
        }
    }

    /// The CAs of the rotation that is under way, or was the last.
    pub fn rotation(&self) -> Option<Rotation> {
        let ids = |all: &[Certificate]| all.iter().map(load::key_id).collect();
        match &self.next {
            Some(next) => {
                let old: Vec<_> = self.cas.iter().filter(|ca| *ca != next).cloned().collect();
                // Where dropping them was interrupted, they are in their own file already.
                let gone = if old.is_empty() { &self.last } else { &old };
                let mut old: BTreeSet<String> = ids(gone);
                let new = load::key_id(next);
                old.remove(&new);
                Some(Rotation { old, new })
            }
            None => {
                let gone = self.last.iter().filter(|ca| !self.cas.contains(ca)).cloned();
                let gone: Vec<_> = gone.collect();
                let new = self.cas.first().filter(|_| !gone.is_empty())?;
                Some(Rotation { old: ids(&gone), new: load::key_id(new) })
            }
        }
    }

    /// The CA that the next certificate is issued by: files of that name, and its certificate.
    pub fn issuer(&self) -> (&'static str, &Certificate) {
        match &self.next {
            Some(next) => (NEXT, next),
            None => ("ca", &self.cas[0]),
        }
    }

    /// Whether a host shows the folder's certificate.
    pub fn is_of(&self, host: &Host) -> bool {
        host.leaf.as_ref().is_some_and(|leaf| leaf.serial == self.leaf.serial_text())
    }

    /// The next CA is among those that hosts accept from now on.
    pub fn append(&self, next: &str) -> Result<PathBuf, Failure> {
        let path = self.dir.join("ca.pem");
        let now = load::read(&path).map_err(Failure::no)?;
        let both = format!("{}\n{}", now.trim_end(), next);
        pki::write(&path, &both, 0o644).map_err(Failure::no)?;
        Ok(path)
    }

    /// A new certificate takes the place of the present one, which is kept beside it.
    pub fn replace_leaf(&self, leaf: &Issued) -> Result<[PathBuf; 2], Failure> {
        let present = pki::load(&self.dir, &self.name).map_err(Failure::no)?;
        let kept = format!("old-{}", self.name);
        pki::store(&self.dir, &kept, &present, true).map_err(Failure::no)?;
        pki::store(&self.dir, &self.name, leaf, true).map_err(Failure::no)
    }

    /// The next CA is the CA. Interrupted anywhere it can be done again.
    pub fn drop_old(&self) -> Result<[PathBuf; 2], Failure> {
        let next = pki::load(&self.dir, NEXT).map_err(Failure::no)?;
        if self.last != self.cas && self.cas.iter().any(|ca| Some(ca) != self.next.as_ref()) {
            let present = pki::load(&self.dir, "ca").map_err(Failure::no)?;
            pki::store(&self.dir, LAST, &present, true).map_err(Failure::no)?;
        }
        let paths = pki::store(&self.dir, "ca", &next, true).map_err(Failure::no)?;
        for end in ["pem", "key"] {
            let path = self.dir.join(format!("{NEXT}.{end}"));
            std::fs::remove_file(&path)
                .map_err(|error| Failure::No(format!("{}: {error}", path.display())))?;
        }
        Ok(paths)
    }
}

/// Whether a certificate leads to a CA, now.
pub fn leads_to(leaf: &Certificate, ca: &Certificate) -> bool {
    let trust = TrustStore { roots: vec![ca.clone()], ..TrustStore::default() };
    let now = linux::clock::unix_now();
    // One that has ended was issued by it all the same.
    trust.verify(leaf, &[], now.clamp(leaf.not_before, leaf.not_after.max(leaf.not_before))).is_ok()
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, Failure> {
    let named = |error: &dyn std::fmt::Display| Failure::No(format!("{}: {error}", path.display()));
    let text = load::read(path).map_err(|error| named(&error))?;
    Certificate::from_pem_all(&text).map_err(|error| named(&error))
}
