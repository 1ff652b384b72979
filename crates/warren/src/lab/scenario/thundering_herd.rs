//! A switch returns, and everybody initiates at one host within a second.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use linux::route::{MAIN_TABLE, Route, Rtnl};
use serde_json::json;

use super::Scenario;
use crate::args::Suite;
use crate::bench::bare::one_side;
use crate::lab::crowd::{Crowd, Echo, Plan};
use crate::lab::findings::Required;
use crate::lab::net::INTERFACE;
use crate::lab::probe::End;
use crate::lab::recipe::Recipe;
use crate::lab::stage::{ALL_UP, Sas, Stage, Stopped};

/// `thundering-herd`
pub struct ThunderingHerd;

/// All are up within this many times what the bare cryptography of one end of a handshake takes here, for each peer: there
/// are two ends, both may initiate, and all of it is done on this machine …
const FOR_EACH: u32 = 10;
/// … and this for all of them.
const FOR_ALL: Duration = Duration::from_secs(5);
/// Both ends of a pair do their work here, and both initiate …
const ENDS: u32 = 2;
const HANDSHAKES: u32 = 2;
/// … and all of it takes no longer than this: where it does, there are fewer peers than were asked for.
const AT_MOST: Duration = Duration::from_secs(10);
/// They initiate within this.
const WITHIN: Duration = Duration::from_secs(1);
/// After a burst of handshakes the C library is asked to give memory back; that is over by now.
const CALM: Duration = Duration::from_secs(40);
/// How long the switch is away: everybody gives everybody up.
const OUTAGE: Duration = Duration::from_secs(60);
/// `warren status` answers within this.
const ANSWERS: Duration = Duration::from_secs(1);
/// IKE_SA_INIT requests of a pair after the outage, both ways, on average: no more than two handshakes, each sent again
/// twice …
const REQUESTS: f64 = 6.0;
/// … and, where the work takes longer than `FOR_ALL`, again after each of these, as the timers have it.
const AGAIN: Duration = Duration::from_secs(4);
/// What a daemon may need for each peer, at most, in KiB, and for itself.
const MEMORY: (f64, f64) = (128.0, 65_536.0);
/// Peers are looked for in here.
const CROWD: [u8; 4] = [10, 100, 0, 0];
/// A manifest with one peer more is in force within this.
const RELOADED: Duration = Duration::from_secs(1);
/// That peer; nobody answers for it.
const NEWCOMER: &str = "10.100.255.254";
/// Who is run into, and who looks on.
const HOST: usize = 0;
const OTHER: usize = 1;

