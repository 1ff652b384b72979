//! Real daemons, one a host.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use linux::netns::Netns;
use serde_json::Value;

use super::net::Host;
use crate::args::DataPlane;
use crate::client;

/// Where a host's daemon keeps its things.
pub fn folder(dir: &Path, host: &Host) -> PathBuf {
    dir.join(&host.name)
}

/// Its control socket.
pub fn control(dir: &Path, host: &Host) -> PathBuf {
    folder(dir, host).join("control.sock")
}

/// How a daemon is started.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// Which program.
    pub program: &'a Path,
    /// Its manifest.
    pub manifest: &'a Path,
    /// Stand in for the manifest's own.
    pub credentials: Option<&'a Path>,
    /// Who carries the packets.
    pub data_plane: DataPlane,
    /// It is told its address, rather than left to find it.
    pub address: bool,
    /// Where it keeps its state.
    pub state: &'a Path,
    /// What else it is given.
    pub more: &'a [String],
}

/// Starts the daemon of a host, in a process group of its own: an interrupt of the lab is the lab's to handle.
pub fn start(dir: &Path, host: &Host, how: &Start<'_>) -> Result<Child, String> {
    let folder = folder(dir, host);
    let text = |error: std::io::Error| format!("{}: {error}", host.name);
    fs::create_dir_all(&folder).map_err(text)?;
    let log = File::options().create(true).append(true).open(folder.join("log")).map_err(text)?;
    let mut command = Command::new(how.program);
    command.arg("--control").arg(control(dir, host)).arg("run").arg("-m").arg(how.manifest);
    command.arg("--state-dir").arg(how.state);
    if how.address {
        command.arg("--address").arg(host.address.to_string());
    }
    command.arg("--data-plane").arg(match how.data_plane {
        DataPlane::Auto => "auto",
        DataPlane::Kernel => "kernel",
        DataPlane::Userspace => "userspace",
    });
    if let Some(credentials) = how.credentials {
        command.arg("--rehearsal-credentials").arg(credentials);
    }
    command.args(how.more);
    command
        .stdin(Stdio::null())
        .stderr(log.try_clone().map_err(text)?)
        .stdout(log)
        .process_group(0);
    let netns = Netns::open(&host.namespace()).map_err(|error| error.to_string())?;
    netns.confine(&mut command, &[]).map_err(text)?;
    command.spawn().map_err(text)
}

/// Waits until every daemon answers.
pub fn wait_ready(
    dir: &Path,
    hosts: &[Host],
    limit: Duration,
    stop: &dyn Fn() -> bool,
) -> Result<(), String> {
    let end = Instant::now() + limit;
    for host in hosts {
        while client::get(&control(dir, host), "/v1/status").is_err() {
            if Instant::now() > end || stop() {
                return Err(format!(
                    "the daemon of {} did not start; its log ends with:\n{}",
                    host.name,
                    log_end(dir, host)
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// A host's whole status.
pub fn status(dir: &Path, host: &Host) -> Value {
    client::get(&control(dir, host), "/v1/status").unwrap_or(Value::Null)
}

/// The last lines of a daemon's log.
pub fn log_end(dir: &Path, host: &Host) -> String {
    let text = fs::read_to_string(folder(dir, host).join("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// Ends daemons that were started here.
pub fn end(children: &mut [Child]) {
    for child in children.iter() {
        terminate(child.id());
    }
    let end = Instant::now() + Duration::from_secs(10);
    for child in children {
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Asks a process to end.
pub fn terminate(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}
