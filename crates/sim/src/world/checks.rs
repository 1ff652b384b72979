//! What must be: at any time, and after a while.

use std::cell::Ref;
use std::sync::Arc;
use std::time::Duration;

use ipsec::Instant;
use ipsec::sad::Entry;
use mesh::status::PeerStatus;

use super::{BEGIN, Stopped, World};
use crate::net::HostId;
use crate::oracle::Finding;
use crate::survey::Survey;
use crate::violation::{Violation, What};

/// A packet that waits for a handshake may take so long: the queue gives it ten seconds.
const PATIENCE: Duration = Duration::from_secs(12);
/// How often is looked whether something has come about.
const STEP: Duration = Duration::from_millis(250);

/// When something came about.
#[derive(Default)]
pub(super) struct Marks {
    pub(super) first_all_up: Option<Instant>,
    pub(super) calm_since: Option<Instant>,
    pub(super) recovered: Option<Duration>,
}

impl World {
    /// Lets time pass until all pairs are up, at most so long.
    pub fn until_all_up(&mut self, within: Duration) -> Result<(), Stopped> {
        let late = self.until(within, Self::not_up, Self::pair_not_up)?;
        let since = self.marks.calm_since.map(|calm| self.now.since(calm));
        self.marks.recovered = self.marks.recovered.or(since);
        self.blame(late, within)
    }

    /// Lets time pass until each pair has exactly one IKE SA and one child SA, of which both ends
    /// know the same, at most so long.
    pub fn until_settled(&mut self, within: Duration) -> Result<(), Stopped> {
        let late = self.until(within, Self::unsettled, Self::pair_unsettled)?;
        self.blame(late, within)
    }

    /// Something that a scenario asks for did not come about.
    pub fn fault(
        &mut self,
        what: What,
        (host, peer): (HostId, HostId),
        text: impl Into<String>,
    ) -> Stopped {
        self.find(Finding::pair(what, host, peer, text));
        Stopped
    }