impl Scenario for ThunderingHerd {
    fn name(&self) -> &'static str {
        "thundering-herd"
    }

    fn about(&self) -> &'static str {
        "a switch returns and 1,000 peers initiate at one host within a second"
    }

    fn required(&self) -> &'static str {
        "no lost pair; handshakes paced; the daemon stays responsive; memory bounded; a reload touches nobody"
    }

    fn hosts(&self) -> (u16, u16, u16) {
        (3, 201, 1001)
    }

    fn real_hosts(&self, _hosts: u16) -> u16 {
        2
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        let net = Ipv4Net::new_assert(CROWD.into(), 16);
        let recipe = stage.recipe.clone().also("ipsec_subnets", json!(net));
        let recipe = recipe.with("dpddelay", json!(10));
        stage.put_manifests(&recipe)?;
        let IpAddr::V4(router) = stage.last_address() else {
            return Err(Stopped::Failed("this scenario speaks IPv4 only".into()));
        };
        let netns = stage.netns(HOST)?;
        let route = Route {
            gateway: Some(router.into()),
            ..Route::unicast(net.into(), MAIN_TABLE, INTERFACE)
        };
        netns.run(|| Rtnl::open()?.add_route(&route)).map_err(|error| error.to_string())?;
        let address = stage.address(HOST);
        let _echo = Echo::start(&End { netns: &netns, address })?;
        stage.start_all(0..stage.len())?;
        let from = stage.talk(vec![(HOST, OTHER), (OTHER, HOST)])?;
        let (alone, empty) = (stage.memory(HOST)?, stage.resident(HOST)?);
        let wire = stage.wire();

        let seed = stage.seed();
        let manifest = stage.accepted(HOST)?;
        let auth = manifest.for_host(address, &[]).map_err(|refused| refused.to_string())?.auth;
        let bare = one_side(Suite::Modp2048Rsa3072, &auth)?;
        stage.step(format!("bare cryptography of one end: {:.2} ms", bare.as_secs_f64() * 1e3));
        let peers = (stage.wanted() - 1).min(most_peers(bare));
        if peers < stage.wanted() - 1 {
            stage.step(format!("this machine cannot be {} peers at once", stage.wanted() - 1));
            stage.findings.hosts = peers + 1;
        }
        let within = FOR_ALL + bare * FOR_EACH * u32::try_from(peers).unwrap_or(u32::MAX);
        stage.step(format!("{peers} peers start within {} s", WITHIN.as_secs()));
        let first = u32::from(Ipv4Addr::from(CROWD)) + 1;
        let members = (0..).map(|n| Ipv4Addr::from(first + n)).take(peers).collect();
        let host = &stage.hosts()[HOST];
        let plan = Plan { host, router, members, manifest: &manifest, within: WITHIN, seed };
        let crowd = Crowd::enter(&plan)?;
        let mut slowest = Duration::ZERO;
        act(stage, &crowd, &mut slowest, "start", within, peers)?;
        let (begun, before) = (stage.memory(HOST)?, crowd.first_requests());
        stage.wait(CALM)?;
        let idle = stage.resident(HOST)?.saturating_sub(empty) as f64 / peers as f64;
        stage.step(format!("resident memory of each tunnel: {idle:.1} KiB"));

        stage.step(format!("the switch is away for {} s", OUTAGE.as_secs()));
        crowd.set_outage(true);
        let end = stage.now() + OUTAGE;
        while stage.now() < end {
            look(stage, &mut slowest)?;
            stage.wait(Duration::from_millis(200))?;
        }
        stage.step("the switch is back");
        crowd.set_outage(false);
        let took = act(stage, &crowd, &mut slowest, "return", within, peers)?;
        let again = (crowd.first_requests() - before) as f64 / peers as f64;
        let longer = took.saturating_sub(FOR_ALL).as_secs_f64() / AGAIN.as_secs_f64();
        let paced = Required::AtMost(REQUESTS + 2.0 * longer.floor(), "per pair");
        stage.measure("return: IKE_SA_INIT requests, on average", Some(again), paced);
        one_more(stage, &crowd, &recipe, peers)?;
        stage.within("slowest answer of `status`", Some(slowest), ANSWERS);
        let memory = stage.memory(HOST)?;
        stage.step(format!("memory: {alone} KiB, {begun} after the start, {memory} in the end"));
        let most = Required::AtMost(MEMORY.1 + MEMORY.0 * peers as f64, "KiB");
        stage.measure("memory of the daemon, most", Some(memory as f64), most);
        for wrong in crowd.wrong() {
            stage.findings.detail(wrong);
        }
        stage.exactly("what must never be, at the peers", crowd.wrong().len() as u64, 0);
        stage.exactly("packets in the clear with the peers", crowd.clear(), 0);
        stage.no_clear("meanwhile", &wire);
        stage.no_loss("another pair", from, |_| true)?;
        stage.quiet();
        Ok(())
    }
}

/// How many peers can be played here: each would have a processor of its own, and gives up after half a minute.
fn most_peers(bare: Duration) -> usize {
    let each = bare * ENDS * HANDSHAKES;
    usize::try_from(AT_MOST.as_nanos() / each.as_nanos().max(1)).unwrap_or(usize::MAX).max(1)
}

