//! Cells side by side: most of a cell's time is waiting.

use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Sink;
use crate::cell;
use crate::matrix::Cell;

/// At once, where both sides bring their own ESP.
pub const NATIVE: usize = 4;
/// At once, in the test machine.
pub const INSIDE: usize = 3;

/// Plays all cells, each on hosts of its own.
pub fn play(cells: &[(usize, Cell)], at_once: usize, pki: &Path, sink: Sink<'_>) {
    let (next, sink) = (AtomicUsize::new(0), Mutex::new(sink));
    let work = || {
        while let Some((number, cell)) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = cell::run(*number, cell, pki);
            (sink.lock().unwrap_or_else(PoisonError::into_inner))(outcome);
        }
    };
    std::thread::scope(|scope| (0..at_once).for_each(|_| drop(scope.spawn(work))));
}
