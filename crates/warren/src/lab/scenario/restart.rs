//! The daemon is stopped and started, killed and started, replaced by another build.

use std::time::Duration;

use super::Scenario;
use crate::lab::findings::Required;
use crate::lab::stage::{Stage, Stopped};

/// `restart`
pub struct Restart;

/// How long there is no daemon between an end and the next start.
const DOWN: Duration = Duration::from_secs(1);
/// What follows from a restart shows within this.
const AFTER: Duration = Duration::from_secs(3);
/// The tunnels of a killed data plane have so long to come back before the scenario goes on without them.
const LONGEST: Duration = Duration::from_secs(30);
/// Every pair is back within this after a SIGKILL of the process that holds the SAs.
const BACK: Duration = Duration::from_secs(1);
/// A pair that both ends set up anew at once settles within this.
const SETTLED: Duration = Duration::from_secs(30);

/// How the daemon ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Kill,
    Replace,
}

impl Scenario for Restart {
    fn name(&self) -> &'static str {
        "restart"
    }

    fn about(&self) -> &'static str {
        "a daemon is stopped and started; killed and started; replaced by another build"
    }

    fn required(&self) -> &'static str {
        "0 lost, no handshake, control again in < 1 s; userspace after SIGKILL: all pairs back <= 1 s"
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        stage.start_all(0..stage.len())?;
        let pairs = stage.all_pairs();
        stage.talk(pairs.clone())?;
        for end in [End::Stop, End::Kill, End::Replace] {
            for host in [0, stage.len() - 1] {
                if stage.settle(&pairs, SETTLED)?.is_none() {
                    stage.exactly("pairs settled before the next restart: no, of 1", 0, 1);
                }
                once(stage, host, end)?;
            }
        }
        Ok(())
    }
}

fn once(stage: &mut Stage<'_>, host: usize, end: End) -> Result<(), Stopped> {
    let name = stage.name(host).to_owned();
    let (before, wire, from) = (stage.sas_of(host), stage.wire(), stage.now());
    let phase = match end {
        End::Stop => format!("{name} stopped and started"),
        End::Kill => format!("{name} killed and started"),
        End::Replace => format!("{name} replaced"),
    };
    stage.step(match end {
        End::Stop => format!("the daemon of {name} is stopped, and started a second later"),
        End::Kill => {
            format!("the daemon of {name} is killed (SIGKILL), and started a second later")
        }
        End::Replace => format!("the daemon of {name} is stopped, and another build started"),
    });
    match end {
        End::Kill => stage.kill_everything(host)?,
        End::Stop | End::Replace => stage.terminate(host)?,
    }
    match end {
        End::Replace => stage.replace_program(host)?,
        End::Stop | End::Kill => stage.wait(DOWN)?,
    }
    let started = stage.now();
    let control = stage.start(host)?;
    let sas: usize = before.values().map(|sas| 2 * sas.children.len()).sum();
    let what = format!("{phase}: control again, with {sas} SAs");
    stage.measure(what, Some(control.as_secs_f64()), Required::Below(1.0, "s"));
    let dies_with_it = end == End::Kill && !stage.kernel();
    if dies_with_it {
        let of = move |(a, b)| a == host || b == host;
        let back = stage.until_back(started, LONGEST, of)?;
        stage.within(format!("{phase}: every pair back"), back, BACK);
        stage.wait(AFTER)?;
        stage.no_loss(&format!("{phase}: from a second after the start"), started + BACK, of)?;
        let rest = move |(a, b): (usize, usize)| a != host && b != host;
        stage.no_loss(&format!("{phase}: pairs of others"), from, rest)?;
        let seen = stage.wire().since(&wire);
        stage.exactly(format!("{phase}: packets in the clear"), seen.clear, 0);
        stage.watched(&seen);
        return Ok(());
    }
    stage.wait(AFTER)?;
    stage.no_loss(&phase, from, |_| true)?;
    let seen = stage.wire().since(&wire);
    stage.exactly(format!("{phase}: handshake messages (IKE_SA_INIT)"), seen.handshakes, 0);
    stage.exactly(format!("{phase}: packets in the clear"), seen.clear, 0);
    stage.watched(&seen);
    let after = stage.sas_of(host);
    let same = before.iter().filter(|(pair, sas)| after.get(pair) == Some(sas)).count();
    stage.exactly(format!("{phase}: peers with the same SAs"), same as u64, before.len() as u64);
    Ok(())
}
