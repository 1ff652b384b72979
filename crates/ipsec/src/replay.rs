//! The anti-replay window (RFC 4303 3.4.3) and the high half of extended sequence numbers (appendix A).

/// Smallest window, in packets.
pub const MIN_WINDOW: u32 = 64;
/// Largest window, in packets.
pub const MAX_WINDOW: u32 = 4096;

/// A packet that came already, or too late to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("sequence number was seen before, or is behind the window")]
pub struct Replayed;

/// Which sequence numbers were seen. Checked before the ICV, updated only after it verified.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// Bit `n % size` is set when `n` was seen, for the last `size` numbers up to `top`. Empty: all up to `top` were,
    /// as is true of a window that nothing came through yet.
    seen: Box<[u64]>,
    /// Packets in the window; 0 when the check is off.
    size: u64,
    /// Highest sequence number that verified.
    top: u64,
    esn: bool,
}

impl ReplayWindow {
    /// A window of `size` packets, rounded up to a multiple of 64 within 64 to 4096; 0 is none.
    pub fn new(size: u32, esn: bool) -> Self {
        let size = match size {
            0 => 0,
            size => size.clamp(MIN_WINDOW, MAX_WINDOW).next_multiple_of(64),
        };
        Self { seen: Box::default(), size: u64::from(size), top: 0, esn }
    }

    /// Gives its room back: from here on, all up to the newest number counts as seen. To be called when nothing came for so
    /// long that nothing older is under way any more.
    pub fn rest(&mut self) {
        self.seen = Box::default();
    }

    /// The whole sequence number of a packet whose header carries `low`, if it may be new.
    pub fn check(&self, low: u32) -> Result<u64, Replayed> {
        let seq = if self.esn { self.extend(low).ok_or(Replayed)? } else { u64::from(low) };
        if self.size != 0 && (seq == 0 || self.was_seen(seq)) {
            return Err(Replayed);
        }
        Ok(seq)
    }

    /// Records `seq`, which verified. `true` if it is the newest so far.
    ///
    /// Checks once more: between check and update another thread may have had the same packet.
    pub fn update(&mut self, seq: u64) -> Result<bool, Replayed> {
        let newest = seq > self.top;
        if self.size == 0 {
            self.top = self.top.max(seq);
            return Ok(newest);
        }
        if self.was_seen(seq) {
            return Err(Replayed);
        }
        if newest {
            self.advance(seq);
        }
        let (word, bit) = self.place(seq);
        self.seen[word] |= bit;
        Ok(newest)
    }

    /// The highest sequence number, and which of the last ones were seen: for [`restore`](Self::restore).
    pub fn parts(&self) -> (u64, Vec<u64>) {
        let seen = if self.seen.is_empty() { self.all_seen() } else { self.seen.clone() };
        (self.top, seen.into_vec())
    }

    /// A window as it was; `None` if there can be none of this size.
    pub fn restore(esn: bool, top: u64, seen: Vec<u64>) -> Option<Self> {
        let size = 64 * u64::try_from(seen.len()).ok()?;
        let lawful = size == 0 || (MIN_WINDOW.into()..=MAX_WINDOW.into()).contains(&size);
        lawful.then(|| Self { seen: seen.into_boxed_slice(), size, top, esn })
    }

    /// Highest sequence number that verified; 0 before the first.
    pub fn top(&self) -> u64 {
        self.top
    }

    fn was_seen(&self, seq: u64) -> bool {
        if seq > self.top {
            return false;
        }
        let (word, bit) = self.place(seq);
        self.top - seq >= self.size || self.seen.get(word).is_none_or(|word| word & bit != 0)
    }

    fn all_seen(&self) -> Box<[u64]> {
        vec![u64::MAX; (self.size / 64) as usize].into()
    }

    fn place(&self, seq: u64) -> (usize, u64) {
        let slot = seq % self.size;
        ((slot / 64) as usize, 1 << (slot % 64))
    }

    /// Moves the window so that it ends at `seq`, which is above `top`.
    fn advance(&mut self, seq: u64) {
        if self.seen.is_empty() {
            self.seen = self.all_seen();
        }
        if seq - self.top >= self.size {
            self.seen.fill(0);
        } else {
            for passed in self.top + 1..=seq {
                let (word, bit) = self.place(passed);
                self.seen[word] &= !bit;
            }
        }
        self.top = seq;
    }

    /// The 64-bit number that `low` stands for (RFC 4303 A2.1); `None` if there is none.
    fn extend(&self, low: u32) -> Option<u64> {
        // Without a window a packet may be late by half the number space.
        let window = if self.size == 0 { 1 << 31 } else { self.size as u32 };
        let (top_high, top_low) = ((self.top >> 32) as u32, self.top as u32);
        let bottom_low = top_low.wrapping_sub(window - 1);
        let high = if top_low >= window - 1 {
            if low >= bottom_low { Some(top_high) } else { top_high.checked_add(1) }
        } else if low >= bottom_low {
            top_high.checked_sub(1)
        } else {
            Some(top_high)
        };
        Some(u64::from(high?) << 32 | u64::from(low))
    }
}

