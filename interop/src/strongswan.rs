//! strongSwan: charon-systemd, with the kernel's ESP or, where it has none, kernel-libipsec.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::cell::moves::{GATEWAY, neighbour};
use crate::daemon::{Daemon, Home, Sas};
use crate::matrix::{Auth, Cell, Family, Mode, Nat, Place, Play};
use crate::net::{Addresses, Net, Running, eventually, tail};
use crate::pki::{self, PSK};
use crate::vici;

const CHARON: &str = "/usr/sbin/charon-systemd";
/// Few: af-alg alone makes the kernel load and test every cipher.
const PLUGINS: &str = "random nonce openssl pem pkcs1 pkcs8 x509 constraints pubkey socket-default vici curve25519 \
    hmac sha1 sha2 aes gcm chapoly kdf";
/// Of the connection, and of its child.
const CONNECTION: &str = "t";
const CHILD: &str = "c";

/// A running charon.
pub struct StrongSwan<'a> {
    home: Home<'a>,
    running: Option<Running>,
}

impl<'a> StrongSwan<'a> {
    /// Starts it and loads its connection.
    pub fn start(net: &'a Net, cell: &Cell, pki: &Path) -> Result<Self, String> {
        let home = Home::new(net, cell)?;
        home.write("etc/strongswan.conf", &daemon_conf(cell.place))?;
        home.write("etc/swanctl/swanctl.conf", &connection(cell, &net.addresses))?;
        if cell.auth != Auth::Psk {
            let dir = pki::folder(pki, cell.auth);
            home.copy(&dir.join("ca.pem"), "etc/swanctl/x509ca/ca.pem")?;
            home.copy(&dir.join("theirs.pem"), "etc/swanctl/x509/theirs.pem")?;
            home.copy(&dir.join("theirs.key"), "etc/swanctl/private/theirs.key")?;
            for name in pki::intermediates(cell.auth) {
                let name = format!("{name}.pem");
                home.copy(&dir.join(&name), &format!("etc/swanctl/x509/{name}"))?;
            }
        }
        let mut peer = Self { home, running: None };
        peer.run()?;
        Ok(peer)
    }

    fn run(&mut self) -> Result<(), String> {
        let _ = std::fs::remove_file(self.socket());
        self.running = Some(self.home.start(CHARON, &[], "charon.out")?);
        let ready = || vici::ask(&self.socket(), "version", &[]).is_ok();
        if !eventually(Duration::from_secs(120), ready) {
            return Err(format!("charon did not start: {}", self.log()));
        }
        self.home.run("/usr/sbin/swanctl", &["--load-all"]).map(|_| ())
    }

    fn socket(&self) -> PathBuf {
        self.home.dir.join("run/charon.vici")
    }

    fn ask(&self, command: &str, args: &[(&str, &str)]) -> Result<(), String> {
        let answer = vici::ask(&self.socket(), command, args).map_err(|error| error.to_string())?;
        match answer["success"].as_str() {
            Some("yes") => Ok(()),
            _ => Err(format!("strongSwan, {command}: {}", answer["errmsg"])),
        }
    }
}

impl Daemon for StrongSwan<'_> {
    fn initiate(&self) -> Result<(), String> {
        self.ask("initiate", &[("child", CHILD), ("timeout", "40000"), ("init-limits", "no")])
    }

    fn begin(&self) -> Result<(), String> {
        self.ask("initiate", &[("child", CHILD), ("timeout", "-1"), ("init-limits", "no")])
    }

    fn sas(&self) -> Result<Sas, String> {
        let list = vici::list_sas(&self.socket()).map_err(|error| error.to_string())?;
        let all = list.iter().filter_map(Value::as_object).flat_map(|map| map.values());
        let mut sas = Sas::default();
        for ike in all {
            sas.ike += usize::from(ike["state"] == "ESTABLISHED");
            let children = ike["child-sas"].as_object();
            let children = children.into_iter().flat_map(|map| map.values());
            sas.children += children.filter(|child| child["state"] == "INSTALLED").count();
        }
        Ok(sas)
    }

    fn rekey_child(&self) -> Result<(), String> {
        self.ask("rekey", &[("child", CHILD)])
    }

    fn rekey_ike(&self) -> Result<(), String> {
        self.ask("rekey", &[("ike", CONNECTION)])
    }

    fn terminate(&self) -> Result<(), String> {
        self.ask("terminate", &[("ike", CONNECTION), ("timeout", "20000")])
    }

    fn redirect(&self, to: IpAddr) -> Result<(), String> {
        self.ask("redirect", &[("ike", CONNECTION), ("gateway", &to.to_string())])
    }

    fn reboot(&mut self) -> Result<(), String> {
        if let Some(running) = self.running.take() {
            running.kill();
        }
        self.home.forget()?;
        self.run()
    }

    fn log(&self) -> String {
        tail(&self.home.read("run/log"), 200)
    }
}

