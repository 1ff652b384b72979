//! Descriptors and secrets from one process of this host to another of the same user: a Unix socket, `SCM_RIGHTS`, sealed memory.
//!
//! Words have eight bytes: a magic, a zero, and what is said. Their meaning never changes, whatever the parcel holds:
//! so a process can always ask one of another build to go. State travels in a `memfd` that nobody can change any more.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::process::{Pid, PidfdFlags, Signal};
use zeroize::Zeroizing;

use crate::errno::{Errno, explain, of, of_io};
use crate::sys;

const MAGIC: &[u8; 6] = b"WARREN";
const WORD: usize = 8;
/// Descriptors in a parcel, its memory included.
const MAX_FDS: usize = 16;
/// Bytes of state.
const MAX_STATE: u64 = 1 << 28;
const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Give me what you hold.
    Take,
    /// Here it is: a parcel comes with this word.
    Parcel,
    /// It is understood and can be gone on with; nothing was used yet.
    Taken,
    /// I have stopped for good: go on.
    Gone,
    /// Give up what you hold, and go.
    Leave,
}

/// Why nothing was handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A system call.
    #[error("{call}: {}", explain(*.errno))]
    Call {
        /// Which.
        call: &'static str,
        /// Its error number.
        errno: Errno,
    },
    /// It belongs to somebody else.
    #[error("user {0} is at the other end, who has no business there")]
    Stranger(u32),
    /// Nothing came in time.
    #[error("the other process does not answer")]
    Silent,
    /// It went away.
    #[error("the other process has ended")]
    Closed,
    /// Another word was due, or none of ours came.
    #[error("the other process says what makes no sense here")]
    Nonsense,
    /// What came could still be changed, or is no memory.
    #[error("what came is not sealed memory")]
    Unsealed,
    /// More than there can be.
    #[error("what came is too long")]
    TooLong,
}

/// What was handed over.
pub struct Parcel {
    /// State; secrets may be among it.
    pub state: Zeroizing<Vec<u8>>,
    /// Descriptors, in the order in which they were given.
    pub fds: Vec<OwnedFd>,
}

/// Without the state: keys are among it.
impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parcel({} bytes, {:?})", self.state.len(), self.fds)
    }
}

/// A conversation with another process of the same user.
#[derive(Debug)]
pub struct Line {
    socket: UnixStream,
    peer: Option<Pid>,
}

fn failed(call: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |errno| Error::Call { call, errno: of(errno) }
}

fn failed_io(call: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Silent,
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => Error::Closed,
        _ => Error::Call { call, errno: of_io(&error) },
    }
}

impl Line {
    /// Two ends, one of them for a child.
    pub fn pair() -> Result<(Self, OwnedFd), Error> {
        let (here, there) = UnixStream::pair().map_err(failed_io("socketpair"))?;
        Ok((Self::new(here)?, there.into()))
    }

