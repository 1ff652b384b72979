//! One cell, played for real: what must work, step by step.

pub(crate) mod moves;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use linux::netns::Netns;
use serde::{Deserialize, Serialize};

use crate::daemon::{Daemon, Sas};
use crate::libreswan::Libreswan;
use crate::matrix::{Auth, Cell, Initiator, Mode, Place, Play};
use crate::net::{Addresses, Net, eventually};
use crate::strongswan::StrongSwan;
use crate::traffic::{self, Count, Echo, Stream};
use crate::warren::Warren;
use crate::wire::{Seen, Watch};

/// For what takes a handshake, in a slow machine that does other things too.
const LONG: Duration = Duration::from_secs(60);
/// A second IKE SA is gone after this.
const CALM: Duration = Duration::from_secs(12);

/// Of a stream, at least so many.
const ENOUGH: usize = 100;

/// Packets of SAs that Warren's kernel did not have, or was just about to make valid: the peer has used them too early.
const EARLY: &[&str] = &["ours/XfrmInNoStates", "ours/XfrmInStateInvalid"];
/// Packets that the peer's kernel gave to an SA just as the peer took it away, by its kernel's count: strongSwan, as the responder of a
/// rekey, seems to begin to send through the new SA when the old one is deleted, which a packet may be on its way through.
const TAKEN: &[&str] = &["theirs/XfrmOutStateInvalid"];
/// Packets of half-made SAs that reached the peer, by its kernel's count: it seems to use one, as the initiator of a rekey, before it
/// can receive on it.
const HALF: &[&str] = &["theirs/XfrmAcquireError"];
/// Packets of unknown SAs that reached the peer: it has deleted one before Warren knew.
const LATE: &[&str] = &["theirs/XfrmInNoStates"];

/// What a cell did.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Its place in the table.
    pub number: usize,
    /// Steps that worked, in order, with what they measured.
    pub done: Vec<String>,
    /// The step that did not, and why.
    pub failed: Option<String>,
    /// Both logs, where it failed.
    pub logs: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

/// Plays a cell on hosts of its own.
pub fn run(number: usize, cell: &Cell, pki: &Path) -> Outcome {
    let started = Instant::now();
    let (mut done, mut logs) = (Vec::new(), None);
    let failed = play(number, cell, pki, &mut done, &mut logs).err();
    Outcome { number, done, failed, logs, seconds: started.elapsed().as_secs_f64() }
}

fn play(
    number: usize,
    cell: &Cell,
    pki: &Path,
    done: &mut Vec<String>,
    logs: &mut Option<String>,
) -> Result<(), String> {
    let net = Net::new(cell, number)?;
    let watch = Watch::start(&net.between)?;
    let theirs: Box<dyn Daemon + '_> = if cell.peer.is_strongswan() {
        Box::new(StrongSwan::start(&net, cell, pki)?)
    } else {
        Box::new(Libreswan::start(&net, cell, pki)?)
    };
    let ours = Warren::start(&net, cell, pki)?;
    let echoes = (
        Echo::start(&net.ours, net.addresses.ours)?,
        Echo::start(&net.theirs, net.addresses.theirs)?,
    );
    let mut stage = Stage { cell, net: &net, ours, theirs, quiet: BTreeMap::new() };
    let played = stage.all(done);
    if played.is_err() {
        *logs = Some(format!(
            "--- {}\n{}\n{}\n--- Warren\n{}\n{}",
            cell.peer.folder(),
            stage.theirs.log(),
            kernel(&net, &net.theirs),
            stage.ours.log(),
            kernel(&net, &net.ours),
        ));
    }
    played?;
    drop(echoes);
    let seen = watch.finish()?;
    done.push(format!("wire ({})", judge(cell, &seen)?));
    Ok(())
}

/// What a host's kernel has of SAs and policies.
fn kernel(net: &Net, host: &Netns) -> String {
    let list = |what: &[&str]| match net.on(host, "ip", what) {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => error,
    };
    let states = list(&["-statistics", "xfrm", "state", "list", "nokeys"]);
    states + &list(&["xfrm", "policy", "list", "nosock"])
}

