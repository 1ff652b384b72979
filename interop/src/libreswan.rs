//! libreswan: pluto, driven by whack.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use crate::daemon::{Daemon, Home, Sas};
use crate::matrix::{Auth, Cell, Family, Nat, Play};
use crate::net::{Addresses, Net, Running, eventually, tail};
use crate::pki::{self, OURS, PSK, THEIRS};

const PLUTO: &str = "/usr/libexec/ipsec/pluto";
const WHACK: &str = "/usr/libexec/ipsec/whack";
const CONNECTION: &str = "c";
/// Of a state.
const IKE_SA: &str = "ESTABLISHED_IKE_SA";

/// A running pluto.
pub struct Libreswan<'a> {
    home: Home<'a>,
    running: Option<Running>,
    /// What came of commands: pluto's log does not say it all.
    said: RefCell<Vec<String>>,
}

impl<'a> Libreswan<'a> {
    /// Starts it with its connection.
    pub fn start(net: &'a Net, cell: &Cell, pki: &Path) -> Result<Self, String> {
        let home = Home::new(net, cell)?;
        home.write("etc/ipsec.conf", &configuration(cell, &net.addresses))?;
        home.write("etc/ipsec.secrets", &format!(": PSK \"{PSK}\"\n"))?;
        // Any kind will do for a pre-shared key: pluto wants a database.
        let auth = if cell.auth == Auth::Psk { Auth::Ecdsa } else { cell.auth };
        let database = pki::folder(pki, auth).join(cell.peer.folder()).join("var/lib/ipsec/nss");
        for name in ["cert9.db", "key4.db", "pkcs11.txt"] {
            home.copy(&database.join(name), &format!("var/lib/ipsec/nss/{name}"))?;
        }
        home.write("run/pluto/.keep", "")?;
        let mut peer = Self { home, running: None, said: RefCell::default() };
        peer.run()?;
        Ok(peer)
    }

    fn run(&mut self) -> Result<(), String> {
        for name in ["pluto.ctl", "pluto.pid"] {
            let _ = std::fs::remove_file(self.home.dir.join("run/pluto").join(name));
        }
        let args = ["--config", "/etc/ipsec.conf", "--nofork", "--stderrlog"];
        self.running = Some(self.home.start(PLUTO, &args, "pluto.log")?);
        let ready = || {
            self.home.dir.join("run/pluto/pluto.ctl").exists()
                && self.home.read("../pluto.log").contains("listening for IKE messages")
        };
        if !eventually(Duration::from_secs(120), ready) {
            return Err(format!("pluto did not start: {}", self.log()));
        }
        let loaded = || {
            self.whack(&["--status"]).is_ok_and(|text| text.contains(&format!("\"{CONNECTION}\"")))
        };
        if !eventually(Duration::from_secs(60), loaded) {
            return Err(format!("pluto did not load its connection: {}", self.log()));
        }
        Ok(())
    }

    fn whack(&self, args: &[&str]) -> Result<String, String> {
        self.home.run(WHACK, args)
    }

    fn of_connection(&self, verbs: &[&str]) -> Result<String, String> {
        self.of(CONNECTION, verbs)
    }

    fn of(&self, name: &str, verbs: &[&str]) -> Result<String, String> {
        let mut args = verbs.to_vec();
        args.extend(["--name", name]);
        let said = self.whack(&args)?;
        self.said.borrow_mut().push(format!("whack {}: {said}\n", args.join(" ")));
        Ok(said)
    }

    /// The number of the IKE SA that is established.
    fn ike_sa(&self) -> Result<String, String> {
        let states = self.whack(&["--showstates"])?;
        let line = states.lines().find(|line| line.contains(IKE_SA));
        let number = line.and_then(|line| line.split_once('#')?.1.split_once(':'));
        number.map(|(number, _)| number.to_owned()).ok_or(format!("no IKE SA in {states}"))
    }
}

impl Daemon for Libreswan<'_> {
    fn initiate(&self) -> Result<(), String> {
        self.of_connection(&["--initiate"]).map(|_| ())
    }

    fn begin(&self) -> Result<(), String> {
        self.of_connection(&["--initiate", "--asynchronous"]).map(|_| ())
    }

    fn sas(&self) -> Result<Sas, String> {
        let states = self.whack(&["--showstates"])?;
        let count = |what: &str| states.lines().filter(|line| line.contains(what)).count();
        Ok(Sas { ike: count(IKE_SA), children: count("ESTABLISHED_CHILD_SA") })
    }

    fn rekey_child(&self) -> Result<(), String> {
        // Its name changed with version 5.
        let said = self.of_connection(&["--rekey-child"]);
        said.or_else(|_| self.of_connection(&["--rekey-ipsec"])).map(|_| ())
    }

    fn rekey_ike(&self) -> Result<(), String> {
        // 4.10 knows the newest alone by its connection; where that was closed, another has to be called by its number.
        if self.of_connection(&["--rekey-ike"])?.contains("does not have") {
            self.of(&self.ike_sa()?, &["--rekey-ike"])?;
        }
        Ok(())
    }

    fn terminate(&self) -> Result<(), String> {
        self.of_connection(&["--terminate"]).map(|_| ())
    }

    fn reboot(&mut self) -> Result<(), String> {
        if let Some(running) = self.running.take() {
            running.kill();
        }
        self.home.forget()?;
        let _ = std::fs::remove_file(self.home.dir.join("../pluto.log"));
        self.run()
    }

    fn log(&self) -> String {
        let said = self.said.borrow().join("");
        format!("{}\n{said}", tail(&self.home.read("../pluto.log"), 200))
    }
}

fn configuration(cell: &Cell, addresses: &Addresses) -> String {
    let Addresses { ours, theirs, ours_seen, .. } = addresses;
    let proof = match cell.auth {
        Auth::Psk => format!("authby=secret\n  leftid={theirs}\n  rightid={ours}"),
        Auth::Ecdsa => certificate("ecdsa"),
        Auth::Rsa | Auth::Chain => certificate("rsa-sha2"),
    };
    let bits = if cell.family == Family::V4 { 32 } else { 128 };
    // libreswan looks for the very selectors of the message; in transport mode too these name the inner address.
    let right = match cell.nat() {
        Some(Nat::Us) => format!("right={ours_seen}\n  rightsubnet={ours}/{bits}"),
        _ => format!("right={ours_seen}"),
    };
    let times = if cell.play == Play::Reauth {
        // Before the end by the margin, without a random share.
        "reauth=yes\n  ikelifetime=18s\n  rekeymargin=10s\n  rekeyfuzz=0%"
    } else {
        "ikelifetime=1h\n  salifetime=1h"
    };
    format!(
        "config setup
  dnssec-enable=no
  protostack=xfrm
conn {CONNECTION}
  ikev2=insist
  left={theirs}
  {right}
  {proof}
  ike={ike}
  esp={esp}
  pfs={pfs}
  type={mode}
  fragmentation=yes
  mobike=no
  encapsulation=auto
  leftupdown=%disabled
  {times}
  auto=add
",
        ike = cell.suite.libreswan_ike,
        esp = cell.suite.libreswan_esp,
        pfs = if cell.suite.libreswan_esp.contains(';') { "yes" } else { "no" },
        mode = crate::matrix::lower(&cell.mode),
    )
}

fn certificate(authby: &str) -> String {
    format!(
        "authby={authby}\n  leftcert=theirs\n  leftid=\"{THEIRS}\"\n  rightid=\"{OURS}\"\n  leftsendcert=always\n  sendca=all"
    )
}
