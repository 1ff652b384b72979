//! The userspace data plane out of one process and into the next, so that a stop, a start or another build loses nothing.
//!
//! A daemon that stops gives its plane to a holder: the same program, which carries packets and knows no IKE. The next
//! daemon takes it from there. Both are one conversation:
//!
//! ```text
//! taker: Take    giver: stops its threads    giver: Parcel (state and descriptors)
//! taker: checks everything, sends nothing    taker: Taken
//! giver: Gone, and never sends again         taker: begins
//! ```
//! Whoever hears nothing gives up: the giver goes on where it stopped, the taker begins anew. Only `Gone` moves the
//! right to send, so no sequence number, and no nonce, is ever used by both.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crypto::Provider;
use ipsec::change::RefusalReason;
use ipsec::pipeline::{Emit, Pipeline};
use linux::parcel::{self, Line, Word};
use linux::udp::Ports;
use linux::userspace::handover::{Former, Refused};
use linux::userspace::{self, Config, Upcalls, Userspace};

use super::driver::now;

/// Where a holder listens, in the state directory.
pub const DOOR: &str = "handover.sock";
/// For each word of the conversation.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// A holder starts within this, on a machine that is busy.
const STARTED: Duration = Duration::from_secs(15);
/// One that was killed is gone within this.
const KILLED: Duration = Duration::from_secs(5);

/// Why there was no hand-over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The conversation.
    #[error("{0}")]
    Parcel(#[from] parcel::Error),
    /// What came is not understood.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// An SA or a policy cannot be used.
    #[error("{0}")]
    State(#[from] RefusalReason),
    /// Sockets, routes, threads.
    #[error("{0}")]
    Userspace(#[from] userspace::Error),
    /// The holder's process or socket.
    #[error("the holder: {0}")]
    Holder(#[from] std::io::Error),
}

/// A plane that was taken over and has not begun.
pub struct Taken {
    plane: Userspace,
    ports: Arc<Ports>,
    emit: Vec<Emit>,
}

impl Taken {
    /// Asks for what is at the other end, and makes everything ready.
    pub fn ask(
        line: &Line,
        provider: Arc<dyn Provider>,
        config: Option<Config>,
        upcalls: Box<dyn Upcalls>,
    ) -> Result<Self, HandoverError> {
        line.say(Word::Take)?;
        let mut former = Former::read(line.take(PATIENCE)?)?;
        let (running, mut emit) = (std::mem::take(&mut former.running), Vec::new());
        let pipeline = Pipeline::resume(provider, now().at, running, &mut emit)?;
        let ports = former.ports.clone();
        let config = config.unwrap_or_else(|| former.config.clone());
        let plane = Userspace::resume(former, config, Arc::new(pipeline), upcalls)?;
        Ok(Self { plane, ports, emit })
    }

    /// The other one stops for good, and this one begins.
    pub fn begin(mut self, line: &Line) -> Result<(Userspace, Arc<Ports>), HandoverError> {
        line.say(Word::Taken)?;
        line.expect(Word::Gone, PATIENCE)?;
        self.plane.go(now().at, &mut self.emit)?;
        Ok((self.plane, self.ports))
    }
}

/// Hands the plane to whoever asks over this line. After `Ok` it must not be used any more; after `Err` it is paused,
/// and the other one has not begun, or has ended.
pub fn give(plane: &mut Userspace, line: &Line) -> Result<(), HandoverError> {
    plane.pause();
    let (state, fds) = plane.pack(now().at);
    line.give(&state, &fds)?;
    line.expect(Word::Taken, PATIENCE)?;
    Ok(line.say(Word::Gone)?)
}

/// Goes on with what the last daemon of this state directory has left running; `None` if there is nothing, or nothing
/// that can be used: then it is gone, and everything begins anew.
pub fn take(
    dir: &Path,
    provider: Arc<dyn Provider>,
    config: Config,
    upcalls: Box<dyn Upcalls>,
) -> Option<(Userspace, Arc<Ports>)> {
    let line = connect(dir)?;
    let taken = Taken::ask(&line, provider, Some(config), upcalls);
    match taken.and_then(|taken| taken.begin(&line)) {
        Ok(taken) => {
            let _ = std::fs::remove_file(dir.join(DOOR));
            let sas = taken.0.pipeline().sas().len();
            tracing::info!("going on with the running data plane of the last process, {sas} SAs");
            Some(taken)
        }
        Err(reason) => {
            tracing::warn!(
                "the running data plane of the last process is not gone on with: {reason}; its SAs are made again"
            );
            drop(line);
            dismiss(dir);
            None
        }
    }
}

/// Whoever holds a data plane for this state directory gives it up.
pub fn dismiss(dir: &Path) {
    let Some(line) = connect(dir) else { return };
    let left = line.say(Word::Leave).and_then(|()| line.expect(Word::Gone, PATIENCE));
    if let Err(reason) = left {
        let who = line.peer().map_or(0, |pid| pid.as_raw_nonzero().get());
        tracing::warn!("process {who} holds a data plane and is ended: {reason}");
        if let Err(error) = line.end_peer(KILLED) {
            tracing::error!("it could not be ended: {error}");
        }
        let _ = std::fs::remove_file(dir.join(DOOR));
    }
}

fn connect(dir: &Path) -> Option<Line> {
    let path = dir.join(DOOR);
    match Line::connect(&path) {
        Ok(line) => line,
        Err(error) => {
            tracing::warn!("{}: {error}", path.display());
            None
        }
    }
}

/// Leaves the plane with a holder, which this starts; gives its process id.
///
/// # Errors
/// Then there is no holder, and the plane is as it was, or paused.
pub fn leave_with_holder(plane: &mut Userspace, dir: &Path) -> Result<u32, HandoverError> {
    use std::os::unix::process::CommandExt;
    let (line, theirs) = Line::pair()?;
    // This very build, also where another one has taken its place on the disk. An interrupt typed at this process is
    // not for the holder.
    let mut holder = Command::new("/proc/self/exe")
        .arg("hold")
        .arg("--state-dir")
        .arg(dir)
        .stdin(theirs)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let given = line.expect(Word::Take, STARTED).map_err(HandoverError::from);
    match given.and_then(|()| give(plane, &line)) {
        Ok(()) => Ok(holder.id()),
        Err(error) => {
            let _ = holder.kill();
            let _ = holder.wait();
            Err(error)
        }
    }
}
