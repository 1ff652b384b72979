//! What this machine must have: privileges, ESP, sockets, memory to keep keys in, and the guard.

use std::path::Path;

use linux::guard::Holder;
use linux::raw::{Ip, RawEsp};
use linux::userspace::MARK;
use linux::{tun, xfrm};

use super::Scene;
use super::finding::{Finding, Findings};
use crate::daemon::journal;

/// All of it.
pub fn check(scene: &Scene<'_>, state_dir: &Path, all: &mut Vec<Finding>) {
    let mut found = Findings::of("host", all);
    let permitted = linux::sandbox::privileges();
    match &permitted {
        Ok(()) => found.ok("privileges", "CAP_NET_ADMIN and CAP_NET_RAW"),
        Err(missing) => found.error(
            "privileges",
            missing.to_string(),
            "run `warren doctor` as root: without, much of what follows cannot be checked",
        ),
    }
    let in_kernel = esp(scene, &mut found);
    device(scene, in_kernel, &mut found);
    if permitted.is_ok() {
        raw_sockets(&mut found);
    }
    state(state_dir, &mut found);
    guard(scene, &mut found);
}

fn esp(scene: &Scene<'_>, found: &mut Findings<'_>) -> bool {
    let used = scene.data_plane() == Some("userspace");
    match xfrm::probe() {
        Ok(()) if used => {
            found.ok("kernel ESP", "there; the daemon was told to use its own");
            true
        }
        Ok(()) => {
            found.ok("kernel ESP", "there, with AES-GCM");
            true
        }
        Err(missing @ xfrm::Missing::Denied(_)) => {
            found.skipped("kernel ESP", missing.to_string());
            false
        }
        Err(missing) if scene.data_plane() == Some("kernel") => {
            let remedy = "load the modules, or `--data-plane userspace`";
            found.error("kernel ESP", format!("{missing}, and the daemon relies on it"), remedy);
            false
        }
        Err(missing) => {
            found.ok("kernel ESP", format!("{missing}; Warren's own ESP does it"));
            false
        }
    }
}

fn device(scene: &Scene<'_>, in_kernel: bool, found: &mut Findings<'_>) {
    match tun::probe() {
        Ok(()) => found.ok("TUN", "devices can be made"),
        Err(error) if in_kernel && scene.data_plane() != Some("userspace") => {
            found.ok("TUN", format!("{error}; the kernel's ESP does not need it"));
        }
        Err(error) => found.error(
            "TUN",
            error.to_string(),
            "`modprobe tun`, or pass /dev/net/tun into the container; or a kernel with ESP",
        ),
    }
}

fn raw_sockets(found: &mut Findings<'_>) {
    for (ip, family) in [(Ip::V4, "IPv4"), (Ip::V6, "IPv6")] {
        match RawEsp::open(ip, MARK) {
            Ok(_) => found.ok("raw sockets", format!("ESP over {family}")),
            Err(error) if ip == Ip::V6 => found.skipped("raw sockets", error.to_string()),
            Err(error) => {
                let remedy = "CAP_NET_RAW, and no seccomp filter that refuses raw sockets";
                found.error("raw sockets", error.to_string(), remedy);
            }
        }
    }
}

fn state(dir: &Path, found: &mut Findings<'_>) {
    let shown = dir.display();
    match journal::in_memory(dir) {
        Ok(true) => found.ok("state", format!("{shown} is in memory: SAs outlive the daemon")),
        Ok(false) => found.warning(
            "state",
            format!("{shown} is on a disk: no key is written there, so SAs end with the daemon"),
            "`--state-dir` on a tmpfs, such as /run/warren",
        ),
        Err(error) => found.skipped("state", format!("{shown}: {error}; `--state-dir` names it")),
    }
}

fn guard(scene: &Scene<'_>, found: &mut Findings<'_>) {
    match linux::guard::state() {
        Ok(Holder::DataPlane) if scene.status.is_some() => {
            found.ok("guard", "the data plane keeps cleartext from the IPsec subnets");
        }
        Ok(Holder::DataPlane) => found.warning(
            "guard",
            "no daemon answers, but the data plane it left still holds: nothing leaks, no new tunnel comes up",
            "start the daemon; or `warren guard off` to pass in the clear",
        ),
        Ok(Holder::Guard(n)) if scene.status.is_none() => {
            found.ok("guard", format!("{n} kernel policies keep cleartext from the IPsec subnets"));
        }
        Ok(Holder::Guard(n)) => found.warning(
            "guard",
            format!("{n} policies of the guard stand beside a running daemon and may drop its traffic"),
            "`warren reload`; if they stay, `warren restart`",
        ),
        Ok(Holder::Nobody) if optional(scene) => {
            found.ok("guard", "off: the manifest is `optional`");
        }
        Ok(Holder::Nobody) => found.warning(
            "guard",
            "nothing keeps cleartext from the IPsec subnets",
            "`systemctl enable --now warren-guard`, or `warren guard on -m FILE`",
        ),
        Err(error) => found.skipped("guard", error.to_string()),
    }
}

fn optional(scene: &Scene<'_>) -> bool {
    scene.accepted.as_ref().is_some_and(|accepted| accepted.manifest.optional)
        || scene.node().is_some_and(|node| node["optional"] == true)
}
