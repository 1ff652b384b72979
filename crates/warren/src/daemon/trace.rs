//! `warren trace`: everything of one peer, as it happens or as it was recorded, while all others stay quiet.

use std::net::IpAddr;

use ike::endpoint::Datagram;
use mesh::{Event, Mesh};
use serde_json::{Value, json};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::flight::{Entry, Recorder, What};
use crate::decode::conversation::Listener;
use crate::decode::keyring::Keyring;
use crate::decode::show;

/// Who may trace at once.
const TRACERS: usize = 16;
/// Lines that a slow client may lag behind.
const LAG: usize = 1024;

/// The recorder, and who listens.
#[derive(Default)]
pub struct Traces {
    recorder: Recorder,
    tracers: Vec<Tracer>,
}

struct Tracer {
    peer: IpAddr,
    teller: Teller,
    lines: Sender<Value>,
    missed: u64,
}

impl Traces {
    /// From now on everything of this peer goes there; `None` if too many trace already.
    pub fn begin(&mut self, peer: IpAddr) -> Option<Receiver<Value>> {
        self.tracers.retain(|tracer| !tracer.lines.is_closed());
        if self.tracers.len() >= TRACERS {
            return None;
        }
        let (lines, receiver) = channel(LAG);
        self.tracers.push(Tracer { peer, teller: Teller::default(), lines, missed: 0 });
        Some(receiver)
    }

    /// An IKE datagram came, and has not been looked at yet; or one goes, and has not been sent yet.
    pub fn message(&mut self, mesh: &Mesh, datagram: &Datagram, sent: bool) {
        let Datagram { local, remote, bytes } = datagram;
        let (src, dst) = if sent { (*local, *remote) } else { (*remote, *local) };
        let what = What::Message { src, dst, bytes: bytes.clone() };
        self.add(mesh, remote.ip(), what);
    }

    /// Something happened.
    pub fn event(&mut self, mesh: &Mesh, event: &Event) {
        if let Some(peer) = event.peer {
            self.add(mesh, peer, What::Event(Box::new(event.clone())));
        }
    }

    fn add(&mut self, mesh: &Mesh, peer: IpAddr, what: What) {
        let entry = Entry { at: linux::clock::unix_nanos(), what };
        for tracer in self.tracers.iter_mut().filter(|tracer| tracer.peer == peer) {
            tracer.tell(mesh, &entry);
        }
        self.tracers.retain(|tracer| !tracer.lines.is_closed());
        self.recorder.keep(peer, mesh.is_acquainted(peer), entry);
    }

    /// What is remembered of a peer; what its IKE SAs that are still there can open is opened.
    pub fn recorded(&self, mesh: &Mesh, peer: IpAddr) -> Value {
        let mut teller = Teller::default();
        let entries = self.recorder.of(peer).into_iter();
        let shown: Vec<Value> = entries
            .map(|entry| {
                let mut shown = teller.line(mesh, peer, entry);
                if let What::Message { src, dst, bytes } = &entry.what {
                    let packet = ipsec::packet::udp(*src, *dst, bytes).unwrap_or_default();
                    shown["packet"] =
                        packet.iter().map(|b| format!("{b:02x}")).collect::<String>().into();
                }
                shown
            })
            .collect();
        json!({ "peer": peer, "entries": shown })
    }
}

impl Tracer {
    fn tell(&mut self, mesh: &Mesh, entry: &Entry) {
        let mut line = self.teller.line(mesh, self.peer, entry);
        if self.missed > 0 {
            line["missed"] = self.missed.into();
        }
        match self.lines.try_send(line) {
            Ok(()) => self.missed = 0,
            Err(TrySendError::Full(_)) => self.missed += 1,
            Err(TrySendError::Closed(_)) => {}
        }
    }
}

/// Tells of one peer, and opens its messages: also with keys that are gone by now.
pub struct Teller(Listener);

impl Default for Teller {
    fn default() -> Self {
        Self(Listener::new(Keyring::default(), None))
    }
}

impl Teller {
    /// One line for a program, and for people in `text` and `inside`.
    pub fn line(&mut self, mesh: &Mesh, peer: IpAddr, entry: &Entry) -> Value {
        for keys in mesh.keys_with(peer) {
            // Without the algorithm there would be no such SA.
            let _ = self.0.keys.add(&keys);
        }
        line(&mut self.0, entry)
    }
}

fn line(listener: &mut Listener, entry: &Entry) -> Value {
    match &entry.what {
        What::Event(event) => {
            let mut line = json!({ "at": entry.at, "kind": "event" });
            line["level"] = json!(event.level);
            line["event"] = json!(event.kind);
            line["text"] = json!(event.text);
            line
        }
        What::Message { src, dst, bytes } => {
            let packet = ipsec::packet::udp(*src, *dst, bytes).unwrap_or_default();
            listener.entries.clear();
            listener.packet(entry.at, &packet);
            let (text, inside) = match listener.entries.first() {
                Some(entry) => show::one(entry),
                None => (format!("{} bytes that are no IKE", bytes.len()), Vec::new()),
            };
            json!({ "at": entry.at, "kind": "message", "src": src, "dst": dst, "bytes": bytes.len(), "text": text, "inside": inside })
        }
    }
}
