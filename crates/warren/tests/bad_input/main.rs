//! What is wrong is refused with its place and its remedy, and nothing is half started.
#![allow(clippy::disallowed_methods, reason = "tests of the program use files, clocks and threads")]

#[path = "../world/mod.rs"]
mod world;

mod certificates;
mod files;
mod full_disk;
mod manifests;
mod socket;
mod start;

use world::daemon::Daemon;
use world::net::Net;
use world::{Ended, finish};

/// A PSK that is long enough.
const PSK: &str = "psk: correct horse battery staple\n";

/// `check` and `run` on one host, whose manifest is refused by both in the same words.
struct Judge {
    net: Net,
    daemon: Daemon,
}

impl Judge {
    fn new() -> Self {
        let net = Net::new(&["10.77.0.1"], 24);
        let daemon = Daemon::new(&net.hosts[0], net.addresses[0]);
        Self { net, daemon }
    }

    /// Refused with each of these texts, by `check` and by `run`; nothing stays.
    fn refuses(&self, manifest: impl AsRef<[u8]>, texts: &[&str]) -> Ended {
        let path = self.daemon.folder.put("warren.yml", manifest);
        let path = path.to_str().unwrap();
        let checked = self.daemon.warren(&["check", path]);
        checked.refused(texts);
        let json = self.daemon.json(&["check", path]);
        assert_eq!(json["ok"], false, "{json}");
        self.daemon.refused_start().refused(texts);
        self.nothing_stays();
        checked
    }

    /// Accepted by `check`; its output.
    fn accepts(&self, manifest: impl AsRef<[u8]>) -> String {
        let path = self.daemon.folder.put("warren.yml", manifest);
        finish(&mut self.daemon.typed(&["check", path.to_str().unwrap()])).ok()
    }

    fn nothing_stays(&self) {
        assert_eq!(self.net.traces(0), Vec::<String>::new());
        assert!(!self.daemon.control().exists(), "a control socket without a daemon stays");
    }
}
