//! Namespaces for tests: made under names of their own, gone when the test ends, however it ends.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::UdpSocket;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use linux::netns::Guard;
use linux::route::{NewLink, Rtnl};

/// Whether tests that need root can run; says so aloud if not.
pub fn root() -> bool {
    let root = nix::unistd::geteuid().is_root() && linux::sandbox::privileges().is_ok();
    if !root {
        eprintln!("SKIPPED: 1 test needs root (network namespaces)");
    }
    root
}

/// A namespace with a name that nobody else has.
pub fn namespace() -> Guard {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("wt-linux-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let netns = Guard::create(&name).unwrap();
    for family in ["all", "default"] {
        netns.sysctl(&format!("net/ipv6/conf/{family}/accept_dad"), "0").unwrap();
        netns.sysctl(&format!("net/ipv4/conf/{family}/rp_filter"), "0").unwrap();
    }
    netns
}

/// Two hosts with one wire between them: `eth0` at both ends, addresses .1 and .2 of 10.9.0.0/24 and fd09::/64.
pub struct Pair {
    pub a: Guard,
    pub b: Guard,
}

impl Pair {
    pub fn new() -> Self {
        let (a, b) = (namespace(), namespace());
        a.run(|| {
            let mut rtnl = Rtnl::open().unwrap();
            rtnl.create_link("eth0", NewLink::Veth { peer: "peer" }).unwrap();
            rtnl.move_link("peer", &*b, "eth0").unwrap();
        });
        for (netns, last) in [(&a, 1), (&b, 2)] {
            netns.run(|| {
                let mut rtnl = Rtnl::open().unwrap();
                rtnl.add_address("eth0", format!("10.9.0.{last}/24").parse().unwrap(), false)
                    .unwrap();
                rtnl.add_address("eth0", format!("fd09::{last}/64").parse().unwrap(), true)
                    .unwrap();
                rtnl.set_up("eth0", true).unwrap();
            });
        }
        let pair = Self { a, b };
        pair.settle();
        pair
    }

    /// Waits until the wire carries packets: the kernel tells IPv6 of a new carrier with a delay of up to a second.
    fn settle(&self) {
        let to = self.a.run(|| UdpSocket::bind("[fd09::1]:9").unwrap());
        let from = self.b.run(|| UdpSocket::bind("[fd09::2]:9").unwrap());
        to.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        for _ in 0..250 {
            let _ = from.send_to(b"?", "[fd09::1]:9");
            if to.recv_from(&mut [0; 8]).is_ok() {
                return;
            }
        }
        panic!("the wire stays dead");
    }
}
