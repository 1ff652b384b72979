//! The threads that carry packets: outbound, inbound, and one that keeps house.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Error, Shared, arrivals, departures, locked};
use crate::clock::now;
use crate::errno::of_io;
use crate::route::Monitor;

pub(super) fn start(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>, Error> {
    let monitor = Monitor::open()?;
    let (out, inward, house) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(work).map_err(|e| Error::Call { call: "a thread", errno: of_io(&e) })
    };
    Ok(vec![
        spawn("warren-out", Box::new(move || departures::run(&out)))?,
        spawn("warren-in", Box::new(move || arrivals::run(&inward)))?,
        spawn("warren-house", Box::new(move || keep_house(&house, &monitor)))?,
    ])
}

/// Waits for any of `fds`, or for the end, which is `false`.
pub(super) fn wait(
    shared: &Shared,
    fds: &[BorrowedFd<'_>],
    ready: &mut Vec<bool>,
    limit: Option<&Timespec>,
) -> bool {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    polled.push(PollFd::new(&shared.stop, PollFlags::IN));
    let outcome = rustix::event::poll(&mut polled, limit);
    ready.clear();
    ready.extend(polled.iter().map(|fd| outcome.is_ok() && !fd.revents().is_empty()));
    !ready.pop().unwrap_or(true)
}

/// Time limits every second; routes when something changed, and now and then anyway.
fn keep_house(shared: &Shared, monitor: &Monitor) {
    const SECOND: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
    const SYNC_EVERY: u64 = 30_000_000_000;
    let mut ready = Vec::new();
    let mut synced = now();
    let mut ticked = now();
    while wait(shared, &[monitor.as_fd()], &mut ready, Some(&SECOND)) {
        let time = now();
        if time.since(ticked).as_millis() >= 900 {
            shared.tick(time);
            ticked = time;
        }
        // Not more than five times a second, however much changes.
        let changed = ready.first() == Some(&true) && monitor.changed();
        if changed || time.since(synced).as_nanos() >= u128::from(SYNC_EVERY) {
            locked(&shared.steering).sync(&shared.pipeline);
            synced = time;
            let pause = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
            if !wait(shared, &[], &mut ready, Some(&pause)) {
                return;
            }
        }
    }
}
