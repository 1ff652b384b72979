//! One cell of the matrix: who initiates, by what proof, with which suite; and everything that must work then.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::host::{Hosts, OURS, Running, THEIRS, eventually};
use crate::strongswan::StrongSwan;
use crate::warren::Warren;

/// At least 20 bytes, as the manifest wants it.
pub const PSK: &str = "interop-0123456789abcdef";

/// How both sides prove who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// RSA-3072 certificates of one CA.
    Rsa,
    /// A pre-shared key.
    Psk,
}

/// Who sends the first message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Initiator {
    /// Warren, because a packet wants it.
    Warren,
    /// strongSwan.
    Strongswan,
}

/// Algorithms, in the syntax that both sides share.
#[derive(Clone, Debug, Serialize)]
pub struct Suite {
    /// What it is for.
    pub name: &'static str,
    /// For IKE.
    pub ike: &'static str,
    /// For ESP.
    pub esp: &'static str,
}

/// The manifest's defaults, and what one would choose today.
pub const SUITES: &[Suite] = &[
    Suite { name: "default", ike: "aes128-sha256-modp2048", esp: "aes128gcm16" },
    Suite { name: "modern", ike: "aes256gcm16-prfsha384-ecp384", esp: "aes256gcm16-ecp384" },
    Suite {
        name: "x25519",
        ike: "chacha20poly1305-prfsha256-x25519",
        esp: "chacha20poly1305-x25519",
    },
    Suite { name: "cbc", ike: "aes256-sha512-modp3072", esp: "aes256-sha256-modp3072" },
];

/// What a cell did.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Who initiated.
    pub initiator: Initiator,
    /// By what proof.
    pub auth: Auth,
    /// Name of the suite.
    pub suite: &'static str,
    /// Steps that worked, in order, with what they measured.
    pub done: Vec<String>,
    /// The step that did not, with both logs.
    pub failed: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

/// Runs a cell on hosts of its own.
pub fn run(number: usize, initiator: Initiator, auth: Auth, suite: &Suite) -> Outcome {
    let started = Instant::now();
    let mut done = Vec::new();
    let failed = play(number, initiator, auth, suite, &mut done).err();
    Outcome {
        initiator,
        auth,
        suite: suite.name,
        done,
        failed,
        seconds: started.elapsed().as_secs_f64(),
    }
}

fn play(
    number: usize,
    initiator: Initiator,
    auth: Auth,
    suite: &Suite,
    done: &mut Vec<String>,
) -> Result<(), String> {
    let hosts = Hosts::new(number)?;
    if auth == Auth::Rsa {
        Warren::pki(&hosts.dir)?;
    }
    let theirs = StrongSwan::start(&hosts, auth, suite)?;
    let ours = Warren::start(&hosts, auth, suite)?;
    let cell = Cell { hosts: &hosts, ours, theirs };
    let steps: [(&str, Step<'_>); 9] = [
        ("up", &|| cell.up(initiator)),
        ("fragments", &|| cell.fragments(auth)),
        ("ping", &|| cell.ping()),
        ("100 MB of TCP", &|| cell.tcp()),
        ("child rekey by strongSwan", &|| cell.their_rekey("--child", "c")),
        ("IKE rekey by strongSwan", &|| cell.their_rekey("--ike", "t")),
        ("both rekeys by Warren", &|| cell.our_rekey()),
        ("delete by strongSwan, up again", &|| cell.their_delete()),
        ("delete by Warren, up again", &|| cell.our_delete()),
    ];
    for (name, step) in steps {
        let said = step().map_err(|error| {
            format!(
                "{name}: {error}\n--- strongSwan\n{}\n--- Warren\n{}",
                cell.theirs.log(),
                cell.ours.log()
            )
        })?;
        done.push(if said.is_empty() { name.to_owned() } else { format!("{name} ({said})") });
    }
    Ok(())
}

/// One thing that must work: what it measured, or why not.
type Step<'a> = &'a dyn Fn() -> Result<String, String>;

struct Cell<'a> {
    hosts: &'a Hosts,
    ours: Warren<'a>,
    theirs: StrongSwan<'a>,
}

