//! One host is behind a NAT, whose mappings expire and change.

use std::time::Duration;

use super::Scenario;
use crate::lab::line::Lines;
use crate::lab::line::nat::Nat as Translator;
use crate::lab::stage::{ALL_UP, Stage, Stopped};
use crate::lab::streams::Pair;

/// `nat`
pub struct Nat;

/// A mapping lives so long without a packet from inside (RFC 4787 asks for more; many give no more).
const PATIENCE: Duration = Duration::from_secs(30);
/// Nobody sends for so long.
const SILENCE: Duration = Duration::from_secs(70);
/// Traffic flows both ways within this after a mapping changed.
const BACK: Duration = Duration::from_secs(3);
/// How long is looked at what comes after.
const AFTER: Duration = Duration::from_secs(3);
const CHANGES: u32 = 3;
/// The same where nobody inside sends: until the host asks by itself, with the next of its keepalives.
const FOUND: Duration = Duration::from_secs(25);
/// The host behind it.
const HOST: usize = 0;

impl Scenario for Nat {
    fn name(&self) -> &'static str {
        "nat"
    }

    fn about(&self) -> &'static str {
        "one host behind a NAT, with mappings that expire and change"
    }

    fn required(&self) -> &'static str {
        "UDP encapsulation; traffic survives the mapping change"
    }

    fn hosts(&self) -> (u16, u16, u16) {
        (2, 4, 40)
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        let line = Lines::put(vec![(&stage.hosts()[HOST], Translator::new(PATIENCE))])?;
        let pairs = stage.all_pairs();
        stage.begin(stage.len(), &pairs)?;
        let (wire, from) = (stage.wire(), stage.now());
        encapsulated(stage);
        stage.step(format!(
            "nobody sends for {} s; a mapping lives {} s",
            SILENCE.as_secs(),
            PATIENCE.as_secs()
        ));
        stage.mute(|_| true);
        stage.wait(SILENCE)?;
        stage.step("only the others send");
        stage.mute(|(from, _)| from == HOST);
        stage.wait(AFTER)?;
        stage.mute(|_| false);
        stage.wait(AFTER)?;
        stage.no_loss("mappings are kept", from, |_| true)?;
        for _ in 0..CHANGES {
            change(stage, &line)?;
        }
        change_in_silence(stage, &line)?;
        let settled = stage.settle(&pairs, ALL_UP)?.is_some();
        stage.exactly("one tunnel per pair in the end: yes", settled.into(), 1);
        let seen = stage.wire().since(&wire);
        stage.exactly("handshake messages (IKE_SA_INIT)", seen.handshakes, 0);
        let (bare, unasked, passed) = line.with(0, |nat| (nat.bare_esp, nat.unasked, nat.passed));
        stage.exactly("ESP at the NAT that is not in UDP", bare, 0);
        stage.step(format!(
            "the NAT passed {passed} datagrams, and refused {unasked} that nobody inside asked for"
        ));
        stage.no_clear("meanwhile", &wire);
        stage.quiet();
        Ok(())
    }
}

/// Whether ESP goes in UDP between that host and every other; and on the kernel's plane with no others. Userspace planes use
/// it by agreement too.
fn encapsulated(stage: &mut Stage<'_>) {
    let kernel = stage.kernel();
    let mut right = 0;
    for host in 0..stage.len() {
        for (peer, status) in stage.peers(host) {
            let wanted = host == HOST || peer == HOST;
            if kernel || wanted {
                let sas = status["child_sas"].as_array().cloned().unwrap_or_default();
                right += u64::from(!sas.is_empty() && sas.iter().all(|sa| sa["encap"] == wanted));
            }
        }
    }
    let (others, all) = match kernel {
        true => (", and with no other", stage.all_pairs().len()),
        false => ("", 2 * (stage.len() - 1)),
    };
    stage.exactly(format!("ESP in UDP with that host{others}: directions"), right, all as u64);
}

/// The NAT starts anew: every mapping is another.
fn change(stage: &mut Stage<'_>, line: &Lines<Translator>) -> Result<(), Stopped> {
    let with = |(a, b): Pair| a == HOST || b == HOST;
    stage.step("all mappings change");
    let since = stage.now();
    line.with(0, Translator::restart);
    let back = stage.until_back(since, ALL_UP, with)?;
    stage.within("a mapping changed: traffic both ways again", back, BACK);
    stage.wait((since + BACK).saturating_sub(stage.now()) + AFTER)?;
    stage.no_loss("a mapping changed: 3 s later", since + BACK, with)?;
    stage.no_loss("a mapping changed: pairs of others", since, |pair| !with(pair))
}

/// The same while nobody inside sends: only the host's own questions can show the others the new mapping.
fn change_in_silence(stage: &mut Stage<'_>, line: &Lines<Translator>) -> Result<(), Stopped> {
    let to = |(_, b): Pair| b == HOST;
    stage.step("all mappings change while nobody inside sends");
    stage.mute(|(from, _)| from == HOST);
    stage.wait(AFTER)?;
    let since = stage.now();
    line.with(0, Translator::restart);
    let back = stage.until_back(since, ALL_UP, to)?;
    stage.within("a mapping changed, nobody inside sends: traffic again", back, FOUND);
    stage.mute(|_| false);
    stage.wait(AFTER)?;
    let from = stage.now();
    stage.wait(AFTER)?;
    stage.no_loss("in the end", from, |_| true)
}
