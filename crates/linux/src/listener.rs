//! IKE from the wire and events of the kernel, where the kernel itself carries the ESP: one thread for both.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, epoll};
use wire::datagram::{Datagram, classify};

use crate::datagram::{Received, RecvBatch};
use crate::errno::{Errno, explain, of, of_io};
use crate::udp::Ports;
use crate::userspace::{IkeDatagram, Upcalls};

/// Every datagram fits.
const LONGEST: usize = 65_536;
/// The port without a non-ESP marker (RFC 3948 2).
const IKE: u16 = 500;

/// Why nothing can be received.
#[derive(Debug, thiserror::Error)]
#[error("receiving IKE, {call}: {}", explain(*.errno))]
pub struct Error {
    call: &'static str,
    errno: Errno,
}

/// A running listener; it ends when this value goes.
pub struct Listener {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Receives on `ports` and gives what is IKE to `upcalls`; tells it when `events` has something new to read.
    pub fn start(
        ports: Arc<Ports>,
        events: BorrowedFd<'_>,
        upcalls: Box<dyn Upcalls>,
    ) -> Result<Self, Error> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let stop = rustix::event::eventfd(0, flags).map_err(|e| call("eventfd", of(e)))?;
        let stop = Arc::new(stop);
        let edges = edges(events).map_err(|e| call("epoll", of(e)))?;
        let ended = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("warren-ike".to_owned())
            .spawn(move || listen(&ports, &edges, &*upcalls, &ended))
            .map_err(|e| call("a thread", of_io(&e)))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

fn call(call: &'static str, errno: Errno) -> Error {
    Error { call, errno }
}

/// Readable once for each time that `events` becomes readable: whoever reads `events` is another thread, and this one
/// must not spin until it has.
fn edges(events: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let edges = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&edges, events, epoll::EventData::new_u64(0), flags)?;
    Ok(edges)
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(ports: &Ports, edges: &OwnedFd, upcalls: &dyn Upcalls, stop: &OwnedFd) {
    let mut batch = RecvBatch::new(LONGEST);
    while let Some((news, ready)) = wait(ports, edges, stop) {
        if news {
            let mut taken = [epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }; 1];
            let _ = epoll::wait(
                edges,
                &mut taken,
                Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }),
            );
            upcalls.events();
        }
        for (socket, _) in ports.sockets().iter().zip(ready).filter(|(_, ready)| *ready) {
            // An error is that of an earlier packet, told by ICMP: nothing is lost by it.
            if socket.receive(&mut batch).is_ok() {
                batch.iter().filter_map(|d| ike(socket.port(), &d)).for_each(|d| upcalls.ike(d));
            }
        }
    }
}

/// Whether there are events, and which sockets have something; `None` at the end.
fn wait(ports: &Ports, edges: &OwnedFd, stop: &OwnedFd) -> Option<(bool, Vec<bool>)> {
    let sockets: Vec<BorrowedFd<'_>> = ports.sockets().iter().map(AsFd::as_fd).collect();
    let mut polled: Vec<_> = sockets.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    polled.push(PollFd::new(edges, PollFlags::IN));
    polled.push(PollFd::new(stop, PollFlags::IN));
    let polling = rustix::event::poll(&mut polled, None).is_ok();
    let mut ready: Vec<bool> =
        polled.iter().map(|fd| polling && !fd.revents().is_empty()).collect();
    let ended = ready.pop().unwrap_or(true);
    let news = ready.pop().unwrap_or(false);
    (!ended).then_some((news, ready))
}

fn ike(port: u16, datagram: &Received<'_>) -> Option<IkeDatagram> {
    let is_ike = port == IKE || matches!(classify(datagram.bytes), Datagram::Ike(_));
    let local = SocketAddr::new(datagram.local?, port);
    (is_ike && !datagram.truncated).then(|| IkeDatagram {
        local,
        remote: datagram.remote,
        bytes: datagram.bytes.to_vec(),
    })
}
