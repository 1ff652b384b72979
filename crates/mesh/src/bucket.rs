//! How often something may happen that anybody can cause.

use std::time::Duration;

use ipsec::Instant;

/// A token bucket: `burst` at once, then `per_second`.
#[derive(Debug)]
pub struct Bucket {
    burst: u64,
    interval: Duration,
    tokens: u64,
    filled: Instant,
}

impl Bucket {
    /// A full one. Both at least 1.
    pub fn new(burst: u64, per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        let burst = burst.max(1);
        Self { burst, interval, tokens: burst, filled: Instant::ZERO }
    }

    /// Takes a token, if there is one at `now`.
    pub fn take(&mut self, now: Instant) -> bool {
        let fresh = now.since(self.filled).as_nanos() / self.interval.as_nanos();
        if fresh > 0 {
            self.tokens =
                u64::try_from(fresh).map_or(self.burst, |n| n.saturating_add(self.tokens));
            self.tokens = self.tokens.min(self.burst);
            self.filled = now;
        }
        let there = self.tokens > 0;
        self.tokens -= u64::from(there);
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_steady_rate() {
        let mut bucket = Bucket::new(10, 4);
        let mut taken = |millis: u64| {
            let now = Instant::from_nanos(millis * 1_000_000);
            (0..100).filter(|_| bucket.take(now)).count()
        };
        assert_eq!([taken(5000), taken(5000), taken(5249), taken(5250)], [10, 0, 0, 1]);
        assert_eq!([taken(6250), taken(1_000_000)], [4, 10]);
    }
}
