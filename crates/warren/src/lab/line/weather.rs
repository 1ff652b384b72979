//! Loss, reordering, outages.

use std::time::{Duration, Instant};

use sim::dice::Dice;

use super::{Delivery, Passage, Way, frame};

/// A frame that is overtaken arrives so much later, at most.
const LATE: Duration = Duration::from_millis(40);

/// A link in some weather. What the host sends is lost and overtaken; what it gets has been through that at its sender.
pub struct Weather {
    /// Of a thousand packets, so many are lost. Address resolution is spared: it is the link's own.
    pub loss: u32,
    /// Of a thousand packets, so many are overtaken by later ones.
    pub reorder: u32,
    /// Nothing passes at all, either way.
    pub outage: bool,
    dice: Dice,
}

impl Weather {
    /// A link without faults. Its chances come from `seed`, those of another `name` are others.
    pub fn calm(seed: u64, name: &str) -> Self {
        Self { loss: 0, reorder: 0, outage: false, dice: Dice::new(seed, name) }
    }
}

impl Passage for Weather {
    fn pass(&mut self, now: Instant, way: Way, frame: Vec<u8>, out: &mut Vec<Delivery>) {
        if self.outage {
            return;
        }
        let mut at = now;
        if way == Way::Out && frame::is_ip(&frame) {
            if self.dice.chance(self.loss) {
                return;
            }
            if self.dice.chance(self.reorder) {
                at += self.dice.between(Duration::ZERO, LATE);
            }
        }
        out.push(Delivery { at, way, frame });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(weather: &mut Weather, way: Way, kind: [u8; 2], count: usize) -> Vec<Duration> {
        let frame = [&[0; 12][..], &kind, &[0; 40]].concat();
        let (now, mut out) = (Instant::now(), Vec::new());
        (0..count).for_each(|_| weather.pass(now, way, frame.clone(), &mut out));
        out.iter().map(|delivery| delivery.at - now).collect()
    }

    #[test]
    fn only_what_the_host_sends_is_lost_and_late_and_only_packets() {
        let mut weather = Weather { loss: 300, reorder: 300, ..Weather::calm(1, "h1") };
        let out = passed(&mut weather, Way::Out, [8, 0], 1000);
        assert!((600..800).contains(&out.len()), "{}", out.len());
        let late = out.iter().filter(|late| !late.is_zero()).count();
        assert!((100..300).contains(&late) && out.iter().all(|l| *l <= LATE), "{late}");
        for (way, kind) in [(Way::Out, [8, 6]), (Way::In, [8, 0])] {
            let all = passed(&mut weather, way, kind, 100);
            assert!(all.len() == 100 && all.iter().all(Duration::is_zero));
        }
    }

    #[test]
    fn an_outage_lets_nothing_pass() {
        let mut weather = Weather { outage: true, ..Weather::calm(1, "h1") };
        for kind in [[8, 0], [8, 6]] {
            assert!(passed(&mut weather, Way::Out, kind, 10).is_empty());
            assert!(passed(&mut weather, Way::In, kind, 10).is_empty());
        }
    }

    #[test]
    fn a_seed_repeats() {
        let throw = |seed| {
            let mut weather = Weather { loss: 500, reorder: 500, ..Weather::calm(seed, "h1") };
            passed(&mut weather, Way::Out, [8, 0], 50)
        };
        assert_eq!(throw(3), throw(3));
        assert_ne!(throw(3), throw(4));
    }
}
