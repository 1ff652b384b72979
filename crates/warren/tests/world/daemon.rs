//! A daemon on a host, and the commands that are typed there.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use linux::netns::Netns;
use serde_json::Value;

use super::{Ended, Folder, eventually, finish, warren};

/// A host's daemon: its folder, its namespace, and the process while it runs.
pub struct Daemon {
    pub folder: Folder,
    pub address: IpAddr,
    netns: String,
    child: Option<Child>,
}

impl Daemon {
    /// Not started yet.
    pub fn new(netns: &Netns, address: IpAddr) -> Self {
        Self { folder: Folder::new(), address, netns: netns.name().to_owned(), child: None }
    }

    pub fn control(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    pub fn manifest(&self) -> PathBuf {
        self.folder.join("warren.yml")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// `warren run` with the host's manifest, ready to be started.
    pub fn run_command(&self) -> Command {
        let mut command = self.typed(&["run"]);
        // ESP as protocol 50, one packet at a time: what tests look for on the wire. With offload: `linux/tests/userspace.rs`
        // and the lab.
        command.env("WARREN_OFFLOAD", "off");
        command.arg("-m").arg(self.manifest()).arg("--state-dir").arg(self.folder.join("state"));
        command
    }

    /// Writes the manifest, starts the daemon, waits until it answers.
    pub fn start(&mut self, manifest: &str) {
        self.folder.put("warren.yml", manifest);
        let command = self.run_command();
        self.start_as(command);
    }

    /// Starts this command as the daemon, waits until it answers.
    pub fn start_as(&mut self, mut command: Command) {
        let log = File::options().append(true).create(true).open(self.folder.join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.adopt(command.spawn().unwrap());
    }

    /// This process is the daemon; waits until it answers.
    pub fn adopt(&mut self, child: Child) {
        self.child = Some(child);
        eventually(&format!("an answer of the daemon of {}", self.address), || {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().unwrap()) {
                panic!("the daemon ended, {status}:\n{}", self.log());
            }
            (finish(&mut self.typed(&["status", "--json"])).code == Some(0)).then_some(())
        });
    }

    /// `warren ARGS` on this host.
    pub fn typed(&self, args: &[&str]) -> Command {
        let mut command = warren();
        command.arg("--control").arg(self.control()).args(args);
        Netns::open(&self.netns).unwrap().confine(&mut command, &[]).unwrap();
        command
    }

    pub fn warren(&self, args: &[&str]) -> Ended {
        finish(&mut self.typed(args))
    }

    /// `warren ARGS --json`, whatever it ends with.
    pub fn json(&self, args: &[&str]) -> Value {
        let ended = finish(self.typed(args).arg("--json"));
        serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {ended:#?}"))
    }

    /// The row of one peer.
    pub fn peer(&self, address: IpAddr) -> Value {
        self.json(&["status", &address.to_string()])
    }

    /// Waits until the peer's row is as wanted.
    pub fn until(&self, peer: IpAddr, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let end = std::time::Instant::now() + super::PATIENCE;
        while std::time::Instant::now() < end {
            last = self.peer(peer);
            if check(&last) {
                return last;
            }
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        panic!("{} never saw {what} of {peer}; last {last:#}\n{}", self.address, self.log())
    }

    pub fn until_up(&self, peer: IpAddr) -> Value {
        self.until(peer, "`up`", |row| row["state"] == "up")
    }

    /// SPIs of the one child SA with a peer.
    pub fn spis(&self, peer: IpAddr) -> (String, String) {
        let row = self.peer(peer);
        let text = |key: &str| row["child_sas"][0][key].as_str().unwrap_or_default().to_owned();
        (text("spi_in"), text("spi_out"))
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.child.as_ref().unwrap())
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Waits for the daemon's end.
    pub fn ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().unwrap();
        let status = eventually("the daemon's end", || child.try_wait().unwrap());
        self.child = None;
        status
    }

    /// # Panics
    /// If the daemon has panicked so far.
    pub fn no_panic(&self) {
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
    }

    /// What `run` says where it must not start; it is killed if it does.
    pub fn refused_start(&self) -> Ended {
        finish(self.run_command().stdout(Stdio::piped()).stderr(Stdio::piped()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.address, self.log());
        } else {
            self.no_panic();
        }
    }
}