impl PartialEq for ReplayWindow {
    fn eq(&self, other: &Self) -> bool {
        (self.size, self.esn, self.parts()) == (other.size, other.esn, other.parts())
    }
}

impl Eq for ReplayWindow {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The rule itself: a set of all that was seen.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
        top: u64,
    }

    impl Model {
        fn accept(&mut self, seq: u64, window: u64) -> bool {
            if seq == 0 || seq + window <= self.top || !self.seen.insert(seq) {
                return false;
            }
            self.top = self.top.max(seq);
            true
        }
    }

    fn steps() -> impl Strategy<Value = Vec<i64>> {
        let step = prop_oneof![6 => -5i64..8, 3 => -140i64..140, 1 => -5000i64..5000];
        prop::collection::vec(step, 1..400)
    }

    proptest! {
        #[test]
        fn same_as_a_set(size in prop::sample::select(vec![64u32, 128, 1024, 4096]), start in 0u64..100, steps in steps()) {
            let mut window = ReplayWindow::new(size, false);
            let (mut model, mut seq) = (Model::default(), start);
            for step in steps {
                seq = seq.saturating_add_signed(step);
                let taken = window.check(seq as u32).and_then(|seq| window.update(seq)).is_ok();
                prop_assert_eq!(taken, model.accept(seq, u64::from(size)), "{}", seq);
            }
        }

        #[test]
        fn extended_numbers_are_found_again(size in prop::sample::select(vec![64u32, 4096]), start in 0xffff_f000u64..0x1_0000_1000, steps in steps()) {
            let mut window = ReplayWindow::new(size, true);
            // The first packet of an SA is not four thousand million behind; get there lawfully.
            for top in [1, 1 << 31, start] {
                window.update(top).unwrap();
            }
            let mut model = Model { seen: BTreeSet::from([start]), top: start };
            let mut seq = start;
            for step in steps {
                seq = seq.saturating_add_signed(step);
                let found = window.check(seq as u32);
                // The receiver cannot tell a number far behind from one far ahead; the ICV would.
                let taken = found == Ok(seq) && window.update(seq).is_ok();
                prop_assert_eq!(taken, model.accept(seq, u64::from(size)), "{:x}", seq);
            }
        }
    }

    #[test]
    fn a_copy_between_check_and_update_is_refused() {
        let mut window = ReplayWindow::new(64, false);
        assert_eq!(window.check(7), Ok(7));
        assert_eq!(window.check(7), Ok(7));
        assert_eq!(window.update(7), Ok(true));
        assert_eq!(window.update(7), Err(Replayed));
        assert_eq!(window.update(6), Ok(false));
    }

    #[test]
    fn one_that_rested_takes_what_is_new_and_nothing_from_before() {
        let mut window = ReplayWindow::new(64, false);
        assert!(window.seen.is_empty(), "no room before the first packet");
        for seq in [1, 2, 9] {
            window.update(seq).unwrap();
        }
        window.rest();
        assert!(window.seen.is_empty());
        assert_eq!([1, 5, 9].map(|seq| window.check(seq)), [Err(Replayed); 3]);
        let (top, seen) = window.parts();
        assert_eq!(ReplayWindow::restore(false, top, seen), Some(window.clone()));
        assert_eq!(window.update(12), Ok(true));
        assert_eq!([5, 9, 12].map(|seq| window.check(seq)), [Err(Replayed); 3]);
        for late in [10, 11] {
            assert_eq!(window.check(late).and_then(|seq| window.update(seq)), Ok(false));
            assert_eq!(window.check(late), Err(Replayed));
        }
    }

    #[test]
    fn no_window_takes_everything() {
        let mut window = ReplayWindow::new(0, false);
        for _ in 0..2 {
            assert!(window.check(5).and_then(|seq| window.update(seq)).is_ok());
        }
    }

    #[test]
    fn high_half_wraps_both_ways() {
        let mut window = ReplayWindow::new(64, true);
        window.update(0xffff_fff0).unwrap();
        assert_eq!(window.check(5), Ok(0x1_0000_0005));
        window.update(0x1_0000_0005).unwrap();
        assert_eq!(window.check(0xffff_fffe), Ok(0xffff_fffe));
        assert_eq!(window.check(6), Ok(0x1_0000_0006));
        let fresh = ReplayWindow::new(64, true);
        assert_eq!(fresh.check(u32::MAX), Err(Replayed));
    }
}
