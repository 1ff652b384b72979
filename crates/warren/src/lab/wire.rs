//! Watches every port of the switch while a lab runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use linux::capture::{Capture, Direction};
use linux::netns::Netns;

use super::net::Host;
use super::watch::{Flow, Judge, Seen, exchange, flow};

/// What passed between the hosts.
#[derive(Default, Clone, Debug)]
pub struct Counts {
    /// ESP.
    pub esp: u64,
    /// IKE.
    pub ike: u64,
    /// IKE_SA_INIT messages among it: handshakes.
    pub handshakes: u64,
    /// Neither: leaks.
    pub clear: u64,
    /// Frames that were not seen.
    pub missed: u64,
    /// The first leaks, in words.
    pub leaks: Vec<String>,
    /// What passed in the clear, by flow.
    pub clear_flows: BTreeMap<Flow, u64>,
    /// ESP by source and destination.
    pub esp_between: BTreeMap<(IpAddr, IpAddr), u64>,
    /// IKE_SA_INIT messages by source and destination.
    pub handshakes_between: BTreeMap<(IpAddr, IpAddr), u64>,
}

/// Flows that are told apart, at most.
const MOST_FLOWS: usize = 100_000;
/// IKE_SA_INIT of RFC 7296 3.1.
const IKE_SA_INIT: u8 = 34;

impl Counts {
    /// What has passed since an earlier count.
    pub fn since(&self, earlier: &Self) -> Self {
        let leaks = self.leaks.get(earlier.leaks.len()..).unwrap_or_default().to_vec();
        Self {
            esp: self.esp - earlier.esp,
            ike: self.ike - earlier.ike,
            handshakes: self.handshakes - earlier.handshakes,
            clear: self.clear - earlier.clear,
            missed: self.missed - earlier.missed,
            leaks,
            clear_flows: difference(&self.clear_flows, &earlier.clear_flows),
            esp_between: difference(&self.esp_between, &earlier.esp_between),
            handshakes_between: difference(&self.handshakes_between, &earlier.handshakes_between),
        }
    }

    fn take(&mut self, seen: Seen, ethertype: u16, packet: &[u8]) {
        let key = flow(ethertype, packet);
        let between = key.map(|flow| (flow.src, flow.dst));
        match seen {
            Seen::Esp => {
                self.esp += 1;
                add(&mut self.esp_between, between);
            }
            Seen::Ike => {
                self.ike += 1;
                if exchange(ethertype, packet) == Some(IKE_SA_INIT) {
                    self.handshakes += 1;
                    add(&mut self.handshakes_between, between);
                }
            }
            Seen::Clear => {
                self.clear += 1;
                add(&mut self.clear_flows, key);
                if self.leaks.len() < 10 {
                    self.leaks.push(format!("{:02x?}", &packet[..packet.len().min(48)]));
                }
            }
            Seen::Link | Seen::Other => {}
        }
    }
}

fn add<K: Ord>(to: &mut BTreeMap<K, u64>, key: Option<K>) {
    if let Some(key) = key
        && (to.len() < MOST_FLOWS || to.contains_key(&key))
    {
        *to.entry(key).or_default() += 1;
    }
}

fn difference<K: Ord + Copy>(now: &BTreeMap<K, u64>, then: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let fresh = now.iter().map(|(key, count)| (*key, count - then.get(key).unwrap_or(&0)));
    fresh.filter(|(_, count)| *count > 0).collect()
}

