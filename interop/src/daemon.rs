//! What a peer must be able to do, whoever it is; and the folder that it runs in.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::enter::{OWN, VERB};
use crate::matrix::{Cell, Peer};
use crate::net::{Net, Running};

/// Established IKE SAs and installed child SAs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sas {
    /// IKE SAs.
    pub ike: usize,
    /// Child SAs.
    pub children: usize,
}

/// A peer that runs.
pub trait Daemon {
    /// Brings the tunnel up, and waits for it.
    fn initiate(&self) -> Result<(), String>;
    /// Begins to bring it up, and waits for nothing.
    fn begin(&self) -> Result<(), String>;
    /// What it has.
    fn sas(&self) -> Result<Sas, String>;
    /// Rekeys the child SA.
    fn rekey_child(&self) -> Result<(), String>;
    /// Rekeys the IKE SA.
    fn rekey_ike(&self) -> Result<(), String>;
    /// Deletes the IKE SA, and all with it.
    fn terminate(&self) -> Result<(), String>;
    /// Sends its tunnel to another gateway; not every daemon can, of its own accord.
    fn redirect(&self, to: IpAddr) -> Result<(), String> {
        Err(format!("this peer does not redirect to {to}"))
    }

    /// Ends it as a power failure would, and starts it again.
    fn reboot(&mut self) -> Result<(), String>;
    /// The end of its log.
    fn log(&self) -> String;
}

/// Where a peer lives: its programs in `root`, what it writes in `home`.
pub struct Home<'a> {
    /// The hosts.
    pub net: &'a Net,
    root: PathBuf,
    /// Its `etc`, `run` and `var`.
    pub dir: PathBuf,
}

impl<'a> Home<'a> {
    /// Makes its folders.
    pub fn new(net: &'a Net, cell: &Cell) -> Result<Self, String> {
        let dir = net.dir.join("peer");
        for own in OWN {
            let own = dir.join(own);
            fs::create_dir_all(&own).map_err(|error| format!("{}: {error}", own.display()))?;
        }
        // Some sockets have an old-fashioned name.
        let old = dir.join("var/run");
        std::os::unix::fs::symlink("/run", &old)
            .map_err(|error| format!("{}: {error}", old.display()))?;
        Ok(Self { net, root: root(cell.peer), dir })
    }

    /// Writes a file, with the folders above it.
    pub fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.place(name)?;
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Copies a file.
    pub fn copy(&self, from: &Path, name: &str) -> Result<(), String> {
        let to = self.place(name)?;
        fs::copy(from, &to)
            .map(|_| ())
            .map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))
    }

    fn place(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
        }
        Ok(path)
    }

    /// A file of its, or nothing.
    pub fn read(&self, name: &str) -> String {
        fs::read(self.dir.join(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Runs a program of its and gives what it says; an error if it fails.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let output = self.output(program, args)?;
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            Ok(said.into_owned())
        } else {
            Err(format!("{program} {}: {} {said}", args.join(" "), output.status))
        }
    }

    /// Runs a program of its.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<Output, String> {
        let (myself, first) = self.entrance(program)?;
        let mut all: Vec<&str> = first.iter().map(String::as_str).collect();
        all.extend(args);
        self.net.on(&self.net.theirs, &myself, &all)
    }

    /// Starts a program of its.
    pub fn start(&self, program: &str, args: &[&str], log: &str) -> Result<Running, String> {
        let (myself, first) = self.entrance(program)?;
        let mut all: Vec<&str> = first.iter().map(String::as_str).collect();
        all.extend(args);
        self.net.start(&self.net.theirs, &myself, &all, log)
    }

    fn entrance(&self, program: &str) -> Result<(String, [String; 4]), String> {
        let myself = std::env::current_exe().map_err(|error| error.to_string())?;
        let first = [
            VERB.to_owned(),
            self.root.display().to_string(),
            self.dir.display().to_string(),
            program.to_owned(),
        ];
        Ok((myself.display().to_string(), first))
    }

    /// Takes away what its kernel remembers, as a reboot does.
    pub fn forget(&self) -> Result<(), String> {
        for what in ["state", "policy"] {
            self.net.on(&self.net.theirs, "ip", &["xfrm", what, "flush"])?;
        }
        Ok(())
    }
}

/// All folders with peers.
pub fn roots() -> PathBuf {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/peers");
    let folder = std::env::var_os("WARREN_PEERS").map_or(built, PathBuf::from);
    folder.canonicalize().unwrap_or(folder)
}

fn root(peer: Peer) -> PathBuf {
    roots().join(peer.folder())
}

/// Its version, as its package says.
pub fn version(peer: Peer) -> String {
    fs::read_to_string(root(peer).join("VERSION"))
        .map_or_else(|_| "absent".into(), |text| text.trim().to_owned())
}