/// From now on all peers want the host: until all have heard from it, and one tunnel for each is left. Gives how long
/// the first took, at most `within`.
fn act(
    stage: &mut Stage<'_>,
    crowd: &Crowd,
    slowest: &mut Duration,
    what: &str,
    within: Duration,
    peers: usize,
) -> Result<Duration, Stopped> {
    let (since, began) = (crowd.now(), stage.now());
    let up = stage.until(within + ALL_UP, |stage| {
        let failed = look(stage, slowest).is_err();
        (failed || crowd.unanswered(since) == 0).then(|| stage.now() - began)
    })?;
    stage.within(format!("{what}: all {peers} peers talk with the host"), up, within);
    stage.exactly(format!("{what}: lost pairs"), crowd.unanswered(since) as u64, 0);
    let all = peers as u64 + 1;
    let settled = stage.until(ALL_UP, |stage| (tunnels(stage) == all).then_some(all))?;
    let settled = settled.unwrap_or_else(|| tunnels(stage));
    stage.exactly(format!("{what}: peers with one IKE SA and one child SA"), settled, all);
    Ok(up.unwrap_or(within).min(within))
}

/// A peer is added by reload: what the host has with the others is not touched.
fn one_more(
    stage: &mut Stage<'_>,
    crowd: &Crowd,
    recipe: &Recipe,
    peers: usize,
) -> Result<(), Stopped> {
    let (before, requests) = (sas_by_peer(stage), crowd.first_requests());
    stage.step(format!("a peer is added to the {peers} by reload"));
    stage.put_manifest(HOST, &recipe.clone().also("peers", json!({ "address": NEWCOMER })))?;
    let asked = Instant::now();
    stage.reload(HOST)?;
    stage.within("reload: applied", Some(asked.elapsed()), RELOADED);
    let since = crowd.now();
    let heard = stage.until(ALL_UP, |_| (crowd.unanswered(since) == 0).then_some(()))?;
    let silent = if heard.is_some() { 0 } else { crowd.unanswered(since) as u64 };
    stage.exactly("reload: peers that are not heard from after it", silent, 0);
    let after = sas_by_peer(stage);
    let same = before.iter().filter(|(peer, sas)| after.get(*peer) == Some(sas)).count();
    stage.exactly("reload: peers with the same SAs", same as u64, peers as u64 + 1);
    let begun = crowd.first_requests() - requests;
    stage.exactly("reload: IKE_SA_INIT requests of and to them", begun, 0);
    Ok(())
}

/// The SAs of the host with each peer, by their SPIs.
fn sas_by_peer(stage: &Stage<'_>) -> BTreeMap<String, Sas> {
    let mut status = stage.status(HOST).unwrap_or_default();
    let serde_json::Value::Array(peers) = status["peers"].take() else { return BTreeMap::new() };
    let address = |peer: &serde_json::Value| peer["address"].as_str().unwrap_or_default().into();
    peers.iter().map(|peer| (address(peer), Sas::of(peer))).collect()
}

/// Peers with which the host has one IKE SA and one child SA.
fn tunnels(stage: &Stage<'_>) -> u64 {
    let status = stage.status(HOST).unwrap_or_default();
    let one = |list: &serde_json::Value| list.as_array().is_some_and(|sas| sas.len() == 1);
    let peers = status["peers"].as_array().cloned().unwrap_or_default();
    peers.iter().filter(|peer| one(&peer["ike_sas"]) && one(&peer["child_sas"])).count() as u64
}

/// How long the host's daemon takes to answer.
fn look(stage: &Stage<'_>, slowest: &mut Duration) -> Result<(), Stopped> {
    let asked = Instant::now();
    let status = stage.status(HOST);
    *slowest = asked.elapsed().max(*slowest);
    status.map(drop).ok_or_else(|| Stopped::Failed("the daemon does not answer".into()))
}