    /// To whoever listens there; `None` if nobody does.
    pub fn connect(path: &Path) -> Result<Option<Self>, Error> {
        match UnixStream::connect(path) {
            Ok(socket) => Self::new(socket).map(Some),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed_io("connect")(error)),
        }
    }

    /// Over a connected Unix socket, after a look at who is at the other end.
    pub fn new(socket: UnixStream) -> Result<Self, Error> {
        let (peer, user) = credentials(&socket)?;
        if user != rustix::process::geteuid().as_raw() {
            return Err(Error::Stranger(user));
        }
        // An accepted socket does not inherit this.
        socket.set_nonblocking(false).map_err(failed_io("fcntl"))?;
        Ok(Self { socket, peer })
    }

    /// Who was at the other end when the line was made; `None` if that process is none that can be named here.
    pub fn peer(&self) -> Option<Pid> {
        self.peer
    }

    /// Says a word.
    pub fn say(&self, word: Word) -> Result<(), Error> {
        (&self.socket).write_all(&bytes(word)).map_err(failed_io("write"))
    }

    /// Waits for a word.
    pub fn hear(&self, limit: Duration) -> Result<Word, Error> {
        self.socket.set_read_timeout(Some(limit)).map_err(failed_io("setsockopt"))?;
        let mut heard = [0; WORD];
        (&self.socket).read_exact(&mut heard).map_err(failed_io("read"))?;
        word(heard)
    }

    /// Waits for this word.
    pub fn expect(&self, wanted: Word, limit: Duration) -> Result<(), Error> {
        if self.hear(limit)? == wanted { Ok(()) } else { Err(Error::Nonsense) }
    }

    /// Hands over copies of these descriptors, and this state.
    pub fn give(&self, state: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let memory = sealed(state)?;
        let all: Vec<BorrowedFd<'_>> =
            [memory.as_fd()].into_iter().chain(fds.iter().copied()).collect();
        if all.len() > MAX_FDS {
            return Err(Error::TooLong);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&all)) {
            return Err(Error::TooLong);
        }
        let said = bytes(Word::Parcel);
        let sent = rustix::net::sendmsg(
            &self.socket,
            &[IoSlice::new(&said)],
            &mut control,
            SendFlags::NOSIGNAL,
        );
        match sent.map_err(failed("sendmsg"))? {
            WORD => Ok(()),
            _ => Err(Error::Closed),
        }
    }

    /// Waits for a parcel.
    pub fn take(&self, limit: Duration) -> Result<Parcel, Error> {
        self.wait(limit)?;
        let mut heard = [0; WORD];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut heard)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        );
        let received = received.map_err(failed("recvmsg"))?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                fds.extend(some);
            }
        }
        if received.bytes == 0 {
            return Err(Error::Closed);
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Error::TooLong);
        }
        if received.bytes != WORD || word(heard)? != Word::Parcel || fds.is_empty() {
            return Err(Error::Nonsense);
        }
        let state = unsealed(fds.remove(0))?;
        Ok(Parcel { state, fds })
    }

    /// Ends the process at the other end, which does not answer. Returns once it is gone, or after `limit`.
    pub fn end_peer(&self, limit: Duration) -> Result<(), Error> {
        let Some(peer) = self.peer else { return Err(Error::Silent) };
        let process = rustix::process::pidfd_open(peer, PidfdFlags::empty());
        let process = match process {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            other => other.map_err(failed("pidfd_open"))?,
        };
        // The line is still open: the number has not become somebody else's.
        if !self.is_open() {
            return Ok(());
        }
        rustix::process::pidfd_send_signal(&process, Signal::KILL).map_err(failed("kill"))?;
        let mut polled = [PollFd::new(&process, PollFlags::IN)];
        rustix::event::poll(&mut polled, Some(&timespec(limit))).map_err(failed("poll"))?;
        Ok(())
    }

    fn is_open(&self) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        let _ = rustix::event::poll(&mut polled, Some(&timespec(Duration::ZERO)));
        !polled[0].revents().contains(PollFlags::HUP)
    }

    fn wait(&self, limit: Duration) -> Result<(), Error> {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&timespec(limit))).map_err(failed("poll"))? {
            0 => Err(Error::Silent),
            _ => Ok(()),
        }
    }
}

/// Process and user at the other end. Process ids of another namespace are 0.
fn credentials(socket: &UnixStream) -> Result<(Option<Pid>, u32), Error> {
    // struct ucred: pid, uid, gid.
    let mut ucred = [0; 12];
    let got = sys::get_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, &mut ucred);
    match (got, ucred) {
        (Ok(12), [a, b, c, d, e, f, g, h, ..]) => {
            let pid = i32::from_ne_bytes([a, b, c, d]);
            let peer = (pid > 0).then(|| Pid::from_raw(pid)).flatten();
            Ok((peer, u32::from_ne_bytes([e, f, g, h])))
        }
        (Ok(_), _) => Err(Error::Nonsense),
        (Err(errno), _) => Err(Error::Call { call: "SO_PEERCRED", errno }),
    }
}

fn timespec(limit: Duration) -> Timespec {
    Timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    }
}

fn bytes(word: Word) -> [u8; WORD] {
    let code = match word {
        Word::Take => 1,
        Word::Parcel => 2,
        Word::Taken => 3,
        Word::Gone => 4,
        Word::Leave => 5,
    };
    let [a, b, c, d, e, f] = *MAGIC;
    [a, b, c, d, e, f, 0, code]
}

fn word(heard: [u8; WORD]) -> Result<Word, Error> {
    let all = [Word::Take, Word::Parcel, Word::Taken, Word::Gone, Word::Leave];
    all.into_iter().find(|word| bytes(*word) == heard).ok_or(Error::Nonsense)
}

