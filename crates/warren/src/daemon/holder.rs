//! Between two daemons: the data plane goes on carrying packets, until the next daemon takes it.
//!
//! It knows no IKE: what peers ask meanwhile they ask again. It ends, and leaves the leak guard in its place, when it is
//! told to, when no SA is left, or when the socket that it listens on is gone, as with its state directory.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crypto::native::Native;
use ipsec::dataplane::Dataplane;
use linux::parcel::{Line, Word};
use linux::userspace::{IkeDatagram, Upcalls, Userspace};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Mode;

use super::driver::now;
use super::handover::{DOOR, HandoverError, PATIENCE, Taken, give};
use crate::args::Hold;
use crate::exit::Failure;

/// Time between two looks at whether there is still something to do.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// Takes over what is given on standard input, and holds it.
pub fn run(args: &Hold) -> Result<(), Failure> {
    linux::sandbox::keep_secrets().map_err(Failure::no)?;
    // The daemon has said it, if it is not so.
    let _ = linux::sandbox::lock_memory();
    let line = giver().map_err(|error| {
        Failure::Usage(format!("`hold` is started by a daemon that stops ({error})"))
    })?;
    let stop = on_signals().map_err(Failure::no)?;
    let held = hold(&line, &args.state_dir, &stop);
    held.map_err(Failure::no)
}

/// Standard input, which is free from then on.
fn giver() -> Result<Line, HandoverError> {
    let socket: OwnedFd = rustix::stdio::stdin().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?).map_err(std::io::Error::from)?;
    Ok(Line::new(UnixStream::from(socket))?)
}

fn hold(line: &Line, dir: &Path, stop: &AtomicBool) -> Result<(), HandoverError> {
    let taken = Taken::ask(line, Arc::new(Native), None, Box::new(Deaf))?;
    // Whoever comes from now on finds this one.
    let door = Door::open(&dir.join(DOOR))?;
    // The ports are held by the plane itself.
    let (mut plane, _) = taken.begin(line)?;
    let caller = loop {
        if stop.load(Relaxed) || !door.is_there() || !is_of_use(&mut plane) {
            break None;
        }
        let Some(caller) = door.caller() else { continue };
        match caller.hear(PATIENCE) {
            // The door stays: its file is the new one's to take away.
            Ok(Word::Take) => match give(&mut plane, &caller) {
                Ok(()) => return Ok(()),
                Err(_) if plane.go(now().at, &mut Vec::new()).is_err() => break None,
                Err(_) => {}
            },
            Ok(Word::Leave) => break Some(caller),
            _ => {}
        }
    };
    door.close();
    // Without a kernel that has such policies blackholes stay, and drop all.
    let _ = plane.leave();
    caller.map_or(Ok(()), |caller| Ok(caller.say(Word::Gone)?))
}

fn is_of_use(plane: &mut Userspace) -> bool {
    // Events are told to nobody: the next daemon looks for itself.
    while plane.poll_event().is_some() {}
    plane.broken().is_none() && !plane.pipeline().sas().is_empty()
}

/// Ended by SIGTERM and SIGINT; a terminal that is closed is not its business.
fn on_signals() -> std::io::Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let hangup = signal(SignalKind::hangup())?;
    drop(guard);
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let _ignored = hangup;
        runtime.block_on(async {
            tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
        });
        flag.store(true, Relaxed);
    })?;
    Ok(stop)
}

/// Nobody here understands IKE.
struct Deaf;

impl Upcalls for Deaf {
    fn ike(&self, _: IkeDatagram) {}
    fn events(&self) {}
}

/// The socket on which the next daemon asks.
struct Door {
    path: PathBuf,
    listener: UnixListener,
    /// What names the file.
    inode: u64,
}

impl Door {
    /// In place of one that nobody listens on: there is one daemon a state directory, and it has nothing to do with
    /// another holder.
    fn open(path: &Path) -> std::io::Result<Self> {
        if let Err(error) = fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error);
        }
        // Born with its mode: between binding and a change of mode anybody could connect.
        let before = rustix::process::umask(Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(path);
        rustix::process::umask(before);
        let listener = listener?;
        listener.set_nonblocking(true)?;
        let inode = fs::symlink_metadata(path)?.ino();
        Ok(Self { path: path.to_owned(), listener, inode })
    }

    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|there| there.ino() == self.inode)
    }

    /// Somebody of the same user, if one comes soon.
    fn caller(&self) -> Option<Line> {
        let mut polled = [PollFd::new(&self.listener, PollFlags::IN)];
        let _ = rustix::event::poll(&mut polled, Some(&LOOK_EVERY));
        Line::new(self.listener.accept().ok()?.0).ok()
    }

    fn close(&self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}
