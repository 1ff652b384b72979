//! What this process may do.

use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Privileges that are not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} missing: run as root, or `setcap cap_net_admin,cap_net_raw+ep` on the program, or AmbientCapabilities= in its unit", .capabilities.join(" and "))]
pub struct Missing {
    /// Their names.
    pub capabilities: Vec<&'static str>,
}

/// Whether this thread may change the network (`CAP_NET_ADMIN`) and open raw sockets (`CAP_NET_RAW`).
pub fn privileges() -> Result<(), Missing> {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    missing(effective)
}

/// Keys stay in this process: no core dump, and no other process of the same user may look into it.
pub fn keep_secrets() -> std::io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

/// Keys stay out of swap: this process's memory is locked, as far as it is used.
///
/// # Errors
/// Where it may lock only so many bytes: then none are, since allocations would fail once they are used up.
pub fn lock_memory() -> Result<(), NotLocked> {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let limit = rustix::process::getrlimit(Resource::Memlock).current;
    if let Some(limit) = limit.filter(|_| !effective.contains(CapabilitySet::IPC_LOCK)) {
        return Err(NotLocked::Limit(limit));
    }
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    rustix::mm::mlockall(flags).map_err(|error| NotLocked::Call(crate::errno::of(error)))
}

/// Why memory may be swapped out, keys with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotLocked {
    /// RLIMIT_MEMLOCK.
    #[error(
        "this process may lock {0} bytes only: LimitMEMLOCK=infinity in its unit, or CAP_IPC_LOCK"
    )]
    Limit(u64),
    /// The kernel refused.
    #[error("mlockall: {}", crate::errno::explain(*.0))]
    Call(crate::errno::Errno),
}

fn missing(effective: CapabilitySet) -> Result<(), Missing> {
    let wanted =
        [(CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"), (CapabilitySet::NET_RAW, "CAP_NET_RAW")];
    let capabilities: Vec<_> =
        wanted.iter().filter(|(set, _)| !effective.contains(*set)).map(|(_, name)| *name).collect();
    if capabilities.is_empty() { Ok(()) } else { Err(Missing { capabilities }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_keeps_secrets_leaves_no_core() {
        keep_secrets().unwrap();
        let dumpable = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(dumpable, DumpableBehavior::NotDumpable);
        assert_eq!(rustix::process::getrlimit(Resource::Core).current, Some(0));
    }

    #[test]
    fn memory_is_locked_or_it_is_said_why_not() {
        let locked = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        match lock_memory() {
            Ok(()) => assert!(locked() > 0),
            Err(NotLocked::Limit(limit)) => assert!(limit < u64::MAX),
            Err(other) => panic!("{other}"),
        }
        let _ = rustix::mm::munlockall();
    }

    #[test]
    fn names_what_is_missing() {
        assert_eq!(missing(CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW), Ok(()));
        assert_eq!(missing(CapabilitySet::NET_ADMIN).unwrap_err().capabilities, ["CAP_NET_RAW"]);
        let both = missing(CapabilitySet::empty()).unwrap_err();
        assert!(both.to_string().starts_with("CAP_NET_ADMIN and CAP_NET_RAW missing"), "{both}");
    }
}
