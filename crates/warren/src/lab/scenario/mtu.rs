//! Paths that carry less than the hosts' own links.

use std::net::IpAddr;
use std::time::Duration;

use super::Scenario;
use crate::lab::findings::Required;
use crate::lab::line::Lines;
use crate::lab::line::narrow::Narrow;
use crate::lab::path::{self, Datagrams, Outcome};
use crate::lab::probe::End;
use crate::lab::stage::{Stage, Stopped};

/// `mtu`
pub struct Mtu;

/// What the path carries, one after the other: a path that became wider again is not noticed for minutes.
const PATHS: [usize; 4] = [1500, 1454, 1400, 1280];
/// Payloads, in bytes; those around what the path carries are tried one by one.
const PAYLOADS: [usize; 14] =
    [1, 2, 3, 64, 512, 1000, 1200, 1600, 2000, 3000, 4500, 6000, 8972, 9000];
/// ESP in transport mode with the default suite adds 34 bytes and up to 3 that align; the device keeps room for the 8
/// of UDP, with which another peer behind a NAT may want it.
const OVERHEAD: usize = 45;
/// What a connection moves.
const BULK: usize = 8 << 20;
/// A connection that stands still for longer has stalled: two losses in a row, and their timers.
const STALL: Duration = Duration::from_millis(1500);
/// The host whose link is narrow.
const HOST: usize = 1;

impl Scenario for Mtu {
    fn name(&self) -> &'static str {
        "mtu"
    }

    fn about(&self) -> &'static str {
        "payloads of 1 to 9,000 bytes with and without DF, path MTU 1500, 1454, 1400, 1280"
    }

    fn required(&self) -> &'static str {
        "all arrive, or the sender learns the right path MTU; bulk TCP never stalls"
    }

    fn hosts(&self) -> (u16, u16, u16) {
        (2, 2, 20)
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        let router = stage.last_address();
        let narrow = Narrow::new(PATHS[0], router);
        let line = Lines::put(vec![(&stage.hosts()[HOST], narrow)])?;
        stage.begin(stage.len(), &[(0, HOST), (HOST, 0)])?;
        let wire = stage.wire();
        for mtu in PATHS {
            line.with(0, |narrow| *narrow = Narrow::new(mtu, router));
            stage.step(format!("the path carries packets of {mtu} bytes"));
            for (from, to) in [(0, HOST), (HOST, 0)] {
                one(stage, mtu, from, to)?;
            }
            let longest = line.with(0, |narrow| narrow.longest);
            let (told, pieces) = line.with(0, |narrow| (narrow.told, narrow.fragmented));
            stage.step(format!(
                "the longest packet had {longest} bytes; {told} were refused, {pieces} fragmented"
            ));
        }
        stage.no_clear("meanwhile", &wire);
        stage.quiet();
        Ok(())
    }
}

/// One direction of a path.
fn one(stage: &mut Stage<'_>, mtu: usize, from: usize, to: usize) -> Result<(), Stopped> {
    let what = format!("{mtu}, {} to {}", stage.name(from), stage.name(to));
    let (a, b) = (stage.netns(from)?, stage.netns(to)?);
    let here = End { netns: &a, address: stage.address(from) };
    let there = End { netns: &b, address: stage.address(to) };
    // First, so that the connection itself finds out what the path carries.
    let bulk = path::bulk(&here, &there, BULK)?;
    let rate = bulk.bytes as f64 / bulk.time.as_secs_f64() / 1e6;
    stage.step(format!("{what}: TCP moved {rate:.0} MB/s"));
    stage.exactly(format!("{what}: bulk TCP: bytes that arrived"), bulk.bytes, BULK as u64);
    stage.within(format!("{what}: bulk TCP: longest pause"), Some(bulk.pause), STALL);

    let sizes = sizes(mtu, here.address);
    let datagrams = Datagrams::open(&here, &there, false)?;
    let failed = sizes.iter().filter(|size| datagrams.send(**size) != Outcome::Arrived);
    let failed: Vec<_> = failed.copied().collect();
    if !failed.is_empty() {
        stage.findings.detail(format!("{what}: without DF did not arrive: {failed:?}"));
    }
    let count = sizes.len();
    stage.exactly(format!("{what}: lost of {count} sizes"), failed.len() as u64, 0);
    drop(datagrams);
    stage.go_on()?;

    let datagrams = Datagrams::open(&here, &there, true)?;
    let outcomes: Vec<_> = sizes.iter().map(|size| (*size, datagrams.send(*size))).collect();
    let believed = path::believed_mtu(&here, &there)? as usize;
    let wrong = wrong(&outcomes, believed, headers(here.address));
    if !wrong.is_empty() {
        stage.findings.detail(format!("{what}: MTU {believed} learnt; with DF: {wrong:?}"));
    }
    let text = format!("{what}: DF: neither arrived nor refused rightly, of {count}");
    stage.exactly(text, wrong.len() as u64, 0);
    let least = Required::AtLeast((mtu - OVERHEAD) as f64);
    stage.measure(format!("{what}: path MTU that the sender learns"), Some(believed as f64), least);
    Ok(())
}

/// Bytes of IP and UDP headers.
fn headers(address: IpAddr) -> usize {
    if address.is_ipv4() { 28 } else { 48 }
}

fn sizes(mtu: usize, address: IpAddr) -> Vec<usize> {
    let around = mtu - headers(address);
    let mut sizes: Vec<_> = PAYLOADS.into_iter().chain(around - 60..=around + 1).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// What fits into the MTU that the sender believes in must arrive, and what does not must be refused.
fn wrong(outcomes: &[(usize, Outcome)], mtu: usize, headers: usize) -> Vec<(usize, Outcome)> {
    let right = |size: usize| match size + headers <= mtu {
        true => Outcome::Arrived,
        false => Outcome::TooLong,
    };
    outcomes.iter().filter(|(size, outcome)| *outcome != right(*size)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_arrives_and_the_rest_is_refused() {
        use Outcome::{Arrived, Lost, TooLong};
        let good = [(1, Arrived), (1372, Arrived), (1373, TooLong), (9000, TooLong)];
        assert!(wrong(&good, 1400, 28).is_empty());
        for (size, outcome) in [(1, Lost), (1, TooLong), (1373, Arrived), (1373, Lost)] {
            assert_eq!(wrong(&[(size, outcome)], 1400, 28), [(size, outcome)]);
        }
    }

    #[test]
    fn sizes_lie_on_both_sides_of_every_limit() {
        for mtu in PATHS {
            let sizes = sizes(mtu, "10.0.0.1".parse().unwrap());
            assert!(sizes.windows(2).all(|pair| pair[0] < pair[1]));
            let limit = mtu - OVERHEAD - 28;
            assert!((limit - 5..=mtu - 27).all(|size| sizes.contains(&size)));
            assert_eq!((sizes.first(), sizes.last()), (Some(&1), Some(&9000)));
        }
    }
}
