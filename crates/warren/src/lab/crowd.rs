//! Many peers in one process: on each the daemon's own logic and packet pipeline, all behind one router on the switch.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crypto::native::Native;
use ipsec::Instant;
use ipsec::packet::{HeaderFields, parse, proto};
use ipsec::pipeline::OuterInfo;
use linux::tun::Tun;
use mesh::Input;
use rustix::event::{PollFd, PollFlags, Timespec};
use sim::agenda::Agenda;
use sim::dice::Dice;
use sim::host::{Effect, Host as Member, Pace};
use sim::packet::{Body, Packet};

use super::net::{self, Host};
use super::probe::End;
use crate::load::Accepted;

/// Each member asks the host something this often.
const TALK: Duration = Duration::from_secs(1);
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Where they ask.
const PORT: u16 = 5170;
const NATT: u16 = 4500;
/// The router's hardware address.
const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 0xcc];
/// Frames that are read before something else is done, and things that are done before frames are read.
const TURN: usize = 64;
/// The longest time without a look at whether it is to end.
const LOOK: Duration = Duration::from_millis(5);

/// What is seen of it from outside.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    outage: AtomicBool,
    /// When each member last got an answer.
    answered: Mutex<Vec<Option<Instant>>>,
    clear: AtomicU64,
    /// IKE_SA_INIT requests, both ways.
    first_requests: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// A running crowd; it is gone when this value is.
pub struct Crowd {
    shared: Arc<Shared>,
    began: std::time::Instant,
    thread: Option<JoinHandle<()>>,
}

/// Who they are, and whom they want.
pub struct Plan<'a> {
    /// Whom.
    pub host: &'a Host,
    /// The router's address, in that host's subnet.
    pub router: Ipv4Addr,
    /// Theirs.
    pub members: Vec<Ipv4Addr>,
    /// What all of them run with.
    pub manifest: &'a Accepted,
    /// They start at some time within this.
    pub within: Duration,
    /// Where chance comes from.
    pub seed: u64,
}

impl Crowd {
    /// All members start.
    pub fn enter(plan: &Plan<'_>) -> Result<Self, String> {
        let IpAddr::V4(host) = plan.host.address else {
            return Err("a crowd speaks IPv4 only".to_owned());
        };
        let shared = Arc::new(Shared::default());
        *lock(&shared.answered) = vec![None; plan.members.len()];
        let loaded = plan
            .members
            .iter()
            .map(|address| plan.manifest.for_host((*address).into(), &[]))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|refused| refused.to_string())?;
        let port = net::open_port(&plan.host.lab, "crowd")?;
        let header = [&net::hardware_address(plan.host)?[..], &HARDWARE, &[8, 0]].concat();
        let began = std::time::Instant::now();
        let (router, within, seed) = (plan.router, plan.within, plan.seed);
        let (addresses, told) = (plan.members.clone(), shared.clone());
        let thread = std::thread::spawn(move || {
            let members = members(&addresses, seed);
            let world = World {
                port,
                header,
                router,
                host,
                first: addresses[0],
                agenda: boots(members.len(), within, seed),
                members,
                began,
                shared: told,
                effects: Vec::new(),
            };
            world.run(loaded);
        });
        Ok(Self { shared, began, thread: Some(thread) })
    }

    /// The time, as the crowd counts it.
    pub fn now(&self) -> Instant {
        BEGIN + self.began.elapsed()
    }

    /// Nothing passes between it and the switch, or everything.
    pub fn set_outage(&self, outage: bool) {
        self.shared.outage.store(outage, Ordering::Relaxed);
    }

    /// Members that have had no answer since then.
    pub fn unanswered(&self, since: Instant) -> usize {
        let answered = lock(&self.shared.answered);
        answered.iter().filter(|at| at.is_none_or(|at| at < since)).count()
    }

    /// Packets in the clear, both ways.
    pub fn clear(&self) -> u64 {
        self.shared.clear.load(Ordering::Relaxed)
    }

    /// IKE_SA_INIT requests, both ways.
    pub fn first_requests(&self) -> u64 {
        self.shared.first_requests.load(Ordering::Relaxed)
    }

    /// What members noticed that must never be.
    pub fn wrong(&self) -> Vec<String> {
        lock(&self.shared.wrong).clone()
    }
}