    /// Lets time pass until this holds, at most so long; how long it took.
    pub fn until_true(
        &mut self,
        within: Duration,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<Option<Duration>, Stopped> {
        let since = self.now;
        while !holds(self) {
            if self.now.since(since) >= within {
                return Ok(None);
            }
            self.run_for(STEP / 5)?;
        }
        Ok(Some(self.now.since(since)))
    }

    /// Whether packets of a pair get through, both ways.
    pub fn is_up(&self, a: HostId, b: HostId) -> bool {
        self.survey_of(a, b).is_up(a, b)
    }

    /// Whether nothing is installed at either end of a pair.
    pub fn has_no_sa(&self, a: HostId, b: HostId) -> bool {
        let survey = self.survey_of(a, b);
        let none = |a, b| survey.held(a, b).inbound.len() + survey.held(a, b).outbound.len() == 0;
        none(a, b) && none(b, a)
    }

    /// The same for a fleet that rekeys all the time: each pair is seen like that at some instant
    /// of its own, and an SA does not count while it is handed over to its successor.
    pub fn until_each_settled(&mut self, within: Duration) -> Result<(), Stopped> {
        let deadline = self.now + within;
        let mut pending: Vec<_> = self.pairs().collect();
        loop {
            let look = self.unsettled_pairs(&pending);
            pending = look.iter().map(|(pair, _)| *pair).collect();
            let late = look.into_iter().next().map(|(_, finding)| finding);
            if late.is_none() || self.now >= deadline {
                return self.blame(late, within);
            }
            self.run_until(deadline.min(self.now + STEP))?;
        }
    }

    /// Every pair has exactly one IKE SA and one child SA now, and nothing that had to arrive is
    /// missing.
    pub fn finish(&mut self) -> Result<(), Stopped> {
        self.talk(None);
        self.run_for(Duration::from_secs(1))?;
        let lost = self.ledger.overdue(self.now, Duration::ZERO);
        self.report_lost(&lost);
        let unsettled = self.unsettled();
        self.blame(unsettled, Duration::ZERO)
    }

    /// Pairs up, and the most IKE SAs and child SAs that one host holds with one peer.
    pub(super) fn census(&self) -> (usize, usize, usize) {
        let survey = self.survey();
        let up = self.pairs().filter(|(a, b)| survey.is_up(*a, *b)).count();
        let held = survey.rows().iter().flat_map(|row| row.iter());
        let children = held.map(|(_, held)| held.inbound.len().max(held.outbound.len()));
        let pairs = self.pairs().chain(self.exempt.iter().copied());
        let ikes = pairs.flat_map(|(a, b)| [self.ikes(a, b).len(), self.ikes(b, a).len()]);
        (up, ikes.max().unwrap_or(0), children.max().unwrap_or(0))
    }

    /// Whether a host's status names the same IKE SAs as in use: what it says to people, and what is judged.
    pub(super) fn status_agrees(&self, host: HostId, peer: HostId) -> bool {
        let status = self.status(host, peer).into_iter().flat_map(|peer| peer.ike_sas);
        let live = status.filter(|ike| ike.state == "established");
        let mut shown: Vec<_> = live.map(|ike| (ike.spi_i, ike.spi_r)).collect();
        shown.sort_unstable();
        let judged = self.ikes(host, peer);
        judged.iter().map(|(i, r)| (format!("{i:016x}"), format!("{r:016x}"))).eq(shown)
    }

    /// The IKE SAs in use that a host has with another one.
    fn ikes(&self, host: HostId, peer: HostId) -> Vec<(u64, u64)> {
        self.hosts[host].ike_sas(self.fleet.address(peer))
    }

    /// What the judge looks at every second.
    pub(super) fn audit(&mut self) {
        let mut survey = self.survey.take();
        survey.update(&self.hosts, &self.fleet);
        if let Some(finding) = self.oracle.audit(self.now, &self.fleet, &survey) {
            self.find(finding);
        }
        if self.marks.first_all_up.is_none() && self.pairs().all(|(a, b)| survey.is_up(a, b)) {
            self.marks.first_all_up = Some(self.now);
        }
        self.survey.replace(survey);
        let lost = self.ledger.overdue(self.now, PATIENCE);
        self.report_lost(&lost);
    }

    /// Something is wrong: the first time its ladder is drawn.
    pub(super) fn find(&mut self, finding: Finding) {
        let Finding { what, host, peer, text } = finding;
        let hosts = [Some(host), peer].into_iter().flatten();
        let hosts = hosts.map(|id| self.fleet.address(id)).collect();
        let at = self.elapsed().as_secs_f64();
        if let (Some(peer), None) = (peer, &self.ladder) {
            self.ladder = Some(self.recorder.draw(host, peer, &self.fleet, BEGIN));
        }
        self.violations.push(Violation { at, what, hosts, text });
    }

    /// Lets time pass until nothing is missing; what is, if the time was not enough.
    fn until(
        &mut self,
        within: Duration,
        missing: impl Fn(&Self) -> Option<Finding>,
        missing_of: impl Fn(&Self, (HostId, HostId)) -> Option<Finding>,
    ) -> Result<Option<Finding>, Stopped> {
        let deadline = self.now + within;
        let mut last = None;
        loop {
            // Where a pair is still as it must not be, nobody need look at all the others.
            let still = last.is_some_and(|pair| missing_of(self, pair).is_some());
            if !still || self.now >= deadline {
                let found = missing(self);
                last = found.as_ref().and_then(|f| Some((f.host, f.peer?)));
                if found.is_none() || self.now >= deadline {
                    return Ok(found);
                }
            }
            self.run_until(deadline.min(self.now + STEP))?;
        }
    }

    fn blame(&mut self, found: Option<Finding>, after: Duration) -> Result<(), Stopped> {
        let Some(mut finding) = found else { return Ok(()) };
        if !after.is_zero() {
            finding.text += &format!(", after {after:?}");
        }
        self.find(finding);
        Err(Stopped)
    }

    fn not_up(&self) -> Option<Finding> {
        let pair = {
            let survey = self.survey();
            self.pairs().find(|(a, b)| !survey.is_up(*a, *b))?
        };
        self.pair_not_up(pair)
    }

    fn pair_not_up(&self, (a, b): (HostId, HostId)) -> Option<Finding> {
        if self.is_up(a, b) {
            return None;
        }
        let says = |host: HostId, peer: HostId| {
            let knows = self.status(host, peer);
            knows.map_or_else(|| "knows nothing of it".into(), |status| says(&status))
        };
        let text = format!("the pair is not up: h{a} {}; h{b} {}", says(a, b), says(b, a));
        Some(Finding::pair(What::NotUp, a, b, text))
    }

    /// The first pair that is not settled. Data planes are cheaper to ask than daemons.
    fn unsettled(&self) -> Option<Finding> {
        let look = Look { world: self, survey: self.survey(), handover: false };
        let children = self.pairs().find_map(|pair| look.children(pair));
        children.or_else(|| self.pairs().find_map(|pair| self.unsettled_ikes(pair)))
    }

    fn pair_unsettled(&self, pair: (HostId, HostId)) -> Option<Finding> {
        let survey = self.survey_of(pair.0, pair.1);
        let look = Look { world: self, survey, handover: false };
        look.children(pair).or_else(|| self.unsettled_ikes(pair))
    }

    /// Those of these pairs that are not settled.
    fn unsettled_pairs(&self, pairs: &[(HostId, HostId)]) -> Vec<((HostId, HostId), Finding)> {
        let look = Look { world: self, survey: self.survey(), handover: true };
        let finding = |pair| look.children(pair).or_else(|| self.unsettled_ikes(pair));
        pairs.iter().filter_map(|pair| Some((*pair, finding(*pair)?))).collect()
    }

    /// Both ends must have the same one IKE SA.
    fn unsettled_ikes(&self, (a, b): (HostId, HostId)) -> Option<Finding> {
        let (here, there) = (self.ikes(a, b), self.ikes(b, a));
        let text = || format!("IKE SAs of h{a}: {here:x?}, of h{b}: {there:x?}");
        (here.len() != 1 || here != there).then(|| Finding::pair(What::IkeSas, a, b, text()))
    }

    fn report_lost(&mut self, lost: &[crate::ledger::Sent]) {
        let Some(first) = lost.first() else { return };
        let text = format!(
            "a packet that h{} sent to h{} at {:.6} never arrived ({} in all)",
            first.from,
            first.to,
            first.at.since(BEGIN).as_secs_f64(),
            lost.len()
        );
        self.find(Finding::pair(What::PacketLost, first.from, first.to, text));
    }
}

/// The SAs of all pairs, and how they are counted.
struct Look<'a> {
    world: &'a World,
    survey: Ref<'a, Survey>,
    handover: bool,
}

impl Look<'_> {
    fn children(&self, (a, b): (HostId, HostId)) -> Option<Finding> {
        let count = |host: HostId, sas: &[Arc<Entry>]| match self.handover {
            true => self.world.oracle.standing(self.world.now, host, sas),
            false => sas.len(),
        };
        let (what, text) = self.survey.unsettled((a, b), &count)?;
        Some(Finding::pair(what, a, b, text))
    }
}

fn says(peer: &PeerStatus) -> String {
    let state = format!("{:?}", peer.state).to_lowercase();
    match &peer.last_error {
        Some(error) => format!("says {state}: {error}"),
        None => format!("says {state}: {}", peer.reason),
    }
}
