//! Warren on the other side of the wire.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::cell::{Auth, PSK, Suite};
use crate::host::{Hosts, Running, THEIRS, eventually, run};

/// A running daemon.
pub struct Warren<'a> {
    hosts: &'a Hosts,
    control: String,
    _running: Running,
}

impl<'a> Warren<'a> {
    /// Starts it with a manifest that fits the peer.
    pub fn start(hosts: &'a Hosts, auth: Auth, suite: &Suite) -> Result<Self, String> {
        let manifest = hosts.dir.join("warren.yml");
        fs::write(&manifest, manifest_text(auth, suite))
            .map_err(|error| format!("{}: {error}", manifest.display()))?;
        let control = hosts.dir.join("warren.sock").display().to_string();
        let state = hosts.dir.join("state").display().to_string();
        let file = manifest.display().to_string();
        let program = binary();
        let args = [
            "--control",
            &control,
            "run",
            "-m",
            &file,
            "--data-plane",
            "userspace",
            "--state-dir",
            &state,
        ];
        let running = hosts.start("a", &program, &args, &[], "warren.log")?;
        let warren = Self { hosts, control, _running: running };
        if !eventually(Duration::from_secs(10), || warren.status().is_ok()) {
            return Err(format!("warren did not start: {}", warren.log()));
        }
        Ok(warren)
    }

    /// Its version.
    pub fn version() -> String {
        run(&binary(), &["--version"])
            .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
    }

    /// Makes a CA and a leaf for either side.
    pub fn pki(dir: &Path) -> Result<(), String> {
        let dir = dir.join("pki").display().to_string();
        run(&binary(), &["pki", "init", "--dir", &dir])?;
        run(&binary(), &["pki", "issue", "ours", "--dir", &dir])?;
        run(&binary(), &["pki", "issue", "theirs", "--dir", &dir])?;
        Ok(())
    }

    /// A command of its own.
    pub fn ask(&self, args: &[&str]) -> Result<String, String> {
        let mut all = vec!["--control", &self.control];
        all.extend(args);
        let output = self.hosts.on("a", &binary(), &all)?;
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
        Ok(peers.into_iter().find(|peer| peer["address"] == THEIRS).unwrap_or(Value::Null))
    }

    fn status(&self) -> Result<Value, String> {
        serde_json::from_str(&self.ask(&["status", "--json"])?).map_err(|error| error.to_string())
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.hosts.dir.join(name)).unwrap_or_default();
        let text = read("warren.log") + &read("warren.log.err");
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

fn manifest_text(auth: Auth, suite: &Suite) -> String {
    let proof = match auth {
        Auth::Psk => format!("psk: {PSK}"),
        Auth::Rsa => "instance_certificate: file:pki/ours.pem\ninstance_private_key: file:pki/ours.key\nca_certificates:\n- file:pki/ca.pem".into(),
    };
    format!(
        "ipsec_subnets:\n- 10.9.0.0/24\n{proof}\nike_proposals: {}\nesp_proposals: {}\nmode: tunnel\nforce_udp_encapsulation: true\nlog_level: 2\n",
        suite.ike, suite.esp
    )
}

fn binary() -> String {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release/warren");
    std::env::var("WARREN").unwrap_or_else(|_| built.display().to_string())
}
