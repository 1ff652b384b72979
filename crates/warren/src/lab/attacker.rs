//! A stranger on the switch, who sends what nobody honest sends, as fast as one core can.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipsec::packet::{HeaderFields, parse, proto};
use linux::capture::{Capture, Direction};
use linux::netns::Netns;
use linux::tun::Tun;
use sim::dice::Dice;

use super::net::{self, Host};

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attack {
    /// First requests (IKE_SA_INIT) under fresh SPIs, from addresses that are not the stranger's own.
    FirstRequests,
    /// What was sent before, as it was or damaged in every way; and what never meant anything.
    DamagedAndOld,
}

/// What was sent, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Packets.
    pub packets: u64,
    /// In this time.
    pub time: Duration,
}

impl Sent {
    /// Packets a second.
    pub fn rate(self) -> f64 {
        self.packets as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// The stranger.
pub struct Attacker {
    port: Tun,
    ears: Vec<Capture>,
    victim: IpAddr,
    /// Ethernet header of all frames.
    header: Vec<u8>,
    /// Addresses that are used: members' and nobody's.
    sources: Vec<IpAddr>,
    dice: Dice,
    first: Option<Sample>,
    old: Vec<Sample>,
    fresh: Vec<Sample>,
}

/// A running attack.
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(Attacker, Sent)>>,
}

/// Packets that are remembered, of each kind.
const MOST_SAMPLES: usize = 512;
/// Packets between two looks at what the hosts send.
const LOOK_EVERY: u64 = 1 << 14;
/// Addresses of nobody that are used.
const STRANGERS: u32 = 200;
/// The stranger's own hardware address.
const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 0xee];
const IKE: u16 = 500;
const NATT: u16 = 4500;

impl Attacker {
    /// On a port of its own, beside the hosts; it hears what the first two of them send.
    pub fn enter(
        hosts: &[Host],
        victim: usize,
        nobody: &[IpAddr],
        dice: Dice,
    ) -> Result<Self, String> {
        let lab = &hosts[victim].lab;
        let switch = Netns::open(lab).map_err(|error| error.to_string())?;
        let ears = hosts.iter().take(2).map(|host| {
            switch.run(|| Capture::open_incoming(&host.name)).map_err(|error| error.to_string())
        });
        let ears = ears.collect::<Result<_, _>>()?;
        let kind = if hosts[victim].address.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
        let to = net::hardware_address(&hosts[victim])?;
        let others = hosts.iter().enumerate().filter(|(index, _)| *index != victim);
        let members = others.map(|(_, host)| host.address);
        Ok(Self {
            port: net::open_port(lab, "stranger")?,
            ears,
            victim: hosts[victim].address,
            header: [&to[..], &HARDWARE, &kind].concat(),
            sources: members.chain(nobody.iter().take(STRANGERS as usize).copied()).collect(),
            dice,
            first: None,
            old: Vec::new(),
            fresh: Vec::new(),
        })
    }

    /// Remembers what was sent until now. How much it knows; none of it is a first request: an error.
    pub fn learn(&mut self) -> Result<usize, String> {
        self.listen();
        if self.first.is_none() {
            return Err("no IKE_SA_INIT request was heard".to_owned());
        }
        // What comes at the victim from the outside comes from the victim's own answers, too: turned round.
        self.old = std::mem::take(&mut self.fresh);
        self.old.iter_mut().for_each(|sample| sample.dst.set_ip(self.victim));
        Ok(self.old.len())
    }

    /// Attacks until it is told to stop.
    pub fn begin(mut self, attack: Attack) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = std::thread::spawn(move || {
            let sent = self.run(attack, &flag);
            (self, sent)
        });
        Running { stop, thread: Some(thread) }
    }

    fn run(&mut self, attack: Attack, stop: &AtomicBool) -> Sent {
        let (begin, mut packets, mut tries) = (Instant::now(), 0, 0u64);
        let mut frame = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            if tries.is_multiple_of(LOOK_EVERY) {
                self.listen();
            }
            tries += 1;
            let packet = match attack {
                Attack::FirstRequests => self.first_request(),
                Attack::DamagedAndOld => self.damaged(),
            };
            let Some(packet) = packet else { continue };
            frame.clear();
            frame.extend_from_slice(&self.header);
            frame.extend_from_slice(&packet);
            packets += u64::from(self.port.write(&frame).unwrap_or(false));
        }
        Sent { packets, time: begin.elapsed() }
    }

    fn listen(&mut self) {
        let mut heard = Vec::new();
        for ear in &mut self.ears {
            // What is missed was not needed.
            let packets = ear.read().unwrap_or_default();
            let packets = packets.iter().filter(|packet| packet.direction == Direction::Incoming);
            heard.extend(packets.filter_map(|packet| Sample::read(&packet.bytes)));
        }
        let first = heard.iter().find(|sample| sample.is_first_request()).cloned();
        self.first = self.first.take().or(first);
        // IKE is rare: it stays; of ESP the last is kept.
        if !heard.is_empty() {
            heard.sort_by_key(|sample| !sample.udp);
            heard.truncate(MOST_SAMPLES);
            self.fresh = heard;
        }
    }

    fn first_request(&mut self) -> Option<Vec<u8>> {
        let mut request = self.first.clone()?;
        request.src.set_ip(self.dice.pick(&self.sources));
        request.dst.set_ip(self.victim);
        request.payload[..8].copy_from_slice(&(self.dice.below(u64::MAX) | 1).to_be_bytes());
        request.packet()
    }

    fn damaged(&mut self) -> Option<Vec<u8>> {
        let fresh = !self.fresh.is_empty() && self.dice.chance(300);
        let from = if fresh { &self.fresh } else { &self.old };
        let at = self.dice.below(from.len() as u64) as usize;
        let mut sample = from.get(at)?.clone();
        sample.dst.set_ip(self.victim);
        sample.damage(&mut self.dice);
        if self.dice.chance(250) {
            sample.src.set_ip(self.dice.pick(&self.sources));
        }
        sample.packet()
    }
}

