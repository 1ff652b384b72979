//! The two hosts of a cell and what lies between them: a wire, or a NAT. All of it is gone when dropped.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use linux::netns::{Guard, Netns};
use linux::route::{MAIN_TABLE, NewLink, Route, Rtnl};

use crate::matrix::{Cell, Family, Mode, Nat};

/// The interface of either host.
const INTERFACE: &str = "eth0";

/// Addresses of a cell.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Warren's own.
    pub ours: IpAddr,
    /// The peer's own.
    pub theirs: IpAddr,
    /// Where the peer sees Warren: the NAT's address if Warren is behind one.
    pub ours_seen: IpAddr,
    /// Where Warren sees the peer.
    pub theirs_seen: IpAddr,
}

/// The hosts, and a folder for their files.
pub struct Net {
    /// Warren's host.
    pub ours: Guard,
    /// The peer's.
    pub theirs: Guard,
    /// What lies between them, with the ports `a` to Warren and `b` to the peer.
    pub between: Guard,
    /// Who is where.
    pub addresses: Addresses,
    /// Configurations, certificates, logs.
    pub dir: PathBuf,
}

impl Net {
    /// Makes the hosts of a cell.
    pub fn new(cell: &Cell, number: usize) -> Result<Self, String> {
        let prefix = format!("wi{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(format!("warren-interop-{prefix}"));
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let create = |host: &str| Guard::create(&format!("{prefix}-{host}")).map_err(text);
        let (ours, theirs, between) = (create("a")?, create("b")?, create("w")?);
        let net = Self { ours, theirs, between, addresses: addresses(cell), dir };
        net.plug()?;
        match cell.nat() {
            None => net.bridge()?,
            Some(nat) => net.translate(nat, cell.mode)?,
        }
        Ok(net)
    }

    fn plug(&self) -> Result<(), String> {
        for netns in [&self.ours, &self.theirs] {
            for key in ["net/ipv6/conf/all/accept_dad", "net/ipv6/conf/default/accept_dad"] {
                let _ = netns.sysctl(key, "0");
            }
        }
        // No chatter of its own on the wire that is watched.
        let _ = self.between.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        let hosts =
            [("a", &self.ours, self.addresses.ours), ("b", &self.theirs, self.addresses.theirs)];
        for (port, netns, address) in hosts {
            let plug = || {
                let mut rtnl = Rtnl::open()?;
                rtnl.create_link(port, NewLink::Veth { peer: "plug" })?;
                rtnl.move_link("plug", &**netns, INTERFACE)?;
                rtnl.set_up(port, true)
            };
            self.between.run(plug).map_err(text)?;
            let prefix = if address.is_ipv4() { 24 } else { 64 };
            let own = || {
                let mut rtnl = Rtnl::open()?;
                rtnl.add_address(INTERFACE, network(address, prefix), true)?;
                rtnl.set_up(INTERFACE, true)
            };
            netns.run(own).map_err(text)?;
        }
        Ok(())
    }

    fn bridge(&self) -> Result<(), String> {
        let bridge = || {
            let mut rtnl = Rtnl::open()?;
            rtnl.create_link("bridge", NewLink::Bridge)?;
            rtnl.set_master("a", Some("bridge"))?;
            rtnl.set_master("b", Some("bridge"))?;
            rtnl.set_up("bridge", true)
        };
        self.between.run(bridge).map_err(text)
    }

    /// A router that gives the inner host its own address and other ports, as home routers do.
    fn translate(&self, nat: Nat, mode: Mode) -> Result<(), String> {
        let Addresses { ours, theirs, ours_seen, theirs_seen } = self.addresses;
        let (inner, inner_port, outer_port, seen) = match nat {
            Nat::Us => (ours, "a", "b", ours_seen),
            Nat::Them => (theirs, "b", "a", theirs_seen),
        };
        let gateway = gateway(inner);
        let router = || {
            let mut rtnl = Rtnl::open()?;
            rtnl.add_address(inner_port, network(gateway, 24), true)?;
            rtnl.add_address(outer_port, network(seen, 24), true)
        };
        self.between.run(router).map_err(text)?;
        self.between.sysctl("net/ipv4/ip_forward", "1").map_err(text)?;
        let (inside, outside) = match nat {
            Nat::Us => (&self.ours, &self.theirs),
            Nat::Them => (&self.theirs, &self.ours),
        };
        let route = |to, gateway| Route {
            gateway: Some(gateway),
            ..Route::unicast(to, MAIN_TABLE, INTERFACE)
        };
        let out = route("0.0.0.0/0".parse().map_err(text)?, gateway);
        inside.run(|| Rtnl::open()?.add_route(&out)).map_err(text)?;
        if mode == Mode::Tunnel {
            // What leads to the inner address at all is left to whoever configures the tunnel.
            let back = route(network(inner, 24).trunc(), seen);
            outside.run(|| Rtnl::open()?.add_route(&back)).map_err(text)?;
        }
        let rules = format!(
            "table ip nat {{
  chain post {{
    type nat hook postrouting priority 100
    oifname \"{outer_port}\" meta l4proto udp masquerade to :20000-60000
  }}
}}
table ip gate {{
  chain forward {{
    type filter hook forward priority 0
    policy drop
    iifname \"{inner_port}\" meta l4proto udp accept
    ct state established,related accept
  }}
}}
"
        );
        let file = self.dir.join("nat");
        fs::write(&file, rules).map_err(text)?;
        let output = self.on(&self.between, "nft", &["-f", &file.display().to_string()])?;
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    /// Runs a program on a host and gives its output, whatever it says.
    pub fn on(&self, host: &Netns, program: &str, args: &[&str]) -> Result<Output, String> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        host.confine(&mut command, &[]).map_err(text)?;
        command.output().map_err(|error| format!("{program}: {error}"))
    }

    /// Starts a program on a host; its output goes to a file in the folder, after what is there.
    pub fn start(
        &self,
        host: &Netns,
        program: &str,
        args: &[&str],
        log: &str,
    ) -> Result<Running, String> {
        let path = self.dir.join(log);
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stderr(file.try_clone().map_err(text)?)
            .stdout(file);
        host.confine(&mut command, &[]).map_err(text)?;
        command.spawn().map(Running).map_err(|error| format!("{program}: {error}"))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if std::env::var_os("KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A program that ends with this value.
pub struct Running(Child);

impl Running {
    /// Ends it as a power failure would.
    pub fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM first: daemons take their routes and devices away.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM);
        }
        let ended = eventually(Duration::from_secs(10), || self.ended());
        if !ended {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

fn addresses(cell: &Cell) -> Addresses {
    let v4 = |last: u8| IpAddr::from([10, 9, 0, last]);
    let behind = IpAddr::from([10, 66, 0, 1]);
    let v6 = |last: u16| IpAddr::from([0xfd09, 0, 0, 0, 0, 0, 0, last]);
    let plain = |ours, theirs| Addresses { ours, theirs, ours_seen: ours, theirs_seen: theirs };
    match (cell.nat(), cell.family) {
        (None, Family::V4) => plain(v4(1), v4(2)),
        (None, Family::V6) => plain(v6(1), v6(2)),
        (Some(Nat::Us), _) => {
            Addresses { ours: behind, theirs: v4(2), ours_seen: v4(254), theirs_seen: v4(2) }
        }
        (Some(Nat::Them), _) => {
            Addresses { ours: v4(1), theirs: behind, ours_seen: v4(1), theirs_seen: v4(254) }
        }
    }
}

fn gateway(inner: IpAddr) -> IpAddr {
    match inner {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            IpAddr::from([a, b, c, 254])
        }
        IpAddr::V6(_) => inner,
    }
}

fn network(address: IpAddr, prefix: u8) -> IpNet {
    IpNet::new(address, prefix).unwrap_or_else(|_| address.into())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Waits until `holds`, looking every 50 ms.
pub fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        sleep(Duration::from_millis(50));
    }
}

/// Runs a program that must succeed.
pub fn run(program: impl AsRef<Path>, args: &[&str]) -> Result<String, String> {
    let name = program.as_ref().display().to_string();
    let output = Command::new(program.as_ref())
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "{name} {}: {}{}",
        args.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
