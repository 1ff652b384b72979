//! Runs a program of a peer: in the peer's own root, with its own `/etc`, `/run` and `/var`.
//!
//! The mounts belong to a mount namespace that ends with the program. Each program of a peer has one of its own; they
//! meet in the folders that are mounted.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_bind_recursive, mount_change};

/// The argument that makes this program an entrance.
pub const VERB: &str = "enter";

/// What a peer writes to.
pub const OWN: [&str; 3] = ["etc", "run", "var"];

/// `enter ROOT HOME PROGRAM ARGS`: `HOME/etc`, `HOME/run` and `HOME/var` take the places of `ROOT`'s.
pub fn main(args: &[String]) -> ExitCode {
    let [root, home, program, args @ ..] = args else {
        eprintln!("usage: warren-interop {VERB} ROOT HOME PROGRAM ARGS");
        return ExitCode::from(2);
    };
    if let Err(error) = prepare(Path::new(root), Path::new(home)) {
        eprintln!("warren-interop: entering {root}: {error}");
        return ExitCode::FAILURE;
    }
    let error = Command::new(program).args(args).exec();
    eprintln!("warren-interop: {program} of {root}: {error}");
    ExitCode::FAILURE
}

fn prepare(root: &Path, home: &Path) -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for dir in OWN {
        mount_bind(home.join(dir), root.join(dir))?;
    }
    for dir in ["proc", "sys", "dev"] {
        mount_bind_recursive(Path::new("/").join(dir), root.join(dir))?;
    }
    std::os::unix::fs::chroot(root)?;
    std::env::set_current_dir("/")
}
