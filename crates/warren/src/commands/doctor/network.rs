//! Interface, filters of the kernel, other people's policies, and what the kernel's IPsec drops.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use linux::netns::get_sysctl;
use linux::route::{Link, Rtnl};
use linux::userspace::INTERFACE;
use linux::xfrm::{self, Action, DefaultAction, Defaults, Policy, Xfrm};

use super::Scene;
use super::finding::{Finding, Findings};

/// The least that IPv6 asks of a link (RFC 8200 5).
const LEAST_MTU: u32 = 1280;
/// Foreign policies that are named one by one.
const MOST_NAMED: usize = 5;

/// All but the drops.
pub fn check(scene: &Scene<'_>, all: &mut Vec<Finding>) {
    let mut found = Findings::of("network", all);
    match scene.address {
        None => found.skipped("interface", "this host's address in the mesh is not known"),
        Some(address) => match link_of(address) {
            Err(error) => found.skipped("interface", error),
            Ok(None) => found.error(
                "interface",
                format!("no interface has {address}"),
                "bring it up: `ip addr`, `ip link`",
            ),
            Ok(Some(link)) => interface(scene, address, &link, &mut found),
        },
    }
    policies(scene, &mut found);
}

/// The interface with this address, but for the data plane's own, which may have it a second time.
pub fn link_of(address: IpAddr) -> Result<Option<Link>, String> {
    let mut rtnl = Rtnl::open().map_err(|error| error.to_string())?;
    let links = rtnl.links().map_err(|error| error.to_string())?;
    let addresses = rtnl.addresses().map_err(|error| error.to_string())?;
    let with = |link: &&Link| {
        let mut own = addresses.iter().filter(|there| there.interface == link.index);
        link.name != INTERFACE && own.any(|there| there.net.addr() == address)
    };
    Ok(links.iter().find(with).cloned())
}

fn interface(scene: &Scene<'_>, address: IpAddr, link: &Link, found: &mut Findings<'_>) {
    let name = &link.name;
    if link.is_up() {
        found.ok("interface", format!("{address} is on {name}, which is up"));
    } else {
        let remedy = format!("`ip link set {name} up`");
        found.error("interface", format!("{address} is on {name}, which is down"), remedy);
    }
    if link.mtu < LEAST_MTU {
        let text =
            format!("{name} carries packets of {} bytes: very little is left inside", link.mtu);
        found.warning("MTU", text, format!("`ip link set {name} mtu 1500`, if the network can"));
    } else {
        let inside = scene.accepted.as_ref().and_then(|accepted| {
            crate::commands::mtu::inside(link.mtu as usize, &accepted.manifest, address)
        });
        let inside =
            inside.map_or(String::new(), |n| format!(", {n} bytes of it inside the tunnel"));
        found.ok("MTU", format!("{name} carries {} bytes{inside}", link.mtu));
    }
    if address.is_ipv4() {
        reverse_path(scene, name, found);
    }
}

/// Strict filtering asks whether the way back to a packet's source is the way it came; behind a device it is not.
fn reverse_path(scene: &Scene<'_>, interface: &str, found: &mut Findings<'_>) {
    let filter = |name: &str| -> Option<u8> {
        get_sysctl(&format!("net/ipv4/conf/{name}/rp_filter")).ok()?.parse().ok()
    };
    // The kernel takes the larger of the two (ip-sysctl).
    let Some(filter) = filter("all").max(filter(interface)) else {
        return found.skipped("rp_filter", "the kernel's setting cannot be read");
    };
    match (filter, scene.data_plane()) {
        (1, Some("userspace")) => found.error(
            "rp_filter",
            format!("strict on {interface}: ESP is dropped before Warren sees it"),
            format!("`sysctl -w net.ipv4.conf.{interface}.rp_filter=2`"),
        ),
        (1, None) => found.warning(
            "rp_filter",
            format!(
                "strict on {interface}; the userspace data plane makes it loose when it starts"
            ),
            format!("`net.ipv4.conf.{interface}.rp_filter=2` in /etc/sysctl.d"),
        ),
        (1, Some(_)) => {
            found.ok("rp_filter", format!("strict on {interface}, which the kernel's ESP passes"))
        }
        (2, _) => found.ok("rp_filter", format!("loose on {interface}")),
        _ => found.ok("rp_filter", format!("off on {interface}")),
    }
}

