//! Under `optional` packets pass in the clear past the data plane: here they are seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ipsec::Instant;
use ipsec::dataplane::PacketInfo;
use ipsec::sa::Mode;
use ipsec::spd::Action;
use linux::passing::Passing;
use mesh::plan::Plan;
use mesh::readiness::Watched;
use tokio::sync::mpsc;

/// Packets that may wait for the loop; what comes beyond that counts as missed.
const QUEUE: usize = 1024;

/// The watch, while there is something to watch.
pub struct Cleartext {
    told: mpsc::Receiver<PacketInfo>,
    tell: mpsc::Sender<PacketInfo>,
    watch: Option<Running>,
}

struct Running {
    passing: Passing,
    /// What was seen and found no place in the queue.
    dropped: Arc<AtomicU64>,
    since: Instant,
    /// What was missed when that was last looked at, and when it last grew.
    missed: (u64, Option<Instant>),
}

impl Default for Cleartext {
    fn default() -> Self {
        let (tell, told) = mpsc::channel(QUEUE);
        Self { told, tell, watch: None }
    }
}

impl Cleartext {
    /// Watches what this plan lets pass where there is no SA; a watch that runs keeps its beginning. `device`: what goes
    /// through it is no cleartext.
    pub fn follow(&mut self, plan: &Plan, device: Option<&str>) {
        self.look();
        let before = self.watch.take();
        if !plan.optional() {
            return;
        }
        if device.is_none() && plan.mode() == Mode::Tunnel {
            // A kernel shows what it has opened to packet sockets as if it had come so.
            tracing::warn!(
                "`plan --enforce` cannot answer: cleartext looks like what comes out of the kernel's tunnels"
            );
            return;
        }
        let (plan, tell) = (plan.clone(), self.tell.clone());
        let own = plan.addresses();
        let counts = move |packet: &PacketInfo| {
            let decides = plan.decide(packet).policy.map(|planned| planned.policy.action);
            matches!(decides, Some(Action::Protect { optional: true, .. }))
        };
        let dropped = Arc::new(AtomicU64::new(0));
        let count = dropped.clone();
        let tell = move |packet| {
            if tell.try_send(packet).is_err() {
                count.fetch_add(1, Relaxed);
            }
        };
        match Passing::watch(&own, device, counts, tell) {
            Ok(passing) => {
                let now = linux::clock::now();
                let since = before.as_ref().map_or(now, |w| w.since);
                // Between two watches something may have passed.
                let missed = (0, before.map(|_| now));
                self.watch = Some(Running { passing, dropped, since, missed });
            }
            Err(error) => {
                tracing::warn!(
                    "what passes in the clear is not watched, `plan --enforce` cannot answer: {error}"
                );
            }
        }
    }

    /// The next packet.
    pub async fn next(&mut self) -> PacketInfo {
        match self.told.recv().await {
            Some(packet) => packet,
            // Never: this value holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Looks whether something was missed; to be called now and then.
    pub fn look(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        let missed = watch.passing.missed() + watch.dropped.load(Relaxed);
        if missed > watch.missed.0 {
            watch.missed = (missed, Some(linux::clock::now()));
        }
    }

    /// How well it was watched.
    pub fn watched(&mut self) -> Watched {
        self.look();
        let watch = self.watch.as_ref();
        Watched { since: watch.map(|w| w.since), missed: watch.and_then(|w| w.missed.1) }
    }
}