/// A running watch.
pub struct Watch {
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
    /// Looks at all ports that were begun.
    looks: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts watching all ports.
    pub fn start(hosts: &[Host]) -> Result<Self, String> {
        let lab = hosts.first().ok_or("a lab without hosts")?;
        let switch = Netns::open(&lab.lab).map_err(|error| error.to_string())?;
        let captures = hosts
            .iter()
            .flat_map(Host::ports)
            .map(|port| {
                switch.run(|| Capture::open_incoming(&port)).map_err(|error| error.to_string())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let members: BTreeSet<IpAddr> = hosts.iter().flat_map(Host::addresses).collect();
        let mut watch = Self {
            stop: Arc::default(),
            counts: Arc::default(),
            looks: Arc::default(),
            thread: None,
        };
        let (stop, counts, looks) = (watch.stop.clone(), watch.counts.clone(), watch.looks.clone());
        watch.thread = Some(std::thread::spawn(move || {
            look_on(captures, &members, &stop, &counts, &looks);
        }));
        Ok(watch)
    }

    /// What has passed until now.
    pub fn counts(&self) -> Counts {
        // A look that is begun from here on sees all that has passed until here.
        let enough = self.looks.load(Ordering::SeqCst) + 2;
        let limit = Instant::now() + Duration::from_secs(10);
        while self.looks.load(Ordering::SeqCst) < enough && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it, after what is in the buffers has been looked at.
    pub fn finish(mut self) -> Result<Counts, String> {
        self.halt()?;
        Ok(self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn halt(&mut self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| "the watcher of the wire broke down".to_owned())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.halt();
    }
}

fn look_on(
    mut captures: Vec<Capture>,
    members: &BTreeSet<IpAddr>,
    stop: &AtomicBool,
    counts: &Mutex<Counts>,
    looks: &AtomicU64,
) {
    let is_host = |address: IpAddr| members.contains(&address);
    // A datagram's pieces enter at one port: each has a judge of its own.
    let mut judges: Vec<Judge<'_>> = captures.iter().map(|_| Judge::new(&is_host)).collect();
    let mut failed = 0;
    loop {
        let last = stop.load(Ordering::Relaxed);
        looks.fetch_add(1, Ordering::SeqCst);
        for (capture, judge) in captures.iter_mut().zip(&mut judges) {
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            failed += u64::from(!look(capture, judge, &mut counts));
        }
        let lost = captures.iter_mut().map(|capture| capture.lost().unwrap_or(1)).sum::<u64>();
        counts.lock().unwrap_or_else(PoisonError::into_inner).missed = lost + failed;
        if last {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn look(capture: &mut Capture, judge: &mut Judge<'_>, counts: &mut Counts) -> bool {
    loop {
        let Ok(packets) = capture.read_some() else { return false };
        if packets.is_empty() {
            return true;
        }
        // Each frame enters the switch at one port: there it is counted, once.
        for packet in packets.iter().filter(|packet| packet.direction == Direction::Incoming) {
            let seen = judge.classify(packet.protocol, &packet.bytes);
            counts.take(seen, packet.protocol, &packet.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend(ports.0.to_be_bytes());
        packet.extend(ports.1.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(payload);
        packet
    }

    #[test]
    fn phases_are_told_apart() {
        let mut counts = Counts::default();
        counts.take(Seen::Clear, 0x0800, &udp((7, 53), &[]));
        let before = counts.clone();
        let mut message = [0; 28];
        message[18] = IKE_SA_INIT;
        counts.take(Seen::Clear, 0x0800, &udp((7, 54), &[]));
        counts.take(Seen::Clear, 0x0800, &udp((7, 54), &[]));
        counts.take(Seen::Ike, 0x0800, &udp((500, 500), &message));
        message[18] = 37;
        counts.take(Seen::Ike, 0x0800, &udp((500, 500), &message));
        counts.take(Seen::Link, 0x0806, &[0; 28]);
        let phase = counts.since(&before);
        assert_eq!((phase.clear, phase.ike, phase.handshakes, phase.esp), (2, 2, 1, 0));
        assert_eq!(phase.leaks.len(), 2);
        let flows: Vec<_> = phase.clear_flows.iter().map(|(f, n)| (f.ports.1, *n)).collect();
        assert_eq!(flows, [(54, 2)]);
        assert_eq!(phase.handshakes_between.values().sum::<u64>(), 1);
        assert_eq!(counts.since(&counts).clear_flows.len(), 0);
    }
}
