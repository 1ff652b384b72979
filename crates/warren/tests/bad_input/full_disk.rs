//! A disk without room.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::PSK;
use crate::world::daemon::Daemon;
use crate::world::net::Net;
use crate::world::{finish, root};

/// A small memory file system at `at`, which only this thread and its children see.
fn small_disk(at: &Path) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
    rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::empty(), c"size=64k").unwrap();
}

fn fill(dir: &Path) {
    use std::io::Write;
    let mut file = fs::File::options().create(true).append(true).open(dir.join("filler")).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
}

#[test]
fn a_full_disk_is_named_and_nothing_starts() {
    if !root() {
        return;
    }
    let net = Net::new(&["10.77.0.1"], 24);
    let daemon = Daemon::new(&net.hosts[0], net.addresses[0]);
    daemon.folder.put("warren.yml", format!("ipsec_subnets: [10.77.0.0/24]\n{PSK}"));
    let state = daemon.folder.join("state");
    fs::create_dir(&state).unwrap();
    let ended = net.hosts[0].run(|| {
        small_disk(&state);
        fill(&state);
        finish(daemon.run_command().stdout(Stdio::piped()).stderr(Stdio::piped()))
    });
    ended.refused(&["state directory", state.to_str().unwrap(), "No space left", "room"]);
    assert_eq!(net.traces(0), Vec::<String>::new());
    assert!(!daemon.control().exists());
}

#[test]
fn a_disk_that_fills_up_under_a_running_daemon() {
    if !root() {
        return;
    }
    let net = Net::new(&["10.77.0.1", "10.77.0.2"], 24);
    let text = format!("ipsec_subnets: [10.77.0.0/24]\n{PSK}log_level: 4\n");
    let mut other = Daemon::new(&net.hosts[1], net.addresses[1]);
    other.start(&text);
    let mut daemon = Daemon::new(&net.hosts[0], net.addresses[0]);
    daemon.folder.put("warren.yml", &text);
    let state = daemon.folder.join("state");
    fs::create_dir(&state).unwrap();
    // The log goes to the same disk.
    let log = state.join("log");
    let command = daemon.run_command();
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg("log=$1; shift; exec \"$@\" >>\"$log\" 2>&1").arg("sh").arg(&log);
    shell.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    net.hosts[0].run(|| {
        small_disk(&state);
        let child = shell.spawn().unwrap();
        daemon.adopt(child);
    });
    let pid = daemon.pid().as_raw_nonzero();
    let inside = Path::new("/proc").join(pid.to_string()).join("root");
    fill(&inside.join(state.strip_prefix("/").unwrap()));
    let [one, two] = [net.addresses[0], net.addresses[1]];
    daemon.warren(&["up", &two.to_string()]).ok();
    daemon.until_up(two);
    daemon.warren(&["rekey", &two.to_string()]).ok();
    daemon.warren(&["reload"]).ok();
    assert!(net.udp_arrives(0, 1, "still alive", crate::world::PATIENCE));
    assert!(daemon.is_running() && other.is_running());
    other.until_up(one);
    daemon.warren(&["stop", "--flush"]).ok();
    assert!(daemon.ended().success());
    assert_eq!(net.traces(0), Vec::<String>::new());
}
