//! Who has UDP ports 500 and 4500.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use linux::userspace::PORTS;

use super::Scene;
use super::finding::{Finding, Findings};

/// A socket of one of the ports.
struct Holder {
    port: u16,
    family: &'static str,
    /// `None`: of a process that may not be looked into, or of another process namespace.
    process: Option<Process>,
}

#[derive(Clone)]
struct Process {
    pid: u32,
    name: String,
}

/// Each port: bound by Warren, by another process, or by nobody.
pub fn check(scene: &Scene<'_>, all: &mut Vec<Finding>) {
    let mut found = Findings::of("network", all);
    let holders = holders();
    for port in PORTS {
        let mut holders = holders.iter().filter(|holder| holder.port == port).peekable();
        if holders.peek().is_none() {
            match &scene.status {
                Some(_) => found.error(
                    "port",
                    format!("nobody listens on UDP {port} here, though the daemon answers"),
                    "it runs in another network namespace: run `warren doctor` there",
                ),
                None => found.ok("port", format!("UDP {port} is free")),
            }
        }
        holders.for_each(|holder| held(scene, holder, &mut found));
    }
}

fn held(scene: &Scene<'_>, holder: &Holder, found: &mut Findings<'_>) {
    let what = format!("UDP {} ({})", holder.port, holder.family);
    match &holder.process {
        Some(process) if process.name == "warren" => {
            let whose =
                if scene.status.is_some() { "" } else { ", which no daemon's socket answers for" };
            found.ok("port", format!("{what} is Warren's, process {}{whose}", process.pid));
        }
        Some(Process { pid, name }) => found.error(
            "port",
            format!("{what} is held by {name}, process {pid}"),
            format!("stop it: two IKE daemons cannot share a host (`systemctl status {pid}`)"),
        ),
        None if scene.status.is_some() => {
            found.skipped("port", format!("{what} is bound, by a process that cannot be seen"));
        }
        None => found.error(
            "port",
            format!("{what} is held by a process that cannot be seen from here"),
            "look for another IKE daemon: `ss -lunp 'sport = :500 or sport = :4500'` as root",
        ),
    }
}

fn holders() -> Vec<Holder> {
    let mut holders = Vec::new();
    let mut owners = BTreeMap::new();
    for (family, file) in [("IPv4", "/proc/net/udp"), ("IPv6", "/proc/net/udp6")] {
        let text = fs::read_to_string(file).unwrap_or_default();
        for (port, inode) in text.lines().filter_map(socket) {
            if PORTS.contains(&port) {
                if owners.is_empty() {
                    owners = sockets_of_processes();
                }
                holders.push(Holder { port, family, process: owners.get(&inode).cloned() });
            }
        }
    }
    holders
}

/// Local port and inode of a line of `/proc/net/udp`.
fn socket(line: &str) -> Option<(u16, u64)> {
    let mut fields = line.split_whitespace();
    let (_, port) = fields.nth(1)?.split_once(':')?;
    Some((u16::from_str_radix(port, 16).ok()?, fields.nth(7)?.parse().ok()?))
}

fn sockets_of_processes() -> BTreeMap<u64, Process> {
    let mut owners = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        for inode in sockets_of(&entry.path()) {
            owners.entry(inode).or_insert_with(|| Process { pid, name: name(&entry.path()) });
        }
    }
    owners
}

fn sockets_of(process: &Path) -> Vec<u64> {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().filter_map(Result::ok);
    let links = files.filter_map(|file| fs::read_link(file.path()).ok());
    links.filter_map(|link| inode(link.to_str()?)).collect()
}

fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn name(process: &Path) -> String {
    let exe = fs::read_link(process.join("exe")).ok();
    let exe = exe.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    // A program that was replaced under a running process.
    let exe = exe.map(|name| name.trim_end_matches(" (deleted)").to_owned());
    exe.unwrap_or_else(|| {
        fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::{inode, socket};

    #[test]
    fn lines_of_the_kernel() {
        let line = "  431: 00000000:01F4 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 24557 2 0000000000000000 0";
        assert_eq!(socket(line), Some((500, 24557)));
        let v6 = "   18: 00000000000000000000000000000000:1194 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 7 2 0 0";
        assert_eq!(socket(v6), Some((4500, 7)));
        for bad in ["", "  sl  local_address rem_address   st tx_queue", "1: x:zz a b c"] {
            assert_eq!(socket(bad), None);
        }
        assert_eq!(inode("socket:[42]"), Some(42));
        assert_eq!(inode("/dev/null"), None);
    }
}
