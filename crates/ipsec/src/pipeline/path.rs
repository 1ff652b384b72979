//! Path MTU by destination (RFC 1191, RFC 8201).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::Instant;
use crate::handover::Path;
use crate::icmp::IPV6_MIN_MTU;

/// Destinations remembered.
const MAX_PATHS: usize = 1 << 14;
/// How long a path's MTU is believed (RFC 1191 6.3).
const MAX_AGE: Duration = Duration::from_secs(600);
/// An IPv4 path is taken to carry this much, whatever an ICMP message that nobody signed says.
const IPV4_MIN_MTU: usize = 552;
/// Error messages to local senders: at most so many in a second.
const ERRORS_PER_SECOND: u32 = 1000;

#[derive(Default)]
pub struct Paths {
    known: BTreeMap<IpAddr, (usize, Instant)>,
    /// Of the devices, where nothing else is known.
    default: Option<usize>,
    errors: ErrorBudget,
}

#[derive(Default)]
struct ErrorBudget {
    since: Instant,
    spent: u32,
}

impl Paths {
    pub fn set_default(&mut self, mtu: u32) {
        self.default = Some((mtu as usize).max(IPV4_MIN_MTU));
    }

    pub fn set(&mut self, now: Instant, dst: IpAddr, mtu: u32) {
        if self.known.len() >= MAX_PATHS && !self.known.contains_key(&dst) {
            self.known.retain(|_, (_, since)| now.since(*since) < MAX_AGE);
            if self.known.len() >= MAX_PATHS {
                return;
            }
        }
        let lowest = if dst.is_ipv4() { IPV4_MIN_MTU } else { IPV6_MIN_MTU };
        self.known.insert(dst, ((mtu as usize).max(lowest), now));
    }

    pub fn export(&self) -> Vec<Path> {
        let mtu = |mtu: usize| u32::try_from(mtu).unwrap_or(u32::MAX);
        let known = self.known.iter();
        known.map(|(dst, (of, since))| Path { dst: *dst, mtu: mtu(*of), since: *since }).collect()
    }

    pub fn get(&self, now: Instant, dst: IpAddr) -> Option<usize> {
        let fresh = |(_, since): &&(usize, Instant)| now.since(*since) < MAX_AGE;
        self.known.get(&dst).filter(fresh).map(|(mtu, _)| *mtu).or(self.default)
    }

    /// Whether one more error message may be sent (RFC 1812 4.3.2.8, RFC 4443 2.4 f).
    pub fn may_send_error(&mut self, now: Instant) -> bool {
        if now.since(self.errors.since) >= Duration::from_secs(1) {
            self.errors = ErrorBudget { since: now, spent: 0 };
        }
        self.errors.spent += 1;
        self.errors.spent <= ERRORS_PER_SECOND
    }
}
