//! Warren on the other side of the wire.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::matrix::{Auth, Cell, Place, Play};
use crate::net::{Net, Running, eventually, run, tail};
use crate::pki::{self, PSK};

/// A running daemon.
pub struct Warren<'a> {
    net: &'a Net,
    control: String,
    /// What the peer is called by.
    peer: String,
    _running: Running,
}

impl<'a> Warren<'a> {
    /// Starts it with a manifest that fits the peer.
    pub fn start(net: &'a Net, cell: &Cell, pki: &Path) -> Result<Self, String> {
        let manifest = net.dir.join("warren.yml");
        fs::write(&manifest, manifest_text(net, cell, pki))
            .map_err(|error| format!("{}: {error}", manifest.display()))?;
        let control = net.dir.join("warren.sock").display().to_string();
        let state = net.dir.join("state").display().to_string();
        let file = manifest.display().to_string();
        let plane = if cell.place == Place::Vm { "kernel" } else { "userspace" };
        let address = net.addresses.ours.to_string();
        let args = [
            "--control",
            &control,
            "run",
            "-m",
            &file,
            "--data-plane",
            plane,
            "--state-dir",
            &state,
            "--address",
            &address,
        ];
        let running = net.start(&net.ours, &binary(), &args, "warren.log")?;
        let peer = net.addresses.theirs_seen.to_string();
        let mut warren = Self { net, control, peer, _running: running };
        if !eventually(Duration::from_secs(60), || {
            warren.status().is_ok() || warren._running.ended()
        }) {
            return Err(format!("warren did not start: {}", warren.log()));
        }
        if warren._running.ended() {
            return Err(format!("warren did not start: {}", warren.log()));
        }
        Ok(warren)
    }

    /// Its version.
    pub fn version() -> String {
        run(binary(), &["--version"])
            .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
    }

    /// A command about the peer.
    pub fn tell(&self, verb: &str) -> Result<(), String> {
        self.ask(&[verb, &self.peer]).map(|_| ())
    }

    fn ask(&self, args: &[&str]) -> Result<String, String> {
        let mut all = vec!["--control", &self.control];
        all.extend(args);
        let output = self.net.on(&self.net.ours, &binary(), &all)?;
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if output.status.success() {
            Ok(text)
        } else {
            Err(format!("warren {}: {text}", args.join(" ")))
        }
    }

    /// The peer's part of its status.
    pub fn peer(&self) -> Result<Value, String> {
        let status = self.status()?;
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        Ok(peers.into_iter().find(|peer| peer["address"] == *self.peer).unwrap_or(Value::Null))
    }

    fn status(&self) -> Result<Value, String> {
        serde_json::from_str(&self.ask(&["status", "--json"])?).map_err(|error| error.to_string())
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        tail(&fs::read_to_string(self.net.dir.join("warren.log")).unwrap_or_default(), 200)
    }
}

impl Drop for Warren<'_> {
    /// A daemon that is only ended leaves its SAs, and with its own ESP a process that holds them.
    fn drop(&mut self) {
        let _ = self.ask(&["stop", "--flush"]);
    }
}

fn manifest_text(net: &Net, cell: &Cell, pki: &Path) -> String {
    let mut text = String::from("ipsec_subnets:\n");
    for address in [net.addresses.ours, net.addresses.theirs_seen] {
        let bits = if address.is_ipv4() { 24 } else { 64 };
        let line = format!("- '{address}/{bits}'\n");
        if !text.contains(&subnet(&line)) {
            text += &line;
        }
    }
    let dir = pki::folder(pki, cell.auth).display().to_string();
    let _ = match cell.auth {
        Auth::Psk => writeln!(text, "psk: {PSK}"),
        _ => writeln!(
            text,
            "instance_certificate: file:{dir}/ours.pem\ninstance_private_key: file:{dir}/ours.key\nca_certificates:"
        ),
    };
    if cell.auth != Auth::Psk {
        let chain = ["ca"].iter().chain(pki::intermediates(cell.auth));
        let certificates =
            chain.filter_map(|name| fs::read_to_string(format!("{dir}/{name}.pem")).ok());
        text += "- |\n";
        for line in certificates.flat_map(|pem| pem.lines().map(str::to_owned).collect::<Vec<_>>())
        {
            let _ = writeln!(text, "  {line}");
        }
    }
    let _ = writeln!(
        text,
        "ike_proposals: {}\nesp_proposals: {}\nmode: {}\nmobike: true\nlog_level: 2",
        cell.ike(),
        cell.suite.esp,
        crate::matrix::lower(&cell.mode)
    );
    if cell.place == Place::Native {
        text += "force_udp_encapsulation: true\n";
    }
    if let Play::With(extension) = cell.play {
        let (peer, keys) = (net.addresses.theirs_seen, extension.manifest());
        let _ = writeln!(text, "peers:\n- {{address: '{peer}', {keys}}}");
    }
    if cell.play == Play::Redirect {
        let theirs = net.addresses.theirs_seen;
        let _ = writeln!(text, "peers: [{{address: {theirs}, id: {theirs}, redirect: true}}]");
    }
    if cell.play == Play::Dead {
        text += "dpddelay: 2\n";
    }
    text
}

/// The network part of a line, up to the last group of the address.
fn subnet(line: &str) -> String {
    let end = line.rfind(['.', ':']).unwrap_or(0);
    line[..=end].to_owned()
}

fn binary() -> String {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release/warren");
    std::env::var("WARREN").unwrap_or_else(|_| built.display().to_string())
}