/// With kernel-libipsec, `fwmark`: charon's own packets keep to the ordinary routes although the peer itself is
/// behind the tunnel; `allow_peer_ts`: it then takes selectors that contain the peer.
fn daemon_conf(place: Place) -> String {
    let (plugins, options) = match place {
        Place::Vm => ("kernel-netlink", ""),
        Place::Native => (
            "kernel-libipsec kernel-netlink",
            "kernel-netlink { fwmark = !0x42 }
    socket-default { fwmark = 0x42 }
    kernel-libipsec { allow_peer_ts = yes }",
        ),
    };
    format!(
        "charon-systemd {{
  load = {PLUGINS} {plugins}
  make_before_break = yes
  journal {{ default = -1 }}
  filelog {{ log {{ path = /run/log
    time_format = %H:%M:%S
    default = 1
    flush_line = yes }} }}
  plugins {{
    {options}
  }}
}}
swanctl {{ load = pem pkcs1 pkcs8 x509 openssl random }}
"
    )
}

fn connection(cell: &Cell, addresses: &Addresses) -> String {
    let Addresses { ours, theirs, ours_seen, .. } = addresses;
    let bits = if cell.family == Family::V4 { 32 } else { 128 };
    let (local, remote, secret) = match cell.auth {
        Auth::Psk => (
            format!("auth = psk\n    id = {theirs}"),
            format!("auth = psk\n    id = {ours}"),
            format!("secrets {{ ike-1 {{ secret = \"{PSK}\" }} }}"),
        ),
        _ => (
            "auth = pubkey\n    certs = theirs.pem".to_owned(),
            "auth = pubkey\n    cacerts = ca.pem\n    id = %any".to_owned(),
            String::new(),
        ),
    };
    // Behind a NAT, and with a peer behind one, transport mode knows the addresses only in the end.
    let (local_ts, remote_ts) = if cell.nat().is_some() && cell.mode == Mode::Transport {
        ("dynamic".to_owned(), "dynamic".to_owned())
    } else {
        (format!("{theirs}/{bits}"), format!("{ours}/{bits}"))
    };
    let remote_addrs =
        if cell.nat() == Some(Nat::Us) { "%any".to_owned() } else { ours_seen.to_string() };
    let extension = match cell.play {
        Play::With(extension) => Some(extension),
        _ => None,
    };
    // As the gateway that it redirects to, it has another address.
    let local_addrs = match neighbour(*theirs, GATEWAY) {
        Ok(other) if cell.play == Play::Redirect => format!("{theirs}, {other}"),
        _ => theirs.to_string(),
    };
    // Every few seconds, without a random share.
    let reauth = if cell.play == Play::Reauth {
        "reauth_time = 8s\n  over_time = 8s\n  rand_time = 0s"
    } else {
        ""
    };
    // Two emulated processors take packets past each other, more than its default of 32: everywhere, for all cells are alike.
    format!(
        "connections {{ {CONNECTION} {{
  version = 2
  local_addrs = {local_addrs}
  remote_addrs = {remote_addrs}
  proposals = {ike}
  encap = {encap}
  {reauth}
  {extension}
  local {{ {local} }}
  remote {{ {remote} }}
  children {{ {CHILD} {{
    local_ts = {local_ts}
    remote_ts = {remote_ts}
    esp_proposals = {esp}
    mode = {mode}
    replay_window = 128
  }} }}
}} }}
{secret}
{more}
",
        extension = extension.map_or("", |e| e.connection()),
        more = extension.map_or(String::new(), |e| e.secret()),
        ike = cell.ike(),
        encap = if cell.place == Place::Native { "yes" } else { "no" },
        esp = cell.suite.esp,
        mode = crate::matrix::lower(&cell.mode),
    )
}
