//! Under `optional` packets pass in the clear past the data plane: here they are seen.

use ipsec::Instant;
use ipsec::dataplane::PacketInfo;
use ipsec::spd::Action;
use linux::passing::Passing;
use mesh::plan::Plan;
use mesh::readiness::Watched;
use tokio::sync::mpsc;

/// Packets that may wait for the loop; what comes beyond that is told again a second later.
const QUEUE: usize = 1024;

/// The watch, while there is something to watch.
pub struct Cleartext {
    told: mpsc::Receiver<PacketInfo>,
    tell: mpsc::Sender<PacketInfo>,
    watch: Option<Running>,
}

struct Running {
    passing: Passing,
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
        let before = self.watch.take();
        if !plan.optional() {
            return;
        }
        let (plan, tell) = (plan.clone(), self.tell.clone());
        let own = plan.addresses();
        let counts = move |packet: &PacketInfo| {
            let decides = plan.decide(packet).policy.map(|planned| planned.policy.action);
            matches!(decides, Some(Action::Protect { optional: true, .. }))
        };
        let tell = move |packet| {
            let _ = tell.try_send(packet);
        };
        match Passing::watch(&own, device, counts, tell) {
            Ok(passing) => {
                let now = linux::clock::now();
                let (since, missed) = before.map_or((now, None), |w| (w.since, w.missed.1));
                self.watch = Some(Running { passing, since, missed: (0, missed) });
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
        let missed = watch.passing.missed();
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
