//! What will happen, in the order in which it will.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ipsec::Instant;

/// The future. What is due at the same instant happens in the order in which it was entered.
pub struct Agenda<T> {
    /// When, in which order, and where in `entries`.
    heap: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    /// What the heap moves about is small; these stay where they are.
    entries: Vec<Option<T>>,
    free: Vec<usize>,
    entered: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), entries: Vec::new(), free: Vec::new(), entered: 0 }
    }
}

impl<T> Agenda<T> {
    /// Enters something.
    pub fn enter(&mut self, at: Instant, what: T) {
        self.entered += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        self.entries[place] = Some(what);
        self.heap.push(Reverse((at, self.entered, place)));
    }

    /// When the next is due.
    pub fn first(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// What is next, if it is due by then.
    pub fn next_until(&mut self, until: Instant) -> Option<(Instant, T)> {
        self.first().filter(|at| *at <= until)?;
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        Some((at, self.entries[place].take()?))
    }

    /// How much is to come.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_then_by_entry() {
        let mut agenda = Agenda::default();
        let at = Instant::from_nanos;
        for (when, what) in [(20, "c"), (10, "a"), (20, "d"), (10, "b"), (30, "late")] {
            agenda.enter(at(when), what);
        }
        let mut seen = Vec::new();
        while let Some((_, what)) = agenda.next_until(at(29)) {
            seen.push(what);
        }
        assert_eq!((seen, agenda.len()), (vec!["a", "b", "c", "d"], 1));
    }
}
