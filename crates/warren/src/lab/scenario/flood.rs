//! A stranger floods one host with first requests, and with old and damaged packets of every kind.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use sim::dice::Dice;

use super::Scenario;
use crate::lab::attacker::{Attack, Attacker, Running, Sent};
use crate::lab::findings::Required;
use crate::lab::stage::{ALL_UP, Stage, Stopped};
use crate::lab::streams::Pair;

/// `flood`
pub struct Flood;

/// How long it goes on before the handshake, and after it.
const BEFORE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(5);
/// A handshake in the middle of it is done within this.
const DONE: Duration = Duration::from_secs(10);
/// `warren status` answers within this.
const ANSWERS: Duration = Duration::from_secs(1);
/// Who is flooded.
const VICTIM: usize = 0;

impl Scenario for Flood {
    fn name(&self) -> &'static str {
        "flood"
    }

    fn about(&self) -> &'static str {
        "spoofed IKE_SA_INITs as fast as one core can send them; malformed and replayed packets"
    }

    fn required(&self) -> &'static str {
        "established traffic unharmed; a legitimate handshake completes"
    }

    fn hosts(&self) -> (u16, u16, u16) {
        (4, 4, 20)
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        let seed = stage.seed();
        let nobody = nobody(stage);
        let dice = Dice::new(seed, "stranger");
        let late = stage.len() - 2;
        // A host without a daemon would answer in the clear what is sent to it because of its stolen address.
        let mut attacker = Attacker::enter(&stage.hosts()[..late], VICTIM, &nobody, dice)?;
        let among = move |(a, b): Pair| a < late && b < late;
        let pairs: Vec<Pair> = stage.all_pairs().into_iter().filter(|pair| among(*pair)).collect();
        stage.begin(late, &pairs)?;
        let (before, wire) = (stage.all_sas(), stage.wire());
        let known = attacker.learn()?;
        stage.step(format!("a stranger has heard {known} packets"));

        for (number, attack, what) in [
            (0, Attack::FirstRequests, "spoofed IKE_SA_INITs"),
            (1, Attack::DamagedAndOld, "damaged and old packets"),
        ] {
            let from = stage.now();
            stage.step(format!("{what}, as fast as they can be sent"));
            let running = attacker.begin(attack);
            let (returned, sent) = one(stage, running, late + number, what)?;
            attacker = returned;
            let text = format!("{what}: sent a second");
            stage.measure(text, Some(sent.rate()), Required::AtLeast(1.0));
            stage.no_loss(&format!("{what}: established pairs"), from, among)?;
        }
        let after = stage.all_sas();
        let changed = before.iter().filter(|(pair, _)| among(**pair));
        let changed = changed.filter(|(pair, sas)| after.get(pair) != Some(sas)).count();
        stage.exactly("established pairs whose SAs are not the same", changed as u64, 0);
        stage.no_clear("meanwhile", &wire);
        Ok(())
    }
}

/// An attack, and an honest handshake in the middle of it.
fn one(
    stage: &mut Stage<'_>,
    running: Running,
    newcomer: usize,
    what: &str,
) -> Result<(Attacker, Sent), Stopped> {
    let mut slowest = watch(stage, BEFORE)?;
    stage.start(newcomer)?;
    let (name, asked) = (stage.name(newcomer).to_owned(), stage.now());
    stage.step(format!("{name} joins, and talks with {}", stage.name(VICTIM)));
    stage.more_streams(vec![(newcomer, VICTIM), (VICTIM, newcomer)]);
    let new = move |(a, b): Pair| a == newcomer || b == newcomer;
    let joined = stage.until_back(asked, ALL_UP, new)?;
    stage.within(format!("{what}: an honest handshake, with traffic both ways"), joined, DONE);
    slowest = slowest.max(watch(stage, AFTER)?);
    stage.within(format!("{what}: slowest answer of `status`"), Some(slowest), ANSWERS);
    Ok(running.finish()?)
}

/// How long the victim's daemon took to answer, at most.
fn watch(stage: &Stage<'_>, time: Duration) -> Result<Duration, Stopped> {
    let (end, mut slowest) = (stage.now() + time, Duration::ZERO);
    while stage.now() < end {
        let asked = Instant::now();
        if stage.status(VICTIM).is_none() {
            return Err(Stopped::Failed("the flooded daemon does not answer".into()));
        }
        slowest = slowest.max(asked.elapsed());
        stage.wait(Duration::from_millis(100))?;
    }
    Ok(slowest)
}

/// Addresses of the subnet that no host has.
fn nobody(stage: &Stage<'_>) -> Vec<IpAddr> {
    let taken = |address: &IpAddr| stage.hosts().iter().any(|host| host.address == *address);
    stage.subnet().hosts().filter(|address| !taken(address)).take(1000).collect()
}
