//! Watches every port of the switch while the demo runs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use linux::capture::{Capture, Direction};
use linux::netns::Netns;

use super::net::Host;
use super::watch::{Judge, Seen};

/// What passed between the hosts.
#[derive(Default, Clone, Debug)]
pub struct Counts {
    /// ESP.
    pub esp: u64,
    /// IKE.
    pub ike: u64,
    /// Neither: leaks.
    pub clear: u64,
    /// Frames that were not seen.
    pub missed: u64,
    /// The first leaks, in words.
    pub leaks: Vec<String>,
}

/// A running watch.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Counts>,
}

impl Watch {
    /// Starts watching all ports.
    pub fn start(hosts: &[Host]) -> Result<Self, String> {
        let lab = hosts.first().ok_or("a lab without hosts")?;
        let switch = Netns::open(&lab.lab).map_err(|error| error.to_string())?;
        let captures = hosts
            .iter()
            .map(|host| switch.run(|| Capture::open(&host.name)).map_err(|error| error.to_string()))
            .collect::<Result<Vec<_>, _>>()?;
        let members: BTreeSet<IpAddr> = hosts.iter().map(|host| host.address).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || watch(captures, &members, &stopped));
        Ok(Self { stop, thread })
    }

    /// Ends it, after what is in the buffers has been looked at.
    pub fn finish(self) -> Result<Counts, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the watcher of the wire broke down".to_owned())
    }
}

fn watch(mut captures: Vec<Capture>, members: &BTreeSet<IpAddr>, stop: &AtomicBool) -> Counts {
    let mut counts = Counts::default();
    let is_host = |address: IpAddr| members.contains(&address);
    // A datagram's pieces enter at one port: each has a judge of its own.
    let mut judges: Vec<Judge<'_>> = captures.iter().map(|_| Judge::new(&is_host)).collect();
    loop {
        let last = stop.load(Ordering::Relaxed);
        for (capture, judge) in captures.iter_mut().zip(&mut judges) {
            look(capture, judge, &mut counts);
        }
        if last {
            counts.missed +=
                captures.iter_mut().map(|capture| capture.lost().unwrap_or(1)).sum::<u64>();
            return counts;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn look(capture: &mut Capture, judge: &mut Judge<'_>, counts: &mut Counts) {
    let Ok(packets) = capture.read() else {
        counts.missed += 1;
        return;
    };
    // Each frame enters the switch at one port: there it is counted, once.
    for packet in packets.iter().filter(|packet| packet.direction == Direction::Incoming) {
        match judge.classify(packet.protocol, &packet.bytes) {
            Seen::Esp => counts.esp += 1,
            Seen::Ike => counts.ike += 1,
            Seen::Clear => {
                counts.clear += 1;
                if counts.leaks.len() < 10 {
                    counts
                        .leaks
                        .push(format!("{:02x?}", &packet.bytes[..packet.bytes.len().min(48)]));
                }
            }
            Seen::Link | Seen::Other => {}
        }
    }
}
