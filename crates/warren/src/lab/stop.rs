//! An interrupt ends a demo early, and in good order: the hosts are taken away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once somebody wants the demo to end.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens for SIGINT, SIGTERM and SIGHUP from now on.
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let stop = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let guard = runtime.enter();
        let mut signals = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        drop(guard);
        let flag = stop.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let [a, b, c] = &mut signals;
                tokio::select! { _ = a.recv() => (), _ = b.recv() => (), _ = c.recv() => () }
            });
            flag.0.store(true, Ordering::Relaxed);
        });
        Ok(stop)
    }

    /// Whether the demo is to end.
    pub fn wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
