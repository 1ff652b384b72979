//! The rules of the last accepted manifest: what the guard goes by when the next one cannot be read.

use std::fs;
use std::io::{Error, Read, Result, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use ipnet::IpNet;
use ipsec::spd::{Action, Flow, Policy, PolicySelector};
use mesh::plan::{GUARD_PRIORITY, MOST_POLICIES};
use serde::{Deserialize, Serialize};

/// Of this file. An older or newer one is refused.
const VERSION: u32 = 1;
/// In bytes: as many rules as there may be, and room.
const LONGEST: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    rules: Vec<Rule>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    flow: Way,
    action: Verdict,
    local: String,
    remote: String,
    protocol: Option<u8>,
    local_ports: Option<(u16, u16)>,
    remote_ports: Option<(u16, u16)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    In,
    Out,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Pass,
    Drop,
}

/// Keeps the rules. Either the whole new file is there afterwards, or the old one.
pub fn write(path: &Path, rules: &[Policy]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    if !dir.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let file = File { version: VERSION, rules: rules.iter().map(shown).collect() };
    let text = serde_json::to_vec(&file).map_err(Error::other)?;
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    out.write_all(&text)?;
    out.sync_all()?;
    fs::rename(&new, path)?;
    // The name is on the disk only with its directory.
    fs::File::open(dir)?.sync_all()
}

/// The rules that were kept.
pub fn read(path: &Path) -> Result<Vec<Policy>> {
    let mut text = String::new();
    fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    let file: File = serde_json::from_str(&text).map_err(Error::other)?;
    if file.version != VERSION || file.rules.len() > MOST_POLICIES {
        return Err(Error::other("it was not written by this version"));
    }
    (GUARD_PRIORITY..).zip(&file.rules).map(|(priority, rule)| policy(rule, priority)).collect()
}

fn shown(policy: &Policy) -> Rule {
    let PolicySelector { local, remote, protocol, local_ports, remote_ports } = policy.selector;
    Rule {
        flow: if policy.flow == Flow::Out { Way::Out } else { Way::In },
        action: if policy.action == Action::Bypass { Verdict::Pass } else { Verdict::Drop },
        local: local.to_string(),
        remote: remote.to_string(),
        protocol,
        local_ports,
        remote_ports,
    }
}

fn policy(rule: &Rule, priority: u32) -> Result<Policy> {
    let net = |text: &str| text.parse::<IpNet>().map_err(Error::other);
    let selector = PolicySelector {
        local: net(&rule.local)?,
        remote: net(&rule.remote)?,
        protocol: rule.protocol,
        local_ports: rule.local_ports,
        remote_ports: rule.remote_ports,
    };
    let flow = match rule.flow {
        Way::In => Flow::In,
        Way::Out => Flow::Out,
    };
    let action = match rule.action {
        Verdict::Pass => Action::Bypass,
        Verdict::Drop => Action::Discard,
    };
    Ok(Policy { priority, flow, selector, action })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str, priority: u32, flow: Flow, action: Action) -> Policy {
        let selector = PolicySelector {
            local: "::/0".parse().unwrap(),
            remote: text.parse().unwrap(),
            protocol: Some(17),
            local_ports: Some((500, 501)),
            remote_ports: None,
        };
        Policy { priority, flow, selector, action }
    }

    #[test]
    fn what_was_kept_comes_back() {
        let dir = std::env::temp_dir().join(format!("warren-saved-{}", std::process::id()));
        let path = dir.join("deep/guard.json");
        let rules = [
            rule("fd09::/64", GUARD_PRIORITY, Flow::Out, Action::Bypass),
            rule("fd0a::/64", GUARD_PRIORITY + 1, Flow::In, Action::Discard),
        ];
        write(&path, &rules).unwrap();
        write(&path, &rules).unwrap();
        assert_eq!(read(&path).unwrap(), rules);
        let text = fs::read_to_string(&path).unwrap();
        for bad in [
            &text[..text.len() - 2],
            "",
            &text.replace("\"version\":1", "\"version\":2"),
            &text.replace("fd0a::/64", "fd0a::/640"),
            &text.replace("\"in\"", "\"inn\""),
        ] {
            fs::write(&path, bad).unwrap();
            assert!(read(&path).is_err(), "{bad}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