impl Running {
    /// Ends it.
    pub fn finish(mut self) -> Result<(Attacker, Sent), String> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or("the attack has ended")?;
        thread.join().map_err(|_| "the attacker broke down".to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A datagram or an ESP packet that was seen.
#[derive(Clone, Debug)]
struct Sample {
    src: SocketAddr,
    dst: SocketAddr,
    udp: bool,
    payload: Vec<u8>,
}

impl Sample {
    fn read(packet: &[u8]) -> Option<Self> {
        let headers = parse(packet).ok().filter(|headers| headers.fragment.is_none())?;
        let udp = headers.protocol == proto::UDP;
        if !udp && headers.protocol != proto::ESP {
            return None;
        }
        let info = headers.info(packet);
        let port = |port: Option<u16>| port.unwrap_or_default();
        Some(Self {
            src: SocketAddr::new(headers.src, port(info.src_port)),
            dst: SocketAddr::new(headers.dst, port(info.dst_port)),
            udp,
            payload: packet
                .get(headers.upper + if udp { 8 } else { 0 }..headers.total_len)?
                .to_vec(),
        })
    }

    fn packet(&self) -> Option<Vec<u8>> {
        if self.udp {
            return ipsec::packet::udp(self.src, self.dst, &self.payload);
        }
        let (src, dst) = (self.src.ip(), self.dst.ip());
        let fields =
            HeaderFields { src, dst, protocol: proto::ESP, tos: 0, ttl: 64, dont_fragment: true };
        Some([&fields.build(self.payload.len())?[..], &self.payload].concat())
    }

    /// IKE_SA_INIT, not a response (RFC 7296 3.1).
    fn is_first_request(&self) -> bool {
        let at = |at: usize| self.payload.get(at).copied().unwrap_or_default();
        self.udp && self.dst.port() == IKE && at(18) == 34 && at(19) & 0x20 == 0
    }

    fn damage(&mut self, dice: &mut Dice) {
        let length = self.payload.len() as u64;
        match dice.below(8) {
            // As it was: a replay.
            0 | 1 => {}
            2 => (0..=dice.below(4)).for_each(|_| self.flip(dice)),
            3 => self.payload.truncate(dice.below(length + 1) as usize),
            4 => self.payload.extend((0..dice.below(600)).map(|n| n as u8)),
            // The length, the first payload, the exchange of an IKE header; the sequence number of ESP.
            5 => self.scramble(dice, 4..28),
            // The SPIs.
            6 => self.scramble(dice, 0..16),
            // What never meant anything.
            _ => {
                self.payload = (0..dice.below(1400)).map(|_| dice.below(256) as u8).collect();
                if self.udp {
                    self.dst.set_port(dice.pick(&[IKE, NATT]));
                }
            }
        }
    }

    fn flip(&mut self, dice: &mut Dice) {
        let at = dice.below(self.payload.len() as u64) as usize;
        if let Some(byte) = self.payload.get_mut(at) {
            *byte ^= 1 << dice.below(8);
        }
    }

    fn scramble(&mut self, dice: &mut Dice, place: std::ops::Range<u64>) {
        let at = (place.start + dice.below(place.end - place.start)) as usize;
        let end = (at + 4).min(self.payload.len());
        self.payload.iter_mut().take(end).skip(at).for_each(|byte| *byte = dice.below(256) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> Sample {
        let mut payload = vec![0; 200];
        payload[18] = 34;
        payload[19] = 8;
        let [src, dst] = ["10.0.0.2:500", "10.0.0.1:500"].map(|a| a.parse().unwrap());
        Sample { src, dst, udp: true, payload }
    }

    #[test]
    fn samples_are_read_as_they_are_written() {
        let esp = Sample { udp: false, payload: vec![7; 60], ..first() };
        for sample in [first(), esp] {
            let again = Sample::read(&sample.packet().unwrap()).unwrap();
            assert_eq!((again.udp, &again.payload), (sample.udp, &sample.payload));
            assert_eq!(again.src.ip(), sample.src.ip());
            assert_eq!(again.is_first_request(), sample.udp);
        }
        let mut answer = first();
        answer.payload[19] = 0x20;
        assert!(!answer.is_first_request());
    }

    #[test]
    fn damage_is_of_every_kind_and_always_a_packet() {
        let (mut dice, mut same, mut shorter, mut longer) = (Dice::new(1, "damage"), 0, 0, 0);
        for _ in 0..2000 {
            let mut sample = first();
            sample.damage(&mut dice);
            same += u32::from(sample.payload == first().payload);
            shorter += u32::from(sample.payload.len() < 200);
            longer += u32::from(sample.payload.len() > 200);
            assert!(sample.packet().is_some());
        }
        assert!(same > 200 && shorter > 100 && longer > 100, "{same} {shorter} {longer}");
    }
}
