//! Either side gets another address under a tunnel (MOBIKE, RFC 4555), and the other follows: the same SAs before and after.
//! Or the peer sends the tunnel to another gateway (RFC 5685), which it is itself: other SAs, and nothing lost.

use std::net::IpAddr;

use ipnet::IpNet;
use linux::netns::Guard;
use linux::route::{Error, Rtnl};

use super::{LONG, Said, Stage};
use crate::matrix::Place;
use crate::net::eventually;

/// Last octets of where the two go.
const OURS: u8 = 91;
const THEIRS: u8 = 92;
/// The last octet of the gateway that the peer redirects to.
pub(crate) const GATEWAY: u8 = 93;

impl Stage<'_> {
    /// Warren's host moves, and home again.
    pub(super) fn we_move(&mut self) -> Said {
        let (host, home) = (&self.net.ours, self.net.addresses.ours);
        let place = neighbour(home, OURS)?;
        let before = self.spis()?;
        on(host, |rtnl| {
            rtnl.delete_address("eth0", net(home, 24))?;
            rtnl.add_address("eth0", net(place, 24), true)
        })?;
        self.at("local", place)?;
        // What its own programs are bound to stays with the host.
        on(host, |rtnl| rtnl.add_address("lo", net(home, 32), true))?;
        self.knock()?;
        self.same(&before)
    }

    /// The peer's host moves.
    pub(super) fn they_move(&mut self) -> Said {
        let (host, home) = (&self.net.theirs, self.net.addresses.theirs);
        let place = neighbour(home, THEIRS)?;
        let before = self.spis()?;
        on(host, |rtnl| {
            rtnl.delete_address("eth0", net(home, 24))?;
            rtnl.add_address("eth0", net(place, 24), true)
        })?;
        self.at("remote", place)?;
        // Had it been there all the time, there would have been no need to move.
        on(host, |rtnl| rtnl.add_address("lo", net(home, 32), true))?;
        self.knock()?;
        self.same(&before)
    }

    /// The peer, as a gateway, sends the tunnel to its other address.
    pub(super) fn they_redirect(&mut self) -> Said {
        let place = neighbour(self.net.addresses.theirs, GATEWAY)?;
        let before = self.spis()?;
        on(&self.net.theirs, |rtnl| rtnl.add_address("eth0", net(place, 24), true))?;
        let count = self.during(|| {
            self.theirs.redirect(place)?;
            self.at("remote", place)?;
            self.settled().map(|_| ())
        })?;
        let after = self.spis()?;
        if after.iter().zip(&before).any(|(new, old)| new == old) {
            return Err(format!("{before:?}, then {after:?}"));
        }
        super::nothing_lost(&count)
    }

    /// Until Warren has the tunnel between these addresses.
    fn at(&self, end: &str, place: IpAddr) -> Result<(), String> {
        let wanted = format!("{place}:");
        let there = || {
            let peer = self.ours.peer().unwrap_or_default();
            peer["ike_sas"][0][end].as_str().is_some_and(|at| at.starts_with(&wanted))
        };
        if eventually(LONG, there) { Ok(()) } else { Err(format!("{end}: never {place}")) }
    }

    fn spis(&self) -> Result<[String; 2], String> {
        Ok([self.spi("ike_sas", "spi_i")?, self.spi("child_sas", "spi_in")?])
    }

    /// strongSwan's own ESP cannot give an SA other addresses: there the peer rekeys the child SA at once.
    fn same(&self, before: &[String; 2]) -> Said {
        self.settled()?;
        let after = self.spis()?;
        let same = if self.cell.place == Place::Native { 1 } else { 2 };
        if after[..same] == before[..same] {
            Ok(String::new())
        } else {
            Err(format!("{before:?}, then {after:?}"))
        }
    }
}

fn on(
    host: &Guard,
    change: impl FnOnce(&mut Rtnl) -> Result<(), Error> + Send,
) -> Result<(), String> {
    host.run(|| Rtnl::open().and_then(|mut rtnl| change(&mut rtnl))).map_err(|e| e.to_string())
}

pub(crate) fn neighbour(address: IpAddr, last: u8) -> Result<IpAddr, String> {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ok([a, b, c, last].into())
        }
        IpAddr::V6(_) => Err("it is played with IPv4".into()),
    }
}

fn net(address: IpAddr, length: u8) -> IpNet {
    IpNet::new_assert(address, length)
}
