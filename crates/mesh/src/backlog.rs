//! Whether this host keeps up with its public-key work.
//!
//! A peer's patience is about half a minute, and a handshake takes several jobs at either end. Were everything begun that is asked
//! for, a host with too much to do would finish nothing: all would be given up before its turn. So nothing new is begun
//! while a new job would wait for long; and once it would wait for half of that, only by whom a cookie has shown to be real.

use std::collections::BTreeMap;
use std::time::Duration;

use ike::{JobId, Load};
use ipsec::Instant;

/// A job that waits longer than this waits too long: what was begun before it brings two or three more.
const LONG: Duration = Duration::from_secs(2);
/// What a job is taken to cost before any is done: much, until it is known better.
const FIRST_GUESS: Duration = Duration::from_millis(50);
/// One in so many is the newest measurement's weight.
const WEIGHT: u32 = 8;

/// Jobs that are not done. Bounded by what makes jobs: one for each exchange under way.
#[derive(Debug)]
pub struct Backlog {
    /// Since when each waits.
    jobs: BTreeMap<JobId, Instant>,
    last_done: Instant,
    /// Time from one result to the next, while there is work.
    pace: Duration,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { jobs: BTreeMap::new(), last_done: Instant::ZERO, pace: FIRST_GUESS }
    }
}

impl Backlog {
    /// A job is given away.
    pub fn begun(&mut self, job: JobId, now: Instant) {
        self.jobs.insert(job, now);
    }

    /// Its result is there.
    pub fn done(&mut self, job: JobId, now: Instant) {
        let Some(since) = self.jobs.remove(&job) else { return };
        // One long standstill of the host says little of the next job.
        let took = now.since(since.max(self.last_done)).min(LONG);
        self.pace = (self.pace * (WEIGHT - 1) + took) / WEIGHT;
        self.last_done = now;
    }

    /// How much there is, by the time that a new job would wait.
    pub fn load(&self, now: Instant) -> Load {
        // Jobs are numbered in the order in which they are given away.
        let oldest = self.jobs.first_key_value();
        let waited = oldest.map_or(Duration::ZERO, |(_, since)| now.since(*since));
        let count = u32::try_from(self.jobs.len()).unwrap_or(u32::MAX);
        match waited.max(self.pace.saturating_mul(count)) {
            wait if wait >= LONG => Load::Full,
            wait if wait >= LONG / 2 => Load::Heavy,
            _ => Load::Light,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn it_grows_while_the_oldest_job_waits() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.load(at(99_000)), Load::Light);
        backlog.begun(JobId(1), at(0));
        backlog.begun(JobId(2), at(1_500));
        assert_eq!(backlog.load(at(999)), Load::Light);
        assert_eq!(backlog.load(at(1_000)), Load::Heavy);
        assert_eq!(backlog.load(at(1_999)), Load::Heavy);
        assert_eq!(backlog.load(at(2_000)), Load::Full);
        backlog.done(JobId(1), at(2_000));
        assert_eq!(backlog.load(at(2_001)), Load::Light);
        assert_eq!(backlog.load(at(3_499)), Load::Heavy);
        assert_eq!(backlog.load(at(3_500)), Load::Full);
        backlog.done(JobId(2), at(3_500));
        assert_eq!(backlog.load(at(99_000)), Load::Light);
    }

    #[test]
    fn it_is_full_where_there_are_more_jobs_than_are_done_in_time() {
        let mut backlog = Backlog::default();
        let begin = |backlog: &mut Backlog, jobs: std::ops::Range<u64>, now| {
            jobs.for_each(|n| backlog.begun(JobId(n), now));
        };
        begin(&mut backlog, 0..39, at(0));
        assert_eq!(backlog.load(at(0)), Load::Heavy);
        begin(&mut backlog, 39..40, at(0));
        assert_eq!(backlog.load(at(0)), Load::Full, "2 s of work by the first guess");
        for n in 0..40 {
            backlog.done(JobId(n), at(n));
        }
        // A job takes a millisecond here.
        begin(&mut backlog, 40..1_000, at(40));
        assert_ne!(backlog.load(at(40)), Load::Full);
        begin(&mut backlog, 1_000..3_000, at(40));
        assert_eq!(backlog.load(at(40)), Load::Full);
    }
}