fn members(addresses: &[Ipv4Addr], seed: u64) -> Vec<Member> {
    let (provider, unix) = (Arc::new(Native), linux::clock::unix_now());
    let member = |(index, address): (usize, &Ipv4Addr)| {
        let name = format!("member {index}");
        let dice = Dice::new(seed, &name);
        let mut member = Member::new((*address).into(), name, dice, Pace::QUICK, provider.clone());
        member.set_unix(unix);
        member
    };
    addresses.iter().enumerate().map(member).collect()
}

fn boots(count: usize, within: Duration, seed: u64) -> Agenda<Due> {
    let (mut dice, mut agenda) = (Dice::new(seed, "crowd"), Agenda::default());
    for index in 0..count {
        agenda.enter(BEGIN + dice.between(Duration::ZERO, within), Due::Boot(index));
    }
    agenda
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When it begins, as members count.
const BEGIN: Instant = Instant::from_nanos(1_000_000_000);

/// What is due for a member.
enum Due {
    Boot(usize),
    Input(usize, Box<Input>),
    Wake(usize),
    Talk(usize),
    Housekeep(usize),
}

struct World {
    port: Tun,
    /// Ethernet header of all frames.
    header: Vec<u8>,
    router: Ipv4Addr,
    host: Ipv4Addr,
    /// The first member's address; those of the others follow.
    first: Ipv4Addr,
    members: Vec<Member>,
    agenda: Agenda<Due>,
    began: std::time::Instant,
    shared: Arc<Shared>,
    effects: Vec<Effect>,
}

impl World {
    fn run(mut self, loaded: Vec<mesh::Loaded>) {
        let mut loaded: Vec<_> = loaded.into_iter().map(Some).collect();
        let mut buffer = vec![0; 16_384];
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.wait();
            for _ in 0..TURN {
                let Ok(Some(length)) = self.port.read(&mut buffer) else { break };
                if !self.shared.outage.load(Ordering::Relaxed) {
                    self.take(&buffer[..length]);
                }
            }
            for _ in 0..TURN {
                let Some((_, due)) = self.agenda.next_until(self.now()) else { break };
                self.happen(due, &mut loaded);
            }
        }
    }

    fn now(&self) -> Instant {
        BEGIN + self.began.elapsed()
    }

    fn wait(&self) {
        let late = self.agenda.first().is_some_and(|at| at <= self.now());
        let left = if late { Duration::ZERO } else { LOOK };
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        let _ = rustix::event::poll(&mut [PollFd::new(&self.port, PollFlags::IN)], Some(&limit));
    }

    fn happen(&mut self, due: Due, loaded: &mut [Option<mesh::Loaded>]) {
        let (now, mut out) = (self.now(), std::mem::take(&mut self.effects));
        let index = match due {
            Due::Boot(index) => {
                if let Some(loaded) = loaded[index].take() {
                    self.members[index].boot(now, loaded, &mut out);
                }
                self.agenda.enter(now, Due::Talk(index));
                self.agenda.enter(now + HOUSEKEEPING, Due::Housekeep(index));
                index
            }
            Due::Input(index, input) => {
                self.members[index].input(now, *input, &mut out);
                index
            }
            Due::Wake(index) => {
                self.members[index].wake(now, &mut out);
                index
            }
            Due::Talk(index) => {
                self.agenda.enter(now + TALK, Due::Talk(index));
                let src = SocketAddr::new(self.members[index].address(), PORT);
                if let Some(packet) = ipsec::packet::udp(src, (self.host, PORT).into(), b"there?") {
                    self.members[index].send(now, packet, &mut out);
                }
                index
            }
            Due::Housekeep(index) => {
                self.agenda.enter(now + HOUSEKEEPING, Due::Housekeep(index));
                self.members[index].housekeep(now, &mut out);
                index
            }
        };
        self.absorb(index, out);
    }

    fn absorb(&mut self, index: usize, mut effects: Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Send(packet) => self.transmit(&packet),
                Effect::Deliver(_) => lock(&self.shared.answered)[index] = Some(self.now()),
                Effect::Later(at, input) => self.agenda.enter(at, Due::Input(index, input.into())),
                Effect::Wake(at) => self.agenda.enter(at, Due::Wake(index)),
                Effect::TookClear(_) => self.count_clear(),
                Effect::Wrong(wrong) => {
                    let mut told = lock(&self.shared.wrong);
                    if told.len() < 10 {
                        told.push(format!("member {index}: {wrong:?}"));
                    }
                }
                Effect::Changed(_) | Effect::Report(_) => {}
            }
        }
        self.effects = effects;
    }

    fn count_clear(&self) {
        self.shared.clear.fetch_add(1, Ordering::Relaxed);
    }

    fn count_first_request(&self, packet: &Packet) {
        let message = packet.ike_message().unwrap_or_default();
        if matches!((message.get(18), message.get(19)), (Some(34), Some(flags)) if flags & 0x20 == 0)
        {
            self.shared.first_requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn transmit(&mut self, packet: &Packet) {
        if packet.dst != IpAddr::from(self.host) || self.shared.outage.load(Ordering::Relaxed) {
            return;
        }
        self.count_first_request(packet);
        if let Body::Clear(_) = packet.body {
            self.count_clear();
        }
        if let Some(bytes) = to_ip(packet) {
            // A full queue loses packets as any link does.
            let _ = self.port.write(&[&self.header[..], &bytes].concat());
        }
    }

    fn take(&mut self, frame: &[u8]) {
        if let Some(answer) = arp(frame, self.router) {
            let _ = self.port.write(&answer);
            return;
        }
        if frame.get(12..14) != Some(&[8, 0]) || frame.get(..6) != Some(&HARDWARE) {
            return;
        }
        let Some(packet) = from_ip(&frame[14..]) else { return };
        let IpAddr::V4(dst) = packet.dst else { return };
        let index = u32::from(dst).wrapping_sub(u32::from(self.first)) as usize;
        if index >= self.members.len() {
            return;
        }
        self.count_first_request(&packet);
        if let Body::Clear(_) = packet.body {
            self.count_clear();
        }
        let (now, mut out) = (self.now(), std::mem::take(&mut self.effects));
        self.members[index].arrive(now, packet, &mut out);
        self.absorb(index, out);
    }
}

/// A packet of a member as IP carries it.
fn to_ip(packet: &Packet) -> Option<Vec<u8>> {
    let udp = |from: u16, to: u16, bytes: &[u8]| {
        let (src, dst) = (SocketAddr::new(packet.src, from), SocketAddr::new(packet.dst, to));
        ipsec::packet::udp(src, dst, bytes)
    };
    match &packet.body {
        Body::Ike { src_port, dst_port, bytes } => udp(*src_port, *dst_port, bytes),
        Body::Esp { source_port, dst_port, outer, bytes, .. } if outer.udp => {
            udp(*source_port, *dst_port, bytes)
        }
        Body::Esp { dont_fragment, bytes, .. } => {
            let (src, dst, dont_fragment) = (packet.src, packet.dst, *dont_fragment);
            let protocol = proto::ESP;
            let fields = HeaderFields { src, dst, protocol, tos: 0, ttl: 64, dont_fragment };
            Some([&fields.build(bytes.len())?[..], bytes].concat())
        }
        Body::Clear(bytes) => Some(bytes.clone()),
    }
}

/// A packet for a member from what IP carries; pieces of packets are none.
fn from_ip(bytes: &[u8]) -> Option<Packet> {
    let headers = parse(bytes).ok().filter(|headers| headers.fragment.is_none())?;
    let (src, dst) = (headers.src, headers.dst);
    let whole = bytes.get(..headers.total_len)?;
    let rest = whole.get(headers.upper..)?;
    let esp = |source_port: u16, dst_port: u16, bytes: &[u8]| {
        let udp = dst_port != 0;
        let src = SocketAddr::new(src, source_port);
        let outer = OuterInfo { src, dst, tos: headers.tos, ttl: 64, udp };
        let bytes = bytes.to_vec();
        Body::Esp { outer, source_port, dst_port, dont_fragment: true, bytes }
    };
    let info = headers.info(whole);
    let body = match (headers.protocol, info.src_port, info.dst_port) {
        (proto::ESP, ..) => esp(0, 0, rest),
        (proto::UDP, Some(src_port), Some(dst_port)) if matches!(dst_port, 500 | NATT) => {
            let bytes = rest.get(8..)?;
            match wire::datagram::classify(bytes) {
                wire::datagram::Datagram::Esp(..) if dst_port == NATT => {
                    esp(src_port, dst_port, bytes)
                }
                _ => Body::Ike { src_port, dst_port, bytes: bytes.to_vec() },
            }
        }
        _ => Body::Clear(whole.to_vec()),
    };
    Some(Packet { src, dst, body })
}

/// The router's answer to whoever asks for its hardware address (RFC 826).
fn arp(frame: &[u8], router: Ipv4Addr) -> Option<Vec<u8>> {
    let request = frame.get(12..42)?;
    if request[..10] != [8, 6, 0, 1, 8, 0, 6, 4, 0, 1] || request[26..30] != router.octets() {
        return None;
    }
    let (asker, address) = (&request[10..16], &request[16..20]);
    let head = [asker, &HARDWARE, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
    Some([&head[..], &HARDWARE, &router.octets(), asker, address].concat())
}

/// Answers every question of the crowd, on the host that it wants.
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Listens from now on.
    pub fn start(host: &End<'_>) -> Result<Self, String> {
        let text = |error: std::io::Error| format!("UDP {}: {error}", host.address);
        let socket = host.netns.run(|| UdpSocket::bind((host.address, PORT))).map_err(text)?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(text)?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !flag.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_survive_the_way_to_ip_and_back() {
        let (src, dst): (IpAddr, IpAddr) = ([10, 100, 0, 7].into(), [10, 99, 0, 1].into());
        let ike = |port, bytes: Vec<u8>| Body::Ike { src_port: port, dst_port: port, bytes };
        let esp = |port: u16| Body::Esp {
            outer: OuterInfo {
                src: SocketAddr::new(src, port),
                dst,
                tos: 0,
                ttl: 64,
                udp: port > 0,
            },
            source_port: port,
            dst_port: port,
            dont_fragment: true,
            bytes: vec![9; 44],
        };
        for body in [ike(500, vec![1; 300]), ike(NATT, vec![0; 40]), esp(0), esp(NATT)] {
            let packet = Packet { src, dst, body };
            assert_eq!(from_ip(&to_ip(&packet).unwrap()), Some(packet));
        }
        let clear = ipsec::packet::udp((src, 7).into(), (dst, 8).into(), b"x").unwrap();
        let packet = Packet { src, dst, body: Body::Clear(clear) };
        assert_eq!(from_ip(&to_ip(&packet).unwrap()), Some(packet));
    }

    #[test]
    fn only_the_router_is_answered_for() {
        let router = Ipv4Addr::new(10, 99, 0, 254);
        let ask = |target: [u8; 4]| {
            let head = [&[0xff; 6][..], &[3; 6], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
            [&head[..], &[3; 6], &[10, 99, 0, 1], &[0; 6], &target].concat()
        };
        let answer = arp(&ask(router.octets()), router).unwrap();
        assert_eq!((&answer[..6], &answer[6..12]), (&[3; 6][..], &HARDWARE[..]));
        assert_eq!(answer[20..32], [&[0, 2][..], &HARDWARE, &router.octets()].concat());
        assert_eq!(arp(&ask([10, 99, 0, 9]), router), None);
        assert_eq!(arp(&ask(router.octets())[..30], router), None);
    }
}