/// Only ESP and IKE between the hosts, in the form that belongs to the cell.
fn judge(cell: &Cell, seen: &Seen) -> Result<String, String> {
    let in_udp = cell.nat().is_some() || cell.place == Place::Native;
    let (right, wrong) =
        if in_udp { (seen.esp_in_udp, seen.esp) } else { (seen.esp, seen.esp_in_udp) };
    // While the peer's host is without its daemon, it is without its policies too.
    let clear = seen.our_clear + if cell.play == Play::Dead { 0 } else { seen.their_clear };
    if clear > 0 {
        return Err(format!("wire: {clear} packets in the clear: {seen:?}"));
    }
    if right < 40 || wrong > 0 || seen.missed > 0 {
        return Err(format!("wire: not what was expected: {seen:?}"));
    }
    // Certificates make IKE_AUTH longer than a packet should be.
    if matches!(cell.auth, Auth::Rsa | Auth::Chain)
        && (seen.our_fragments == 0 || seen.their_fragments == 0)
    {
        return Err(format!("wire: IKE_AUTH did not go in fragments both ways: {seen:?}"));
    }
    if cell.auth == Auth::Chain && seen.pieces > 0 {
        return Err(format!("wire: {} pieces of IP datagrams", seen.pieces));
    }
    Ok(format!("{right} ESP, {} IKE, 0 clear", seen.ike))
}

/// Of counters, so many in all.
fn sum(counters: &BTreeMap<String, u64>, names: &[&str]) -> u64 {
    names.iter().filter_map(|name| counters.get(*name)).sum()
}

/// Of one thing that must work: what it measured, or why not.
type Said = Result<String, String>;

/// A step and its name.
type Step<S> = (&'static str, fn(&mut S) -> Said);

fn nothing_lost(count: &Count) -> Said {
    traffic::nothing_lost(count).map(|()| format!("0 of {} lost", count.sent))
}

/// Every packet that was lost is among `excused`.
fn lost_only(count: &Count, excused: u64, why: &str) -> Said {
    match (count.sent - count.answered) as u64 {
        0 => nothing_lost(count),
        lost if lost <= excused => Ok(format!("{lost} of {} lost, all {why}", count.sent)),
        _ => traffic::nothing_lost(count)
            .map_err(|error| format!("{error}; {excused} were {why}"))
            .map(|()| String::new()),
    }
}

struct Stage<'a> {
    cell: &'a Cell,
    net: &'a Net,
    ours: Warren<'a>,
    theirs: Box<dyn Daemon + 'a>,
    /// The kernels' error counters when the tunnel was up.
    quiet: BTreeMap<String, u64>,
}

