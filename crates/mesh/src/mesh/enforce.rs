//! Whether a fleet that encrypts where it can is ready to encrypt or not to talk.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ike::Now;
use ipsec::Instant;
use ipsec::dataplane::PacketInfo;

use super::Mesh;
use crate::cleartext::BothWays;
use crate::command::CommandError;
use crate::readiness::{PairReadiness, Readiness, Watched};

/// What is older is of no interest to anybody.
const REMEMBERED: Duration = Duration::from_secs(7 * 86_400);

impl Mesh {
    /// Something passed in the clear that would have been protected if that had been possible.
    pub(super) fn passed(&mut self, now: Now, packet: &PacketInfo) {
        let Some(fleet) = &self.fleet else { return };
        let into = !fleet.plan().is_me(packet.src);
        let host = if into { packet.src } else { packet.dst };
        if fleet.is_peer(host) {
            self.cleartext.note(now.at, host, into);
        }
    }

    pub(super) fn forget_cleartext(&mut self, now: Now) {
        let then = now.at.since(Instant::ZERO).saturating_sub(REMEMBERED);
        self.cleartext.forget_before(Instant::ZERO + then);
    }

    /// Whether every peer that is known has carried ESP both ways within that time, and nothing in the clear.
    ///
    /// # Errors
    /// If there is no manifest yet.
    pub fn readiness(
        &self,
        now: Now,
        within: Duration,
        watched: Watched,
    ) -> Result<Readiness, CommandError> {
        let fleet = self.fleet.as_ref().ok_or(CommandError::NoManifest)?;
        let known = self.peers.iter().map(|(address, _)| address).chain(self.cleartext.hosts());
        let peers: BTreeSet<IpAddr> = known.filter(|address| fleet.is_peer(*address)).collect();
        let pairs: Vec<_> = peers.into_iter().map(|peer| self.pair(now, peer, within)).collect();
        let age = |at: Instant| now.at.since(at).as_secs();
        let reason = if fleet.manifest().optional {
            self.obstacle(now, within, watched, &pairs)
        } else {
            None
        };
        let ready = reason.is_none();
        let fine = match (fleet.manifest().optional, pairs.len()) {
            (false, _) => "the manifest enforces encryption already".to_owned(),
            (true, n) => {
                format!("all {n} pairs carried ESP both ways, and nothing passed in the clear")
            }
        };
        Ok(Readiness {
            ready,
            reason: reason.unwrap_or(fine),
            within_s: within.as_secs(),
            watched_s: watched.since.map(age),
            pairs,
        })
    }

    fn obstacle(
        &self,
        now: Now,
        within: Duration,
        watched: Watched,
        pairs: &[PairReadiness],
    ) -> Option<String> {
        let recent = |at: Option<Instant>| at.filter(|at| now.at.since(*at) < within);
        let missing = pairs.iter().filter(|pair| !pair.ready).count();
        let Some(since) = watched.since else {
            return Some("cleartext cannot be watched on this host: see the daemon's log".into());
        };
        if missing > 0 {
            return Some(format!("{missing} of {} pairs are not ready", pairs.len()));
        }
        if pairs.is_empty() {
            return Some("no peer is known: list the hosts in `peers`, or let them talk".into());
        }
        if let Some(since) = recent(Some(since)) {
            let so_far = now.at.since(since).as_secs();
            return Some(format!("watched for {so_far} s only: ask again later"));
        }
        if let Some(at) = recent(watched.missed) {
            let ago = now.at.since(at).as_secs();
            return Some(format!(
                "too much passed at once {ago} s ago to look at all of it: ask again later"
            ));
        }
        recent(self.cleartext.unnamed())
            .map(|_| "more hosts talk in the clear than are counted".into())
    }

    fn pair(&self, now: Now, address: IpAddr, within: Duration) -> PairReadiness {
        let name = self.fleet.as_ref().and_then(|fleet| fleet.name(address)).map(str::to_owned);
        let esp = self.peers.get(address).map_or(BothWays::default(), |peer| peer.carried);
        let clear = self.cleartext.of(address);
        let age = |at: Option<Instant>| at.map(|at| now.at.since(at));
        let recent = |at| age(at).is_some_and(|age| age < within);
        let mut missing = Vec::new();
        for (at, what) in [(clear.into, "cleartext from it"), (clear.out, "cleartext to it")] {
            if let Some(age) = age(at).filter(|age| *age < within) {
                missing.push(format!("{what} {} s ago", age.as_secs()));
            }
        }
        for (at, what) in [(esp.into, "no ESP from it"), (esp.out, "no ESP to it")] {
            if !recent(at) {
                let since =
                    age(at).map_or(String::new(), |age| format!(" for {} s", age.as_secs()));
                missing.push(format!("{what}{since}"));
            }
        }
        let seconds = |at| age(at).map(|age| age.as_secs());
        PairReadiness {
            address,
            name,
            ready: missing.is_empty(),
            missing: missing.join("; "),
            esp_in_s: seconds(esp.into),
            esp_out_s: seconds(esp.out),
            clear_in_s: seconds(clear.into),
            clear_out_s: seconds(clear.out),
        }
    }
}
