//! Manifests for benchmarks, in a folder of their own.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crypto::native::Native;
use serde_json::{Value, json};

use super::star::SUBNET;
use crate::args::{KeyType, Suite};
use crate::exit::Failure;
use crate::lab::authority::Authority;
use crate::lab::recipe::Recipe;
use crate::load::{self, Accepted};
use crate::pki::days;

/// A folder for manifests and certificates; it goes with this value.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it.
    pub fn new(what: &str) -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("warren-bench-{what}-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(Failure::no)?;
        Ok(Self(path))
    }

    /// A manifest for that suite.
    pub fn recipe(&self, suite: Suite) -> Result<Recipe, Failure> {
        let net = SUBNET.parse().map_err(Failure::no)?;
        let recipe = Recipe::own(&self.0, net).with("dpddelay", json!(30));
        let x25519 = json!(["aes128gcm16-prfsha256-x25519"]);
        match suite {
            Suite::Modp2048Rsa3072 => {
                self.certificates(KeyType::Rsa3072)?;
                Ok(recipe)
            }
            Suite::X25519P256 => {
                self.certificates(KeyType::P256)?;
                Ok(recipe.with("ike_proposals", x25519))
            }
            Suite::X25519Psk => {
                let certificates =
                    ["instance_certificate", "instance_private_key", "ca_certificates"];
                let bare = certificates.iter().fold(recipe, |recipe, name| recipe.without(name));
                let psk = json!("of no worth, for a benchmark alone");
                Ok(bare.with("psk", psk).with("ike_proposals", x25519))
            }
        }
    }

    fn certificates(&self, key: KeyType) -> Result<(), Failure> {
        let ca = Authority::new(&self.0, "ca", "bench CA", key, days(30)).map_err(Failure::No)?;
        ca.issue("instance", "bench", days(10)).map_err(Failure::No)
    }

    /// Reads a manifest as a daemon does.
    pub fn accept(&self, recipe: &Recipe) -> Result<Accepted, Failure> {
        let path = self.write(recipe)?;
        read(&path)
    }

    /// Writes a manifest.
    pub fn write(&self, recipe: &Recipe) -> Result<PathBuf, Failure> {
        let path = self.0.join("manifest.yml");
        fs::write(&path, recipe.text()).map_err(Failure::no)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Reads a manifest as a daemon does.
pub fn read(path: &Path) -> Result<Accepted, Failure> {
    load::load(path, &Native, linux::clock::unix_now(), None).map_err(Failure::no)
}

/// So many entries of `peers`.
pub fn peers(count: usize) -> Value {
    let peer = |index| json!({"address": super::star::address(index), "name": format!("h{index}")});
    (1..=count).map(peer).collect()
}
