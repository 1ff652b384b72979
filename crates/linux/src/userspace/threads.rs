//! The threads that carry packets: outbound, inbound, and one that keeps house.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use ipsec::pipeline::{Emit, OuterInfo};
use rustix::event::{PollFd, PollFlags, Timespec};
use wire::datagram::{Datagram, classify};

use super::{Error, IkeDatagram, Shared, locked, wires};
use crate::clock::now;
use crate::datagram::{Received, RecvBatch};
use crate::errno::of_io;
use crate::route::Monitor;

/// Packets handled before those decided on are sent.
const ROUND: usize = 64;
/// Room after a packet for what ESP adds, so that it need not move.
const SPARE: usize = 128;
/// Every datagram fits.
const LONGEST: usize = 65_536;

pub(super) fn start(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>, Error> {
    let monitor = Monitor::open()?;
    let (out, inward, house) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(work).map_err(|e| Error::Call { call: "a thread", errno: of_io(&e) })
    };
    Ok(vec![
        spawn("warren-out", Box::new(move || outbound(&out)))?,
        spawn("warren-in", Box::new(move || inbound(&inward)))?,
        spawn("warren-house", Box::new(move || keep_house(&house, &monitor)))?,
    ])
}

/// Waits for any of `fds`, or for the end, which is `false`.
fn wait(
    shared: &Shared,
    fds: &[BorrowedFd<'_>],
    ready: &mut Vec<bool>,
    limit: Option<&Timespec>,
) -> bool {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    polled.push(PollFd::new(&shared.stop, PollFlags::IN));
    let outcome = rustix::event::poll(&mut polled, limit);
    ready.clear();
    ready.extend(polled.iter().map(|fd| outcome.is_ok() && !fd.revents().is_empty()));
    !ready.pop().unwrap_or(true)
}

/// From the stack to the wire.
fn outbound(shared: &Shared) {
    let tun = &shared.wires.tun;
    let mut buffer = vec![0; LONGEST];
    let (mut emit, mut ready) = (Vec::with_capacity(ROUND), Vec::new());
    while wait(shared, &[tun.as_fd()], &mut ready, None) {
        let time = now();
        for _ in 0..ROUND {
            let length = match tun.read(&mut buffer) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(error) => {
                    shared.wires.set_broken(format!("{error}; the device was taken away"));
                    return;
                }
            };
            let packet = &buffer[..length];
            if wires::is_our_own(packet) {
                shared.wires.counts.mark_lost.fetch_add(1, Relaxed);
                continue;
            }
            let mut owned = Vec::with_capacity(length + SPARE);
            owned.extend_from_slice(packet);
            shared.pipeline.outbound(time, &mut owned, &mut emit);
        }
        shared.wires.carry_out(&shared.pipeline, time, &mut emit);
        shared.announce();
    }
}

/// From the wire to the stack, and IKE to the control loop.
fn inbound(shared: &Shared) {
    let wires = &shared.wires;
    let sockets: Vec<BorrowedFd<'_>> = wires
        .esp
        .iter()
        .map(AsFd::as_fd)
        .chain(wires.ports.sockets().iter().map(AsFd::as_fd))
        .collect();
    let (mut batch, mut emit, mut ready) =
        (RecvBatch::new(LONGEST), Vec::with_capacity(ROUND), Vec::new());
    while wait(shared, &sockets, &mut ready, None) {
        let (esp, udp) = ready.split_at(wires.esp.len().min(ready.len()));
        for (socket, _) in wires.esp.iter().zip(esp).filter(|(_, ready)| **ready) {
            match socket.receive(&mut batch) {
                Ok(_) => socket
                    .packets(&batch)
                    .for_each(|packet| esp_in(shared, &packet, packet.bytes, false, &mut emit)),
                Err(_) => count_failure(shared),
            }
        }
        for (socket, _) in wires.ports.sockets().iter().zip(udp).filter(|(_, ready)| **ready) {
            match socket.receive(&mut batch) {
                Ok(_) => batch
                    .iter()
                    .for_each(|datagram| udp_in(shared, socket.port(), &datagram, &mut emit)),
                Err(_) => count_failure(shared),
            }
        }
        wires.carry_out(&shared.pipeline, now(), &mut emit);
        shared.announce();
    }
}

/// An error of a socket, such as an ICMP message that concerns an earlier packet: nothing is lost by it.
fn count_failure(shared: &Shared) {
    shared.wires.counts.receive_failed.fetch_add(1, Relaxed);
}

fn esp_in(shared: &Shared, packet: &Received<'_>, esp: &[u8], udp: bool, emit: &mut Vec<Emit>) {
    let Some(dst) = packet.local else { return };
    let outer = OuterInfo {
        src: packet.remote,
        dst,
        tos: packet.tos.unwrap_or(0),
        ttl: packet.ttl.unwrap_or(0),
        udp,
    };
    let mut owned = Vec::with_capacity(esp.len() + SPARE);
    owned.extend_from_slice(esp);
    shared.pipeline.inbound(now(), outer, &mut owned, emit);
}

fn udp_in(shared: &Shared, port: u16, datagram: &Received<'_>, emit: &mut Vec<Emit>) {
    let counts = &shared.wires.counts;
    if datagram.truncated {
        counts.udp_malformed.fetch_add(1, Relaxed);
        return;
    }
    // ESP is told from IKE by the non-ESP marker, which port 500 does not have (RFC 3948 2).
    if port != 500 {
        match classify(datagram.bytes) {
            Datagram::Ike(_) => {}
            Datagram::Esp(_, esp) => return esp_in(shared, datagram, esp, true, emit),
            Datagram::Keepalive => {
                counts.keepalives_in.fetch_add(1, Relaxed);
                return;
            }
            Datagram::Malformed => {
                counts.udp_malformed.fetch_add(1, Relaxed);
                return;
            }
        }
    }
    let Some(local) = datagram.local else { return };
    counts.ike_in.fetch_add(1, Relaxed);
    let local = std::net::SocketAddr::new(local, port);
    shared.upcalls.ike(IkeDatagram {
        local,
        remote: datagram.remote,
        bytes: datagram.bytes.to_vec(),
    });
}

/// Time limits every second; routes when something changed, and now and then anyway.
fn keep_house(shared: &Shared, monitor: &Monitor) {
    const SECOND: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
    const SYNC_EVERY: u64 = 30_000_000_000;
    let mut ready = Vec::new();
    let mut synced = now();
    let mut ticked = now();
    while wait(shared, &[monitor.as_fd()], &mut ready, Some(&SECOND)) {
        let time = now();
        if time.since(ticked).as_millis() >= 900 {
            shared.tick(time);
            ticked = time;
        }
        // Not more than five times a second, however much changes.
        let changed = ready.first() == Some(&true) && monitor.changed();
        if changed || time.since(synced).as_nanos() >= u128::from(SYNC_EVERY) {
            locked(&shared.steering).sync(&shared.pipeline);
            synced = time;
            let pause = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
            if !wait(shared, &[], &mut ready, Some(&pause)) {
                return;
            }
        }
    }
}
