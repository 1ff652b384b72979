//! From the stack to the wire.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;

use ipsec::Instant;
use ipsec::packet::{self, Headers};
use ipsec::pipeline::Emit;
use ipsec::segment::{Large, complete_checksum};

use super::runs::Runs;
use super::threads::wait;
use super::{Shared, wires};
use crate::clock::now;
use crate::tun::vnet::{self, Left};
use crate::tun::{Error, Offload};

/// Packets read before those decided on are sent.
const ROUND: usize = 64;
/// Room after a packet for what ESP adds, so that it need not move.
const SPARE: usize = 128;
/// Every packet fits.
const LONGEST: usize = 65_536;
/// Reads that fail one after the other before the device counts as gone.
const MAX_FAILURES: u32 = 4096;

/// What is under way from the stack to the wire.
struct Departures<'a> {
    shared: &'a Shared,
    runs: Runs,
    emit: Vec<Emit>,
    /// Reads that failed, one after the other.
    failures: u32,
}

/// Until the end is wanted, or the device is gone.
pub(super) fn run(shared: &Shared) {
    let mut departures =
        Departures { shared, runs: Runs::default(), emit: Vec::new(), failures: 0 };
    let mut buffer = vec![0; vnet::LEN + LONGEST];
    let mut ready = Vec::new();
    while wait(shared, &[shared.wires.tun.as_fd()], &mut ready, None) {
        if let Err(error) = departures.round(&mut buffer) {
            shared.wires.set_broken(format!("{error}; the device was taken away"));
            return;
        }
        shared.announce();
    }
}

impl Departures<'_> {
    fn round(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        let shared = self.shared;
        let (time, tun) = (now(), &shared.wires.tun);
        let offload = tun.offload() != Offload::None;
        for _ in 0..ROUND {
            let read = tun.read(buffer);
            self.failures = if read.is_ok() { 0 } else { self.failures + 1 };
            let length = match read {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(error) if error.is_gone() || self.failures >= MAX_FAILURES => {
                    return Err(error);
                }
                // A packet that the driver cannot describe: this one is lost, and no other.
                Err(_) => {
                    self.malformed();
                    continue;
                }
            };
            let read = &mut buffer[..length];
            match read.split_first_chunk_mut::<{ vnet::LEN }>() {
                _ if !offload => self.packet(time, Some(Left::Nothing), read),
                Some((header, packet)) => self.packet(time, vnet::read(header), packet),
                None => self.malformed(),
            }
            if self.runs.is_full() {
                break;
            }
        }
        self.send(time);
        Ok(())
    }

    fn packet(&mut self, time: Instant, left: Option<Left>, packet: &mut [u8]) {
        let Ok(headers) = packet::parse(packet) else {
            // It knows how to count that.
            return self.slowly(time, packet.to_vec());
        };
        if wires::is_our_own(packet, &headers) {
            self.shared.wires.counts.mark_lost.fetch_add(1, Relaxed);
            return;
        }
        match left {
            Some(Left::Nothing) => self.whole(time, &headers, packet),
            Some(Left::Checksum { start, offset }) if complete_checksum(packet, start, offset) => {
                self.whole(time, &headers, packet);
            }
            Some(Left::Segments { size }) => match Large::new(packet, &headers, size) {
                Some(large) => self.large(time, &headers, packet, &large),
                None => self.malformed(),
            },
            Some(Left::Checksum { .. }) | None => self.malformed(),
        }
    }

    fn whole(&mut self, time: Instant, headers: &Headers, packet: &[u8]) {
        let pipeline = &self.shared.pipeline;
        let packet = &packet[..headers.total_len];
        match pipeline.lane(time, packet, headers, packet.len()) {
            Some(lane) => {
                self.runs.push(lane.outer(), |out| pipeline.seal(time, &lane, packet, &[], out))
            }
            None => self.slowly(time, packet.to_vec()),
        }
    }

    fn large(&mut self, time: Instant, headers: &Headers, packet: &[u8], large: &Large<'_>) {
        let pipeline = &self.shared.pipeline;
        let lane = pipeline.lane(time, packet, headers, large.longest());
        for segment in large.segments() {
            match &lane {
                Some(lane) => self.runs.push(lane.outer(), |out| {
                    pipeline.seal(time, lane, segment.header(), segment.payload, out)
                }),
                None => {
                    let mut whole = Vec::with_capacity(large.longest() + SPARE);
                    whole.extend_from_slice(segment.header());
                    whole.extend_from_slice(segment.payload);
                    self.slowly(time, whole);
                }
            }
        }
    }

    /// A packet that needs more than ESP, behind those that were before it.
    fn slowly(&mut self, time: Instant, mut packet: Vec<u8>) {
        self.send(time);
        self.shared.pipeline.outbound(time, &mut packet, &mut self.emit);
        self.shared.wires.carry_out(&self.shared.pipeline, time, &mut self.emit);
    }

    fn send(&mut self, time: Instant) {
        self.shared.wires.send_runs(&self.shared.pipeline, time, &mut self.runs);
    }

    fn malformed(&self) {
        self.shared.wires.counts.stack_malformed.fetch_add(1, Relaxed);
    }
}
