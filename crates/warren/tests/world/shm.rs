//! State directories in memory: daemons keep journals there, and leave holders behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::Daemon;
use super::unique;

/// A folder in memory that goes with the value; a holder that listens in it ends then.
pub struct Shm(pub PathBuf);

impl Shm {
    pub fn new() -> Self {
        let path = Path::new("/dev/shm").join(unique());
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// `warren run` with its state here.
    pub fn run(&self, daemon: &Daemon) -> Command {
        let mut command = daemon.typed(&["run"]);
        // As `Daemon` has it.
        command.env("WARREN_OFFLOAD", "off");
        command.arg("-m").arg(daemon.manifest()).arg("--state-dir").arg(&self.0);
        command
    }

    /// Processes that hold a data plane for this folder.
    pub fn holders(&self) -> Vec<u32> {
        let wanted = self.0.to_str().unwrap();
        let holds = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|b| *b == 0).collect();
            words.contains(&&b"hold"[..]) && words.contains(&wanted.as_bytes())
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(holds).collect()
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
