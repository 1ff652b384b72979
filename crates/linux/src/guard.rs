//! The leak guard where no daemon runs: kernel policies that drop what the manifest protects.
//!
//! They need no address, no route and no process, so they hold from before the first interface is up, and whatever the
//! tables say. A data plane of ours takes their place and gives it back; both are known by marks and numbers of their
//! own, and what is not ours is never touched.

use std::collections::BTreeSet;

use ipsec::spd;

use crate::route::{self, Rtnl};
use crate::userspace::{INTERFACE, MARK, remove_leftovers};
use crate::xfrm::{self, Action, Direction, POLICY_INDEXES, Policy, Selector, Xfrm, split};

/// Why the guard is not as it was asked for. What it had is still in force.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Kernel policies.
    #[error("{0}")]
    Xfrm(#[from] xfrm::Error),
    /// Rules and routes of a data plane that is gone.
    #[error("{0}")]
    Route(#[from] route::Error),
    /// The kernel has no policies like these: priorities too large, families mixed.
    #[error("these rules are not for a kernel")]
    Rules,
}

/// Who keeps cleartext from leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// Kernel policies, this many; no process is needed.
    Guard(usize),
    /// A data plane: the daemon runs, or has left its policies and SAs in the kernel.
    DataPlane,
}

/// Puts these rules into force, in place of those that were. Where a data plane holds, it goes on and nothing is changed.
pub fn on(rules: &[spd::Policy]) -> Result<Holder, Error> {
    let mut xfrm = Xfrm::open()?;
    let mut rtnl = Rtnl::open()?;
    if data_plane(&mut xfrm, &mut rtnl)? {
        return Ok(Holder::DataPlane);
    }
    install(&mut xfrm, rules)?;
    remove_leftovers(&mut rtnl)?;
    state()
}

/// Takes everything of ours away, also what a daemon that is gone has left: from then on packets pass in the clear.
/// A daemon with a device of its own is left alone.
pub fn off() -> Result<Holder, Error> {
    let mut xfrm = Xfrm::open()?;
    let mut rtnl = Rtnl::open()?;
    if device(&mut rtnl)? {
        return Ok(Holder::DataPlane);
    }
    remove_leftovers(&mut rtnl)?;
    remove_kernel_plane(&mut xfrm)?;
    install(&mut xfrm, &[])?;
    Ok(Holder::Nobody)
}

/// The kernel's data plane has its policies in place: takes away the guard's, and what a device's plane has left.
pub fn lift() -> Result<(), Error> {
    install(&mut Xfrm::open()?, &[])?;
    Ok(remove_leftovers(&mut Rtnl::open()?)?)
}

/// A device has taken over from a kernel's data plane that is gone: takes away the policies that it has left.
pub(crate) fn replace_kernel_plane() -> Result<(), Error> {
    match Xfrm::open() {
        Err(xfrm::Error::Unsupported) => Ok(()),
        other => remove_kernel_plane(&mut other?),
    }
}

/// Who holds now.
pub fn state() -> Result<Holder, Error> {
    let mut xfrm = Xfrm::open()?;
    if data_plane(&mut xfrm, &mut Rtnl::open()?)? {
        return Ok(Holder::DataPlane);
    }
    let ours = ours(&mut xfrm, MARK)?;
    let blocks = ours.iter().any(|policy| policy.action == Action::Block);
    Ok(if blocks { Holder::Guard(ours.len()) } else { Holder::Nobody })
}

/// These policies and no others of ours without templates.
pub(crate) fn install(xfrm: &mut Xfrm, rules: &[spd::Policy]) -> Result<(), Error> {
    let before: BTreeSet<Policy> = ours(xfrm, MARK)?.into_iter().collect();
    let wanted: Vec<Policy> =
        rules.iter().map(counterparts).collect::<Option<Vec<_>>>().ok_or(Error::Rules)?.concat();
    // Exceptions stand before what they are excepted from, so no exception is ever blocked on the way.
    for policy in wanted.iter().filter(|policy| !before.contains(policy)) {
        xfrm.put_policy(policy)?;
    }
    let names: BTreeSet<_> = wanted.iter().map(name).collect();
    for policy in before.iter().filter(|policy| !names.contains(&name(policy))) {
        xfrm.remove_policy(policy)?;
    }
    Ok(())
}

/// The kernel's policies for one rule; `None` if it has no such policies.
pub(crate) fn counterparts(rule: &spd::Policy) -> Option<Vec<Policy>> {
    let mut all = split::policies(rule).filter(|all| all.iter().all(|p| p.templates.is_empty()))?;
    all.iter_mut().for_each(|policy| policy.mark = (0, MARK));
    Some(all)
}

/// Policies of the guard's in the kernel: `0` under our bit, so that our own packets, which carry it, never meet them.
pub(crate) fn ours(xfrm: &mut Xfrm, mark: u32) -> Result<Vec<Policy>, xfrm::Error> {
    let mut all = xfrm.policies()?;
    all.retain(|policy| policy.mark == (0, mark) && policy.templates.is_empty());
    Ok(all)
}

fn remove_kernel_plane(xfrm: &mut Xfrm) -> Result<(), Error> {
    let all = xfrm.installed()?;
    let left = all.iter().filter(|installed| POLICY_INDEXES.contains(&installed.index));
    left.map(|installed| xfrm.remove_index(installed.index))
        .try_for_each(|r| r.map_err(Error::from))
}

fn name(policy: &Policy) -> (Direction, Selector) {
    (policy.direction, policy.selector)
}

fn data_plane(xfrm: &mut Xfrm, rtnl: &mut Rtnl) -> Result<bool, Error> {
    let kernel =
        xfrm.installed()?.iter().any(|installed| POLICY_INDEXES.contains(&installed.index));
    Ok(kernel || device(rtnl)?)
}

/// The userspace data plane's device goes with its process.
fn device(rtnl: &mut Rtnl) -> Result<bool, Error> {
    Ok(rtnl.links()?.iter().any(|link| link.name == INTERFACE))
}