fn policies(scene: &Scene<'_>, found: &mut Findings<'_>) {
    let read =
        Xfrm::open().and_then(|mut xfrm| Ok((xfrm.foreign_policies()?, xfrm.defaults().ok())));
    let (foreign, defaults) = match read {
        Ok(read) => read,
        Err(xfrm::Error::Unsupported) => {
            return found.ok("foreign policies", "this kernel has no XFRM, so none");
        }
        Err(error) => return found.skipped("foreign policies", error.to_string()),
    };
    let nets: Vec<IpNet> = match &scene.accepted {
        Some(accepted) => accepted.manifest.ipsec_subnets.clone(),
        None => Vec::new(),
    };
    let touching: Vec<&Policy> =
        foreign.iter().filter(|policy| nets.iter().any(|net| touches(policy, *net))).collect();
    match (touching.len(), foreign.len()) {
        (0, 0) => found.ok("foreign policies", "none"),
        (0, n) => found.ok("foreign policies", format!("{n}, none of them for the IPsec subnets")),
        (n, _) => {
            let named: Vec<String> = touching.iter().take(MOST_NAMED).map(|p| shown(p)).collect();
            let more = if n > MOST_NAMED {
                format!(" and {} more", n - MOST_NAMED)
            } else {
                String::new()
            };
            let text = format!("{n} for the IPsec subnets: {}{more}", named.join("; "));
            let remedy = "Warren leaves them alone, and packets meet whichever has the lower priority: \
                          stop the program that put them, or `ip xfrm policy delete`";
            found.warning("foreign policies", text, remedy);
        }
    }
    if let Some(Defaults { input, output, .. }) = defaults
        && (input == DefaultAction::Block || output == DefaultAction::Block)
    {
        let text = "the kernel drops packets that no policy is for (`ip xfrm policy setdefault`)";
        found.warning(
            "default policy",
            text,
            "exceptions and other networks are silent unless that is wanted",
        );
    }
}

fn touches(policy: &Policy, net: IpNet) -> bool {
    let overlap = |a: IpNet| a.contains(&net) || net.contains(&a);
    overlap(policy.selector.src) || overlap(policy.selector.dst)
}

fn shown(policy: &Policy) -> String {
    let action = match (policy.action, policy.templates.is_empty()) {
        (Action::Block, _) => "block",
        (Action::Allow, true) => "allow",
        (Action::Allow, false) => "protect",
    };
    let direction = format!("{:?}", policy.direction).to_lowercase();
    format!(
        "{action} {direction} {} -> {} (priority {})",
        policy.selector.src, policy.selector.dst, policy.priority
    )
}

/// What the kernel's counters of dropped packets did while the other checks ran.
pub fn check_drops(before: &[(&'static str, u64)], all: &mut Vec<Finding>) {
    let mut found = Findings::of("network", all);
    let after = linux::xfrm::statistics();
    if after.is_empty() {
        return found.skipped("drops", "this kernel does not count them (/proc/net/xfrm_stat)");
    }
    let before: BTreeMap<_, _> = before.iter().copied().collect();
    let grown: Vec<_> = after
        .iter()
        .filter_map(|(name, now)| {
            let more = now.saturating_sub(before.get(name).copied().unwrap_or(0));
            (more > 0).then_some((*name, more))
        })
        .collect();
    let sum: u64 = after.iter().map(|(_, count)| count).sum();
    if grown.is_empty() {
        return found.ok(
            "drops",
            format!("the kernel's IPsec dropped nothing just now ({sum} since boot)"),
        );
    }
    for (name, more) in grown {
        let text = format!("{name} grew by {more} while this ran");
        found.warning("drops", text, meaning(name));
    }
}

/// Of the kernel's `Documentation/networking/xfrm_proc.rst`, with what to do.
fn meaning(counter: &str) -> &'static str {
    match counter {
        "XfrmInNoStates" => {
            "ESP comes for SAs that are not here: `warren status`; the sender holds an old SA"
        }
        "XfrmInStateProtoError" => {
            "ESP that does not verify: keys differ, or packets are damaged on the way"
        }
        "XfrmInStateSeqError" => {
            "replayed or very late packets: reordering beyond the replay window"
        }
        "XfrmInTmplMismatch" => {
            "a peer sends in the clear what must be protected here (`warren explain`), or by a foreign SA"
        }
        "XfrmInPolBlock" => {
            "cleartext came that must be protected: a host without Warren, or with another manifest"
        }
        "XfrmInNoPols" => {
            "an SA delivered a packet that no policy allows: compare both hosts' manifests"
        }
        "XfrmOutNoStates" => {
            "packets wait for an SA that is not up: `warren status` names the reason"
        }
        "XfrmOutPolBlock" => "packets that the policies forbid were sent: `warren explain SRC DST`",
        "XfrmOutStateSeqError" => "an SA has used up its sequence numbers: `warren rekey PEER`",
        "XfrmAcquireError" => "nobody took the kernel's request for an SA: is the daemon running?",
        _ => "Documentation/networking/xfrm_proc.rst of the kernel says what it counts",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::xfrm::{Direction, Selector};

    #[test]
    fn what_overlaps() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let policy = |src, dst| {
            Policy::new(Direction::Out, 1, Selector::between(net(src), net(dst)), Action::Block)
        };
        let protected = net("10.0.0.0/16");
        assert!(touches(&policy("0.0.0.0/0", "10.0.3.0/24"), protected));
        assert!(touches(&policy("10.0.0.0/8", "192.0.2.0/24"), protected));
        assert!(!touches(&policy("192.0.2.0/24", "10.1.0.0/16"), protected));
        assert!(!touches(&policy("::/0", "fd00::/8"), protected));
    }
}
