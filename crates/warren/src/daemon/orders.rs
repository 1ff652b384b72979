//! What operators have said of peers, in a file of the state directory: `down` stays down over a restart.
//!
//! `{"version":1,"up":["10.0.0.7"],"down":["10.0.0.9"]}`, written anew with each change. A file of another version, or one
//! that cannot be read, is named in the log and not obeyed.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use mesh::Order;
use serde::{Deserialize, Serialize};

use super::journal::{create_private, remove};

const FILE: &str = "orders.json";
const NEXT: &str = "orders.json.new";
const VERSION: u32 = 1;
/// More than all peers that there can be take.
const LONGEST: u64 = 8 << 20;

/// The file's content.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    #[serde(default)]
    up: Vec<IpAddr>,
    #[serde(default)]
    down: Vec<IpAddr>,
}

/// The file of one state directory.
pub struct Orders {
    dir: PathBuf,
    /// What is in it.
    kept: BTreeMap<IpAddr, Order>,
}

impl Orders {
    /// Reads it.
    pub fn open(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let kept = read(&path).unwrap_or_else(|reason| {
            tracing::warn!(
                "{}: {reason}; what `up` and `down` said before is forgotten",
                path.display()
            );
            BTreeMap::new()
        });
        Self { dir: dir.to_owned(), kept }
    }

    /// What it said.
    pub fn get(&self) -> &BTreeMap<IpAddr, Order> {
        &self.kept
    }

    /// What it is to say from now on.
    pub fn put(&mut self, orders: BTreeMap<IpAddr, Order>) {
        if orders == self.kept {
            return;
        }
        if let Err(error) = self.write(&orders) {
            tracing::error!(
                "{}: {error}; a restart will not know what was said",
                self.dir.join(FILE).display()
            );
        }
        self.kept = orders;
    }

    /// Nothing is said to the next process.
    pub fn forget(self) {
        let _ = std::fs::remove_file(self.dir.join(FILE));
    }

    /// The old file is there until the new one is whole.
    fn write(&self, orders: &BTreeMap<IpAddr, Order>) -> io::Result<()> {
        let of = |wanted| {
            let some = orders.iter().filter(move |(_, order)| **order == wanted);
            some.map(|(address, _)| *address).collect()
        };
        let kept = Kept { version: VERSION, up: of(Order::Up), down: of(Order::Down) };
        let next = self.dir.join(NEXT);
        remove(&next).map_err(io::Error::other)?;
        let mut file = create_private(&next).map_err(io::Error::other)?;
        file.write_all(&serde_json::to_vec(&kept)?)?;
        std::fs::rename(&next, self.dir.join(FILE))
    }
}

fn read(path: &Path) -> Result<BTreeMap<IpAddr, Order>, String> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        other => other.map_err(|error| error.to_string())?,
    };
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).map_err(|error| error.to_string())?;
    let kept: Kept = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if kept.version != VERSION {
        return Err(format!("it has version {}, and this build reads {VERSION}", kept.version));
    }
    let up = kept.up.into_iter().map(|address| (address, Order::Up));
    Ok(up.chain(kept.down.into_iter().map(|address| (address, Order::Down))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("wt-orders-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn orders() -> BTreeMap<IpAddr, Order> {
        [([10, 0, 0, 1].into(), Order::Up), ("fd00::2".parse().unwrap(), Order::Down)].into()
    }

    #[test]
    fn what_was_said_is_found_and_what_was_taken_back_is_not() {
        let folder = Folder::new("found");
        let mut file = Orders::open(&folder.0);
        assert!(file.get().is_empty());
        file.put(orders());
        assert_eq!(Orders::open(&folder.0).get(), &orders());
        file.put(BTreeMap::new());
        assert!(Orders::open(&folder.0).get().is_empty());
        file.put(orders());
        file.forget();
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0);
    }

    #[test]
    fn torn_anywhere_or_of_another_version_it_is_not_obeyed_and_not_in_the_way() {
        let folder = Folder::new("torn");
        Orders::open(&folder.0).put(orders());
        let path = folder.0.join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(Orders::open(&folder.0).get().is_empty(), "{cut} of {}", whole.len());
        }
        let newer = String::from_utf8(whole).unwrap().replace("\"version\":1", "\"version\":2");
        std::fs::write(&path, newer).unwrap();
        let mut file = Orders::open(&folder.0);
        assert!(file.get().is_empty());
        file.put(orders());
        assert_eq!(Orders::open(&folder.0).get(), &orders());
    }
}
