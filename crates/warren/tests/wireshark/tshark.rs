//! The judge: tshark reads a capture with the exported tables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::capture::Capture;
use super::lines::Tables;

/// Whether tshark is here. Where it must be, its absence is a failure.
pub fn present() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let run = || Command::new("tshark").arg("--version").output();
    let found = *FOUND.get_or_init(|| run().is_ok_and(|o| o.status.success()));
    let required = ["CI", "WARREN_REQUIRE_TSHARK"].iter().any(|v| std::env::var_os(v).is_some());
    assert!(found || !required, "tshark is required here: apt-get install tshark");
    if !found {
        println!("skipped: tshark is not installed (apt-get install tshark)");
    }
    found
}

/// What tshark makes of a capture.
pub struct Reading {
    /// IKE and ESP of every frame in full.
    pub text: String,
    pub frames: Vec<Frame>,
}

/// One frame.
#[derive(Debug)]
pub struct Frame {
    pub number: usize,
    /// `raw:ip:udp:isakmp`; what was decrypted of ESP stands behind `esp`.
    pub protocols: String,
    /// Payload types of IKE in their order, those within SK included; 2 and 3 are proposals and transforms.
    pub payloads: Vec<u8>,
    pub exchange: Option<u8>,
    /// Whether its SK payload was decrypted.
    pub decrypted: bool,
    pub malformed: String,
    pub expert: String,
    pub icv_bad: String,
}

/// In this order in a line of tshark's.
const FIELDS: [&str; 8] = [
    "frame.number",
    "frame.protocols",
    "isakmp.typepayload",
    "isakmp.exchangetype",
    "isakmp.enc.decrypted",
    "_ws.malformed",
    "_ws.expert.message",
    "esp.icv_bad",
];

/// What tshark calls that which it does not know, or which is wrong.
const COMPLAINTS: [&str; 8] = [
    "unknown",
    "unassigned",
    "to iana",
    "private use",
    "malformed",
    "[incorrect",
    "[invalid",
    "bad: true",
];

/// The one notify of the private range that is Warren's (`ike::exchange::liveness`): Wireshark has no name for it.
const OWN_NOTIFY: &str = "Notify Message Type: Private Use - STATUS TYPES (47387)";
/// What tshark writes above any of that range.
const PRIVATE_NOTIFY: &str = "Payload: Notify (41) - Private Use - STATUS TYPES";
/// SUPPORTED_AUTH_METHODS (RFC 9593) is younger than Wireshark 4.0.
const NEW_NOTIFY: &str = "Notify Message Type: RESERVED TO IANA - STATUS TYPES (16443)";
/// What tshark writes above any that it has no name for.
const NAMELESS_NOTIFY: &str = "Payload: Notify (41) - RESERVED TO IANA - STATUS TYPES";

impl Reading {
    /// Each has a profile of its own, so that nothing of this machine's counts.
    pub fn of(capture: &Capture, tables: &Tables) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("warren-tshark-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let dir = std::env::temp_dir().join(name);
        let profile = dir.join("wireshark");
        fs::create_dir_all(&profile).unwrap();
        let file = dir.join("capture.pcap");
        fs::write(&file, capture.bytes()).unwrap();
        fs::write(profile.join("ikev2_decryption_table"), text(&tables.ike)).unwrap();
        fs::write(profile.join("esp_sa"), text(&tables.esp)).unwrap();
        let text = run(&dir, &file, &["-O", "isakmp,esp"]);
        let fields = FIELDS.iter().flat_map(|field| ["-e", field]);
        let args: Vec<_> =
            ["-T", "fields", "-E", "separator=|"].into_iter().chain(fields).collect();
        let frames = run(&dir, &file, &args).lines().map(Frame::parse).collect();
        fs::remove_dir_all(&dir).unwrap();
        Self { text, frames }
    }

    /// No frame is malformed, nothing in it unknown, no checksum and no ICV wrong.
    pub fn assert_clean(&self, allowed: &[&str]) {
        let complaints = self.complaints(allowed);
        assert!(complaints.is_empty(), "{complaints:#?}");
    }

    /// What is wrong, but for lines that contain something of `allowed`.
    pub fn complaints(&self, allowed: &[&str]) -> Vec<String> {
        let wrong = |f: &&Frame| !f.malformed.is_empty() || !f.expert.is_empty();
        let frames = self.frames.iter().filter(wrong).map(|f| format!("{f:?}"));
        let count = |text: &str| self.text.lines().filter(|line| line.trim() == text).count();
        let pairs = [(PRIVATE_NOTIFY, OWN_NOTIFY), (NAMELESS_NOTIFY, NEW_NOTIFY)];
        let expected: Vec<&str> = pairs
            .iter()
            .filter(|(header, notify)| count(header) == count(notify))
            .flat_map(|(header, notify)| [*header, *notify])
            .collect();
        let own = |line: &str| expected.contains(&line.trim());
        let lines = self.text.lines().filter(|line| {
            let lower = line.to_lowercase();
            COMPLAINTS.iter().any(|c| lower.contains(c))
                && !own(line)
                && !allowed.iter().any(|a| line.contains(a))
        });
        frames.chain(lines.map(str::to_owned)).collect()
    }
}

impl Frame {
    /// Whether it carries ESP.
    pub fn is_esp(&self) -> bool {
        self.protocols.split(':').any(|p| p == "esp")
    }

    fn parse(line: &str) -> Self {
        let fields: Vec<_> = line.split('|').collect();
        let [number, protocols, payloads, exchange, decrypted, malformed, expert, icv_bad] =
            fields[..]
        else {
            panic!("{line}");
        };
        let payloads = payloads.split(',').filter(|p| !p.is_empty());
        Self {
            number: number.parse().unwrap(),
            protocols: protocols.to_owned(),
            payloads: payloads.map(|p| p.parse().unwrap()).collect(),
            exchange: exchange.parse().ok(),
            decrypted: !decrypted.is_empty(),
            malformed: malformed.to_owned(),
            expert: expert.to_owned(),
            icv_bad: icv_bad.to_owned(),
        }
    }
}

fn run(dir: &Path, file: &PathBuf, args: &[&str]) -> String {
    let mut command = Command::new("tshark");
    command.env("XDG_CONFIG_HOME", dir).env("HOME", dir).arg("-n").arg("-r").arg(file);
    for option in [
        "esp.enable_encryption_decode",
        "esp.enable_authentication_check",
        "ip.check_checksum",
        "udp.check_checksum",
    ] {
        command.arg("-o").arg(format!("{option}:TRUE"));
    }
    output(&command.args(args).output().unwrap())
}

/// tshark tells on standard error of tables that it cannot read, and goes on without them.
fn output(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let complaint = stderr.lines().find(|line| !line.starts_with("Running as user"));
    assert!(output.status.success() && complaint.is_none(), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}
