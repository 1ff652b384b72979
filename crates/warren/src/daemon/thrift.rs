//! When memory goes back to the system: the C library keeps what a thousand handshakes at once have needed, about as
//! much again as their tunnels hold.

/// So many public-key jobs are a burst worth the work.
const BURST: u32 = 200;
/// It is over when there was none for so many looks at the data plane, about a second each.
const CALM: u32 = 30;

/// What was done since memory was given back last.
#[derive(Default)]
pub struct Thrift {
    jobs: u32,
    calm: u32,
}

impl Thrift {
    /// A job is given away.
    pub fn job(&mut self) {
        self.jobs = self.jobs.saturating_add(1);
        self.calm = 0;
    }

    /// The data plane is looked at. Whether memory is to be given back now.
    pub fn look(&mut self) -> bool {
        self.calm = self.calm.saturating_add(1);
        let over = self.jobs >= BURST && self.calm >= CALM;
        if over {
            self.jobs = 0;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(thrift: &mut Thrift, count: u32) -> u32 {
        (0..count).filter(|_| thrift.look()).count() as u32
    }

    #[test]
    fn it_is_once_after_a_burst_and_not_within() {
        let mut thrift = Thrift::default();
        assert_eq!(looks(&mut thrift, CALM * 10), 0, "nothing was done");
        (0..BURST).for_each(|_| thrift.job());
        assert_eq!(looks(&mut thrift, CALM - 1), 0);
        thrift.job();
        assert_eq!(looks(&mut thrift, CALM - 1), 0, "it goes on");
        assert_eq!(looks(&mut thrift, CALM * 10), 1);
        thrift.job();
        assert_eq!(looks(&mut thrift, CALM * 10), 0, "one is no burst");
    }
}