impl Stage<'_> {
    fn all(&mut self, done: &mut Vec<String>) -> Result<(), String> {
        let whole: &[Step<Self>] = &[
            ("up", Self::up),
            ("traffic", Self::traffic),
            ("TCP", Self::tcp),
            ("child rekey by the peer", Self::their_child_rekey),
            ("IKE rekey by the peer", Self::their_ike_rekey),
            ("both rekeys by Warren", Self::our_rekey),
            ("no errors counted", Self::no_errors),
            ("delete by the peer, up again", Self::their_delete),
            ("delete by Warren, up again", Self::our_delete),
        ];
        let reauth: &[Step<Self>] =
            &[("up", Self::up), ("traffic", Self::traffic), ("reauthentication", Self::reauth)];
        let dead: &[Step<Self>] = &[
            ("up", Self::up),
            ("traffic", Self::traffic),
            ("the peer dies and comes back", Self::dead),
        ];
        let moves: &[Step<Self>] = &[
            ("up", Self::up),
            ("traffic", Self::traffic),
            ("Warren moves", Self::we_move),
            ("the peer moves", Self::they_move),
            ("traffic", Self::traffic),
            ("child rekey by the peer", Self::their_child_rekey),
            ("IKE rekey by the peer", Self::their_ike_rekey),
            ("both rekeys by Warren", Self::our_rekey),
        ];
        let redirect: &[Step<Self>] = &[
            ("up", Self::up),
            ("traffic", Self::traffic),
            ("the peer redirects", Self::they_redirect),
            ("traffic", Self::traffic),
            ("child rekey by the peer", Self::their_child_rekey),
            ("IKE rekey by the peer", Self::their_ike_rekey),
            ("both rekeys by Warren", Self::our_rekey),
        ];
        let steps = match self.cell.play {
            Play::Whole | Play::With(_) => whole,
            // Whoever is outside cannot begin.
            Play::Nat(_) => &whole[..7],
            Play::Reauth => reauth,
            Play::Dead => dead,
            Play::Move => moves,
            Play::Redirect => redirect,
        };
        for (name, step) in steps {
            let before = self.counters().unwrap_or_default();
            let said = step(self).map_err(|error| {
                let counted = self.more(&before).unwrap_or_default().join(", ");
                format!("{name}: {error}{}{counted}", if counted.is_empty() { "" } else { "; " })
            })?;
            done.push(if said.is_empty() {
                (*name).to_owned()
            } else {
                format!("{name} ({said})")
            });
        }
        Ok(())
    }

    fn up(&mut self) -> Said {
        match self.cell.initiator {
            Initiator::Peer => self.theirs.initiate()?,
            Initiator::Warren => self.first_packet()?,
            Initiator::Both => {
                let ours = &self.ours;
                std::thread::scope(|scope| {
                    let ours = scope.spawn(|| ours.tell("up"));
                    let theirs = self.theirs.begin();
                    ours.join().map_err(|_| "broke down".to_owned())?.and(theirs)
                })?;
            }
        }
        let mut said = self.settled()?;
        self.knock()?;
        if self.cell.initiator == Initiator::Both {
            said = self.calm()?;
        }
        self.quiet = self.counters()?;
        Ok(said)
    }

    /// One IKE SA and one child SA, and the same ones for [`CALM`]: where both initiate one side closes what is too
    /// much, and a peer that wants that very one builds it anew.
    fn calm(&self) -> Said {
        let spis = || self.ours.peer().map(|peer| peer["ike_sas"].clone()).unwrap_or_default();
        for _ in 0..3 {
            self.settled()?;
            let before = spis();
            std::thread::sleep(CALM);
            self.settled()?;
            if spis()[0]["spi_i"] == before[0]["spi_i"] {
                return Ok(String::new());
            }
        }
        Err("the IKE SA changes all the time".into())
    }

    /// With Warren's own data plane the very first packet waits for the SA. A kernel drops it, and what follows
    /// until then.
    fn first_packet(&self) -> Result<(), String> {
        let Addresses { ours, theirs_seen, .. } = self.net.addresses;
        let every =
            if self.cell.place == Place::Native { LONG } else { Duration::from_millis(200) };
        traffic::knock(&self.net.ours, ours, theirs_seen, every, LONG).map(|_| ())
    }

    /// Until packets pass both ways.
    fn knock(&self) -> Result<(), String> {
        let Addresses { ours, theirs, ours_seen, theirs_seen } = self.net.addresses;
        let every = Duration::from_millis(200);
        traffic::knock(&self.net.ours, ours, theirs_seen, every, LONG)?;
        traffic::knock(
            &self.net.theirs,
            theirs,
            self.seen_from_there(ours_seen, ours),
            every,
            LONG,
        )?;
        Ok(())
    }

    /// Through a NAT, a tunnel leads to the inner address, transport mode to what the NAT makes of it.
    fn seen_from_there(&self, seen: std::net::IpAddr, inner: std::net::IpAddr) -> std::net::IpAddr {
        if self.cell.mode == Mode::Tunnel { inner } else { seen }
    }

    /// One IKE SA and one child SA on both sides.
    fn settled(&self) -> Said {
        let mut seen = String::new();
        let one = eventually(LONG, || {
            let theirs = self.theirs.sas().unwrap_or_default();
            let peer = self.ours.peer().unwrap_or_default();
            let count = |key: &str| peer[key].as_array().map_or(0, Vec::len);
            seen = format!(
                "the peer has {theirs:?}, Warren {} and {} and calls the peer {}: {}",
                count("ike_sas"),
                count("child_sas"),
                peer["state"],
                peer["last_error"]
            );
            theirs == Sas { ike: 1, children: 1 }
                && (count("ike_sas"), count("child_sas")) == (1, 1)
                && peer["state"] == "up"
        });
        if one {
            Ok(String::new())
        } else {
            Err(format!("not one IKE SA and one child SA on both sides: {seen}"))
        }
    }

    fn traffic(&mut self) -> Said {
        let Addresses { ours, theirs, ours_seen, theirs_seen } = self.net.addresses;
        traffic::all(&self.net.ours, ours, theirs_seen, 20)?;
        traffic::all(&self.net.theirs, theirs, self.seen_from_there(ours_seen, ours), 20)?;
        Ok("40 of 40, both ways".into())
    }

    fn tcp(&mut self) -> Said {
        let megabytes = if self.cell.place == Place::Native { 100 } else { 1 };
        let Addresses { theirs, theirs_seen, .. } = self.net.addresses;
        // Behind a NAT for datagrams alone there is no way in for a connection but the tunnel.
        traffic::tcp(
            &self.net.ours,
            &self.net.theirs,
            (theirs, theirs_seen),
            megabytes << 20,
            LONG,
        )?;
        Ok(format!("{megabytes} MB"))
    }

    /// As the responder, Warren sends with the new keys once it has received something with them: that assures it that
    /// the initiator can receive (RFC 7296 2.8). libreswan makes its outbound SA first.
    fn their_child_rekey(&mut self) -> Said {
        let before = self.counted(HALF)?;
        let count = self.rekeyed("child_sas", "spi_in", &|| self.theirs.rekey_child())?;
        if self.cell.peer.is_strongswan() {
            return nothing_lost(&count);
        }
        self.excused(&count, HALF, before, "sent on what the peer used before it could receive")
    }

    fn their_ike_rekey(&mut self) -> Said {
        nothing_lost(&self.rekeyed("ike_sas", "spi_i", &|| self.theirs.rekey_ike())?)
    }

    /// As the initiator, Warren has the new keys only with the response. A responder may send with them before that
    /// (RFC 7296 2.8); strongSwan waits for the old SA's end, libreswan does not. What is lost so, and nothing else, is excused.
    fn our_rekey(&mut self) -> Said {
        let ike = self.spi("ike_sas", "spi_i")?;
        let (counters, why) = match self.cell.peer.is_strongswan() {
            true => (TAKEN, "given to the old SA as the peer took it away"),
            false => (EARLY, "sent by the peer too early"),
        };
        let before = self.counted(counters)?;
        let count = self.rekeyed("child_sas", "spi_in", &|| self.ours.tell("rekey"))?;
        if self.spi("ike_sas", "spi_i")? == ike {
            return Err("the IKE SA is still the same".into());
        }
        self.excused(&count, counters, before, why)
    }

    /// What the peer made be lost, and counters of the kernel say so, is excused.
    fn excused(&mut self, count: &Count, counters: &[&str], before: u64, why: &str) -> Said {
        let now = self.counters()?;
        let known = |name: &&str| Some(((*name).to_owned(), *now.get(*name)?));
        self.quiet.extend(counters.iter().filter_map(known));
        lost_only(count, sum(&now, counters) - before, why)
    }

    fn counted(&self, names: &[&str]) -> Result<u64, String> {
        Ok(sum(&self.counters()?, names))
    }

    /// A stream runs across the rekey, and the SPIs must change.
    fn rekeyed(
        &self,
        what: &str,
        spi: &str,
        rekey: &dyn Fn() -> Result<(), String>,
    ) -> Result<Count, String> {
        let before = self.spi(what, spi)?;
        self.during(|| {
            rekey()?;
            let changed = || self.spi(what, spi).is_ok_and(|now| now != before);
            if eventually(LONG, changed) {
                self.settled().map(|_| ())
            } else {
                Err("no new SPI".into())
            }
        })
    }

    fn during(&self, act: impl FnOnce() -> Result<(), String>) -> Result<Count, String> {
        let Addresses { ours, theirs_seen, .. } = self.net.addresses;
        let stream = Stream::start(&self.net.ours, ours, theirs_seen)?;
        let acted = act();
        let count = stream.finish(ENOUGH);
        acted.and(count)
    }

    /// An SPI of the only SA, as Warren knows it.
    fn spi(&self, what: &str, spi: &str) -> Result<String, String> {
        let peer = self.ours.peer()?;
        let all: Vec<&str> =
            peer[what].as_array().into_iter().flatten().filter_map(|sa| sa[spi].as_str()).collect();
        match all[..] {
            [one] => Ok(one.to_owned()),
            _ => Err(format!("{} {what}", all.len())),
        }
    }

    fn no_errors(&mut self) -> Said {
        let more = self.more(&self.quiet)?;
        if more.is_empty() { Ok(String::new()) } else { Err(more.join(", ")) }
    }

    /// What the kernels have counted since `before`.
    fn more(&self, before: &BTreeMap<String, u64>) -> Result<Vec<String>, String> {
        let now = self.counters()?;
        let old = |name: &str| before.get(name).copied().unwrap_or(0);
        let grown = now.iter().filter(|(name, count)| old(name) != **count);
        Ok(grown.map(|(name, count)| format!("{name} {} -> {count}", old(name))).collect())
    }

    /// The kernels' counters of packets dropped by XFRM, under `ours/` and `theirs/`.
    fn counters(&self) -> Result<BTreeMap<String, u64>, String> {
        let mut all = BTreeMap::new();
        if self.cell.place == Place::Native {
            return Ok(all);
        }
        for (side, host) in [("ours", &self.net.ours), ("theirs", &self.net.theirs)] {
            let text = host.run(|| std::fs::read_to_string("/proc/thread-self/net/xfrm_stat"));
            for line in text.map_err(|error| format!("xfrm_stat: {error}"))?.lines() {
                if let Some((name, count)) = line.split_once(char::is_whitespace) {
                    all.insert(format!("{side}/{name}"), count.trim().parse().unwrap_or(0));
                }
            }
        }
        if all.is_empty() { Err("xfrm_stat is empty".into()) } else { Ok(all) }
    }

    fn their_delete(&mut self) -> Said {
        let old = self.spi("child_sas", "spi_in")?;
        self.theirs.terminate()?;
        // What is sent before Warren has heard of it is lost.
        if !eventually(LONG, || {
            self.spi("child_sas", "spi_in").is_ok_and(|spi| spi != old) || self.has_none()
        }) {
            return Err("Warren still has the child SA".into());
        }
        self.first_packet()?;
        self.settled()
    }

    fn has_none(&self) -> bool {
        self.ours.peer().is_ok_and(|peer| peer["child_sas"].as_array().is_none_or(Vec::is_empty))
    }

    fn our_delete(&mut self) -> Said {
        self.ours.tell("down")?;
        let gone = eventually(LONG, || self.theirs.sas().is_ok_and(|sas| sas == Sas::default()));
        if !gone {
            return Err("the peer still has SAs after `warren down`".into());
        }
        self.ours.tell("up")?;
        self.settled()?;
        self.knock()?;
        Ok(String::new())
    }

    /// Three times a new IKE SA that is authenticated anew. A peer that makes before it breaks deletes the old SAs at
    /// once; what Warren had sent on them by then, and nothing else, is excused. One that breaks first loses more.
    fn reauth(&mut self) -> Said {
        let mut seen = vec![self.spi("ike_sas", "spi_i")?];
        let before = self.counted(LATE)?;
        let count = self.during(|| {
            let often = eventually(2 * LONG, || {
                if let Ok(now) = self.spi("ike_sas", "spi_i")
                    && !seen.contains(&now)
                {
                    seen.push(now);
                }
                seen.len() > 3
            });
            if often {
                self.settled().map(|_| ())
            } else {
                Err(format!("IKE SAs in two minutes: {seen:?}"))
            }
        })?;
        self.knock()?;
        let gone = self.counted(LATE)? - before;
        if self.cell.peer.is_strongswan() {
            return lost_only(&count, gone, "sent on what the peer had just deleted");
        }
        Ok(format!(
            "{} of {} lost, longest gap {:.1} s",
            count.sent - count.answered,
            count.sent,
            count.gap.as_secs_f64()
        ))
    }

    fn dead(&mut self) -> Said {
        self.theirs.reboot()?;
        let back = Instant::now();
        self.first_packet()?;
        let seconds = back.elapsed().as_secs_f64();
        self.settled()?;
        self.knock()?;
        Ok(format!("traffic {seconds:.1} s after it is back"))
    }
}