impl Cell<'_> {
    fn up(&self, initiator: Initiator) -> Result<String, String> {
        match initiator {
            Initiator::Strongswan => self
                .theirs
                .swanctl(&["--initiate", "--child", "c", "--timeout", "20"])
                .map(|_| ())?,
            Initiator::Warren => self.first_packet()?,
        }
        self.settled()
    }

    /// The very first packet must arrive: it waits for the SA, it is not lost.
    fn first_packet(&self) -> Result<(), String> {
        self.pings("a", THEIRS, 1, 10)
    }

    /// One IKE SA and one child SA on both sides.
    fn settled(&self) -> Result<String, String> {
        let mut seen = String::new();
        let one = eventually(Duration::from_secs(15), || {
            let theirs = self.theirs.sas().unwrap_or_default();
            let peer = self.ours.peer().unwrap_or_default();
            let count = |key: &str| peer[key].as_array().map_or(0, Vec::len);
            seen = format!(
                "strongSwan has {theirs:?} SAs, Warren {} and {} and calls the peer {}",
                count("ike_sas"),
                count("child_sas"),
                peer["state"]
            );
            theirs == (1, 1)
                && (count("ike_sas"), count("child_sas")) == (1, 1)
                && peer["state"] == "up"
        });
        if one {
            Ok(String::new())
        } else {
            Err(format!("not one IKE SA and one child SA on both sides: {seen}"))
        }
    }

    /// Certificates make IKE_AUTH longer than a packet should be: it went in pieces, both ways.
    fn fragments(&self, auth: Auth) -> Result<String, String> {
        if auth == Auth::Psk {
            return Ok("none".into());
        }
        let log = self.theirs.whole_log();
        let shown = |verb: &str| {
            let mut lines = log.lines().filter(|line| line.contains(verb));
            lines.find(|line| line.contains("IKE_AUTH") && line.contains("EF(2/")).is_some()
        };
        match (shown("parsed"), shown("generating")) {
            (true, true) => Ok("both ways".into()),
            (from_us, from_them) => Err(format!(
                "IKE_AUTH in pieces: from Warren {from_us}, from strongSwan {from_them}"
            )),
        }
    }

    fn ping(&self) -> Result<String, String> {
        self.pings("a", THEIRS, 10, 5)?;
        self.pings("b", OURS, 10, 5)?;
        Ok("20 of 20, both ways".into())
    }

    fn pings(&self, from: &str, to: &str, count: u32, wait: u32) -> Result<(), String> {
        let output = self.hosts.on(
            from,
            "ping",
            &["-n", "-q", "-c", &count.to_string(), "-i", "0.02", "-W", &wait.to_string(), to],
        )?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Its exit status is 0 with a single answer.
        if text.contains(" 0% packet loss") { Ok(()) } else { Err(text) }
    }

    fn tcp(&self) -> Result<String, String> {
        let _server: Running = self.hosts.start("b", "iperf3", &["-s", "-1"], &[], "iperf3.log")?;
        let mut last = String::new();
        // Until the server listens; iperf3 ends with 0 even if nobody did.
        let done = eventually(Duration::from_secs(40), || {
            let Ok(output) = self.hosts.on("a", "iperf3", &["-c", THEIRS, "-n", "100M", "-J"])
            else {
                return false;
            };
            last = String::from_utf8_lossy(&output.stdout).into_owned();
            received(&last) > 0
        });
        // iperf3 counts -n at the sender; what is in flight at the end is at most a window.
        match received(&last) {
            bytes if done && bytes >= 90 << 20 => Ok(format!("{} MB arrived", bytes >> 20)),
            _ => Err(last),
        }
    }

    fn their_rekey(&self, what: &str, name: &str) -> Result<String, String> {
        self.rekeyed(
            &|| self.theirs.swanctl(&["--rekey", what, name]).map(|_| ()),
            what == "--child",
        )
    }

    fn our_rekey(&self) -> Result<String, String> {
        self.rekeyed(&|| self.ours.ask(&["rekey", THEIRS]).map(|_| ()), true)
    }

    /// Pings run across the rekey; none may be lost, and the SPIs must have changed.
    fn rekeyed(
        &self,
        rekey: &dyn Fn() -> Result<(), String>,
        child: bool,
    ) -> Result<String, String> {
        let before = (self.theirs.child_spis()?, self.ike_spi()?);
        let stream = self.hosts.start(
            "a",
            "ping",
            &["-n", "-q", "-c", "150", "-i", "0.02", "-W", "5", THEIRS],
            &[],
            "stream.log",
        )?;
        rekey()?;
        let changed = eventually(Duration::from_secs(15), || {
            let (spis, ike) =
                (self.theirs.child_spis().unwrap_or_default(), self.ike_spi().unwrap_or_default());
            if child {
                !spis.is_empty() && spis != before.0
            } else {
                !ike.is_empty() && ike != before.1
            }
        });
        if !changed {
            return Err("no new SPIs".into());
        }
        self.settled()?;
        let log = self.hosts.dir.join("stream.log");
        let ended = eventually(Duration::from_secs(15), || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("packet loss"))
        });
        drop(stream);
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if ended && text.contains(" 0% packet loss") {
            Ok("no packet lost".into())
        } else {
            Err(format!("packets lost across the rekey: {text}"))
        }
    }

    fn ike_spi(&self) -> Result<String, String> {
        Ok(self.ours.peer()?["ike_sas"][0]["spi_i"].as_str().unwrap_or_default().to_owned())
    }

    fn their_delete(&self) -> Result<String, String> {
        self.theirs.swanctl(&["--terminate", "--ike", "t", "--timeout", "10"])?;
        // On demand: the next packet brings it back.
        self.first_packet()?;
        self.settled()
    }

    fn our_delete(&self) -> Result<String, String> {
        self.ours.ask(&["down", THEIRS])?;
        let gone = eventually(Duration::from_secs(10), || {
            self.theirs.sas().is_ok_and(|sas| sas == (0, 0))
        });
        if !gone {
            return Err("strongSwan still has SAs after `warren down`".into());
        }
        self.ours.ask(&["up", THEIRS])?;
        self.settled()?;
        self.first_packet()?;
        Ok(String::new())
    }
}

/// Bytes that iperf3's server got, from the client's report.
fn received(report: &str) -> u64 {
    let report: serde_json::Value = serde_json::from_str(report).unwrap_or_default();
    report["end"]["sum_received"]["bytes"].as_u64().unwrap_or(0)
}