/// Memory with this content, which nobody can change any more.
fn sealed(state: &[u8]) -> Result<OwnedFd, Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Older kernels do not know the third flag; newer ones may insist on it.
    let memory = rustix::fs::memfd_create("warren", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create("warren", flags))
        .map_err(failed("memfd_create"))?;
    let mut file = File::from(memory);
    file.write_all(state).map_err(failed_io("memfd write"))?;
    rustix::fs::fcntl_add_seals(&file, SEALS).map_err(failed("F_ADD_SEALS"))?;
    Ok(file.into())
}

fn unsealed(memory: OwnedFd) -> Result<Zeroizing<Vec<u8>>, Error> {
    match rustix::fs::fcntl_get_seals(&memory) {
        Ok(seals) if seals.contains(SEALS) => {}
        _ => return Err(Error::Unsealed),
    }
    let size = rustix::fs::fstat(&memory).map_err(failed("fstat"))?.st_size;
    let size = u64::try_from(size).map_err(|_| Error::TooLong)?;
    if size > MAX_STATE {
        return Err(Error::TooLong);
    }
    let mut state = Zeroizing::new(vec![0; usize::try_from(size).map_err(|_| Error::TooLong)?]);
    let file = File::from(memory);
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut state, 0)
        .map_err(failed_io("memfd read"))?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(200);

    fn pair() -> (Line, Line) {
        let (here, there) = Line::pair().unwrap();
        (here, Line::new(there.into()).unwrap())
    }

    #[test]
    fn words_and_a_parcel() {
        let (a, b) = pair();
        a.say(Word::Take).unwrap();
        assert_eq!(b.hear(SOON), Ok(Word::Take));
        let file = File::open("/dev/null").unwrap();
        b.give(b"secret", &[file.as_fd()]).unwrap();
        let parcel = a.take(SOON).unwrap();
        assert_eq!((&parcel.state[..], parcel.fds.len()), (&b"secret"[..], 1));
        let shown = format!("{parcel:?}");
        assert!(shown.starts_with("Parcel(6 bytes") && !shown.contains("115, 101"), "{shown}");
        assert_eq!(a.hear(SOON), Err(Error::Silent));
        drop(b);
        assert_eq!(a.hear(SOON), Err(Error::Closed));
        assert_eq!(a.take(SOON).unwrap_err(), Error::Closed);
        assert_eq!(a.peer(), Some(rustix::process::getpid()));
    }

    #[test]
    fn what_is_no_word_and_no_parcel_is_refused() {
        let (a, b) = pair();
        (&b.socket).write_all(b"WARREN\0\x09").unwrap();
        assert_eq!(a.hear(SOON), Err(Error::Nonsense));
        b.say(Word::Taken).unwrap();
        assert_eq!(a.expect(Word::Gone, SOON), Err(Error::Nonsense));
        b.say(Word::Parcel).unwrap();
        assert_eq!(a.take(SOON).unwrap_err(), Error::Nonsense, "without a descriptor");
        (&b.socket).write_all(b"WAR").unwrap();
        assert_eq!(a.take(SOON).unwrap_err(), Error::Nonsense, "half a word");
        assert_eq!(a.take(SOON).unwrap_err(), Error::Silent);
    }

    #[test]
    fn memory_that_can_be_changed_is_refused() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create("open", flags).unwrap();
        assert_eq!(unsealed(memory).unwrap_err(), Error::Unsealed);
        assert_eq!(unsealed(File::open("/dev/null").unwrap().into()).unwrap_err(), Error::Unsealed);
        let memory = File::from(rustix::fs::memfd_create("long", flags).unwrap());
        memory.set_len(MAX_STATE + 1).unwrap();
        rustix::fs::fcntl_add_seals(&memory, SEALS).unwrap();
        assert_eq!(unsealed(memory.into()).unwrap_err(), Error::TooLong);
        let written = File::from(sealed(b"x").unwrap());
        assert!((&written).write_all(b"y").is_err());
    }

    #[test]
    fn nobody_is_there() {
        let path = std::env::temp_dir().join(format!("wt-parcel-{}", std::process::id()));
        assert!(Line::connect(&path).unwrap().is_none());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(Line::connect(&path).unwrap().is_none(), "a file that nobody listens on");
        std::fs::remove_file(&path).unwrap();
    }
}
