//! Pairs of which one half is deaf: this host sends, and nothing comes back.
//!
//! That may be how the applications talk, or the peer lost what it hears us by. The peer is asked over
//! the IKE SA. If it does not answer, it is dead, and is found to be so without waiting for the next
//! liveness check. If it answers that it does not hold a child SA, `ike` takes that one down, and it is made
//! again. If it holds it and still hears nothing, the child SA is replaced once; and if that does not
//! help, ESP does not pass where IKE does, which the operator must know.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ike::{ChildId, IkeSaId, Now};

use super::Mesh;
use crate::event::{Kind, Level};
use crate::peer::Trouble;
use crate::status::Verdict;

/// Between two questions to one peer.
const ASK_EVERY: Duration = Duration::from_millis(1500);
/// A deaf child SA is replaced at most once in this time.
const REPLACE_EVERY: Duration = Duration::from_secs(30);
/// Packets that must have been sent in vain before a child SA is deaf: one may get lost.
const IN_VAIN: u64 = 4;

impl Mesh {
    /// Since the last look these peers were sent packets, and nothing verified came from them.
    pub(super) fn ask(&mut self, now: Now, silent: BTreeSet<IpAddr>) {
        for address in silent {
            let Some(peer) = self.peers.get(address) else { continue };
            let Some(ike) = peer.keeper().filter(|_| peer.flowing()) else { continue };
            let due = peer.asked_at.is_none_or(|at| now.at.since(at) >= ASK_EVERY);
            if !due || !self.questions.take(now.at) {
                continue;
            }
            if let Some(peer) = self.peers.get_mut(address) {
                peer.asked_at = Some(now.at);
            }
            // Refused while it is on its way down.
            let _ = self.endpoint.probe(now, ike);
        }
    }

    /// What the peer received through child SAs, by its own word.
    pub(super) fn compared(&mut self, now: Now, ike: IkeSaId, received: &[(ChildId, u64)]) {
        let Some(address) = self.ikes.get(&ike).copied() else { return };
        let Some(peer) = self.peers.get_mut(address) else { return };
        let (mut deaf, mut hears) = (None, false);
        for child in &mut peer.children {
            let Some((_, packets)) = received.iter().find(|(id, _)| *id == child.id) else {
                continue;
            };
            let sent = child.usage.packets_out;
            if let Some((sent_then, packets_then)) = child.told {
                hears |= *packets > packets_then;
                // What was sent before the question before this one has come through, or never will.
                let in_vain = *packets == packets_then && child.asked_sent >= sent_then + IN_VAIN;
                deaf = deaf.or(in_vain.then_some(child.id));
            }
            if child.told.is_none_or(|(_, then)| then != *packets) {
                child.told = Some((sent, *packets));
            }
            child.asked_sent = sent;
        }
        if let Some(child) = deaf {
            self.deaf(now, address, child);
        } else if hears && peer.muffled {
            peer.muffled = false;
            peer.trouble = None;
        }
    }

    fn deaf(&mut self, now: Now, address: IpAddr, child: ChildId) {
        let Some(peer) = self.peers.get_mut(address) else { return };
        let lately = peer.replaced_at.is_some_and(|at| now.at.since(at) < REPLACE_EVERY);
        for child in &mut peer.children {
            (child.told, child.asked_sent) = (None, 0);
        }
        if !lately {
            peer.replaced_at = Some(now.at);
            let text =
                "packets go to the peer and none arrives, though it holds the SA; replacing it";
            self.report(now, Level::Warn, Some(address), Kind::Drift, text);
            // Refused while one is under way already.
            let _ = self.endpoint.rekey_child(now, child);
            return;
        }
        let text = "IKE passes and ESP does not: something on the way drops IP protocol 50 \
                    (or UDP port 4500); let it pass, or try `force_udp_encapsulation: true`";
        if !std::mem::replace(&mut peer.muffled, true) {
            let verdict = Verdict::IpsecBroken;
            peer.trouble = Some(Trouble { text: text.into(), verdict, at: now.at });
            self.report(now, Level::Error, Some(address), Kind::Drift, text);
        }
    }
}
