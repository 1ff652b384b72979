//! Traffic from the moment that the interface is up, before, during and after the daemon starts, crashes and restarts.

use std::time::Duration;

use linux::route::Rtnl;

use super::Scenario;
use crate::lab::findings::Required;
use crate::lab::net::INTERFACE;
use crate::lab::probe::{End, Flood};
use crate::lab::stage::{ALL_UP, Stage, Stopped};

/// `boot-gap`
pub struct BootGap;

/// The host that boots.
const NEW: usize = 0;
/// How long each state lasts.
const STATE: Duration = Duration::from_millis(1500);

impl Scenario for BootGap {
    fn name(&self) -> &'static str {
        "boot-gap"
    }

    fn about(&self) -> &'static str {
        "a host sends from the moment that its interface is up, whatever becomes of its daemon"
    }

    fn required(&self) -> &'static str {
        "0 cleartext packets to IPsec subnets"
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        let name = stage.name(NEW).to_owned();
        interface(stage, false)?;
        stage.start_all(1..stage.len())?;
        let begin = stage.wire();
        stage.step(format!("{name}: its interface is down; the leak guard goes on"));
        stage.guard(NEW, true)?;
        let netns = stage.netns(NEW)?;
        let others: Vec<_> = (1..stage.len()).map(|host| stage.address(host)).collect();
        let end = End { netns: &netns, address: stage.address(NEW) };
        let flood = Flood::start(&end, others.clone(), INTERFACE)?;
        stage.stream(stage.all_pairs())?;
        let from = |(a, b): (usize, usize)| a == NEW || b == NEW;

        stage.step(format!("{name}: its interface is up; no daemon yet"));
        let wire = stage.wire();
        interface(stage, true)?;
        stage.wait(2 * STATE)?;
        stage.no_clear("interface up, no daemon", &wire);

        for (what, act) in [
            ("its daemon starts", Act::Start),
            ("its daemon is killed (SIGKILL)", Act::Kill),
            ("its daemon starts again", Act::Start),
            ("its daemon is stopped", Act::Stop),
            ("its daemon starts once more", Act::Start),
        ] {
            stage.step(format!("{name}: {what}"));
            let wire = stage.wire();
            match act {
                Act::Start => {
                    stage.start(NEW)?;
                    let since = stage.now();
                    let back = stage.until_back(since, ALL_UP, from)?;
                    stage.within(format!("{what}: every pair talks"), back, ALL_UP);
                }
                Act::Kill => stage.kill_everything(NEW)?,
                Act::Stop => stage.terminate(NEW)?,
            }
            stage.wait(STATE)?;
            stage.no_clear(what, &wire);
        }
        let seen = stage.wire().since(&begin);
        stage.measure("ESP on the wire", Some(seen.esp as f64), Required::AtLeast(1.0));

        // Had anything leaked, it would have been seen.
        stage.step(format!("{name}: everything of Warren's is taken away: now it is to be seen"));
        stage.flush(NEW)?;
        stage.guard(NEW, false)?;
        let wire = stage.wire();
        stage.wait(STATE)?;
        let seen = stage.wire().since(&wire);
        let leaked: u64 = seen
            .clear_flows
            .iter()
            .filter(|(flow, _)| flow.src == end.address && flow.ports.1 == 9)
            .map(|(_, count)| count)
            .sum();
        let tried = flood.finish();
        stage.measure("without Warren: in the clear", Some(leaked as f64), Required::AtLeast(1.0));
        stage.measure("packets that tried to leak", Some(tried as f64), Required::AtLeast(1000.0));
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Act {
    Start,
    Kill,
    Stop,
}

/// The host's interface goes down or up; an IPv6 address goes with it and has to be given again.
fn interface(stage: &Stage<'_>, up: bool) -> Result<(), Stopped> {
    let host = &stage.hosts()[NEW];
    let net = ipnet::IpNet::new(host.address, host.prefix).map_err(|error| error.to_string())?;
    let done = stage.netns(NEW)?.run(|| {
        let mut rtnl = Rtnl::open()?;
        rtnl.set_up(INTERFACE, up)?;
        let gone = up && !rtnl.addresses()?.iter().any(|address| address.net.addr() == net.addr());
        if gone { rtnl.add_address(INTERFACE, net, true) } else { Ok(()) }
    });
    Ok(done.map_err(|error| error.to_string())?)
}
