//! Hosts with several interfaces and addresses.

use std::net::IpAddr;
use std::time::Duration;

use super::Scenario;
use crate::lab::net::{Host, INTERFACE, Nic};
use crate::lab::probe::{End, Probe};
use crate::lab::stage::{ALL_UP, Stage, Stopped};

/// `multi-homed`
pub struct MultiHomed;

/// The network of the second interface, and of the second address of the first.
const BESIDE: [[u8; 4]; 2] = [[192, 168, 71, 0], [172, 31, 71, 0]];

impl Scenario for MultiHomed {
    fn name(&self) -> &'static str {
        "multi-homed"
    }

    fn about(&self) -> &'static str {
        "hosts with two interfaces and three addresses, of which one lies in the IPsec subnet"
    }

    fn required(&self) -> &'static str {
        "the address inside the IPsec subnet is used"
    }

    fn hosts(&self) -> (u16, u16, u16) {
        (2, 3, 40)
    }

    fn furnish(&self, hosts: &mut [Host]) {
        for (number, host) in (1..).zip(hosts) {
            let nic = |interface: &str, [a, b, c, _]: [u8; 4]| Nic {
                interface: interface.to_owned(),
                address: IpAddr::from([a, b, c, number]),
                prefix: 24,
            };
            host.more = vec![nic("eth1", BESIDE[0]), nic(INTERFACE, BESIDE[1])];
        }
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        stage.step("the daemons are not told which address is theirs");
        stage.start_all(0..stage.len())?;
        let pairs = stage.all_pairs();
        let from = stage.talk(pairs.clone())?;
        let settled = stage.settle(&pairs, ALL_UP)?.is_some();
        stage.exactly("pairs settled: yes", settled.into(), 1);
        let mut right = 0;
        for host in 0..stage.len() {
            let status = stage.status(host).unwrap_or_default();
            right += u64::from(status["node"]["address"] == stage.address(host).to_string());
        }
        stage.exactly("hosts that chose the address in the subnet", right, stage.len() as u64);
        stage.wait(Duration::from_secs(2))?;
        stage.no_loss("streams", from, |_| true)?;
        let seen = stage.wire();
        let inside = |address: &IpAddr| stage.subnet().contains(address);
        let elsewhere = seen.esp_between.keys().filter(|(src, dst)| !inside(src) || !inside(dst));
        let elsewhere = elsewhere.count() as u64;
        stage.exactly("ESP between other addresses: pairs of them", elsewhere, 0);
        stage.exactly("packets in the clear", seen.clear, 0);
        stage.watched(&seen);
        stage.quiet();
        for (which, what) in [(0, "second interface"), (1, "second address")] {
            let before = stage.wire();
            let (a, b) = (stage.netns(0)?, stage.netns(1)?);
            let end = |host: usize| stage.hosts()[host].more[which].address;
            let here = End { netns: &a, address: end(0) };
            let there = End { netns: &b, address: end(1) };
            let answered = Probe::Udp(7000).ask(&here, &there)?;
            let seen = stage.wire().since(&before);
            let clear = answered && seen.esp == 0 && seen.clear >= 2;
            stage.exactly(format!("{what}: passes as it is, both ways: yes"), clear.into(), 1);
        }
        Ok(())
    }
}
