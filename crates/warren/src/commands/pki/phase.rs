//! Where a host is in the rotation of a CA.

use std::collections::BTreeSet;
use std::fmt;

use super::fleet::Host;

/// The CAs of a rotation, by their keys.
pub struct Rotation {
    /// Those that go.
    pub old: BTreeSet<String>,
    /// The one that comes.
    pub new: String,
}

/// Where a host is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Nobody knows: it has not been authenticated since the status that was asked began to count.
    Unknown,
    /// What it shows and accepts is of no phase: its tunnels to hosts of some phase cannot be built.
    Astray,
    /// It knows nothing of the new CA.
    Before,
    /// It accepts the new CA, and shows a certificate under an old one.
    Appended,
    /// It shows a certificate under the new CA, and still accepts the old ones.
    NewLeaf,
    /// It has nothing of an old CA any more.
    Dropped,
}

impl Rotation {
    /// Where a host is.
    pub fn phase(&self, host: &Host) -> Phase {
        let (Some(leaf), Some(trusts)) = (&host.leaf, &host.trusts) else { return Phase::Unknown };
        let (old, new) = (!trusts.is_disjoint(&self.old), trusts.contains(&self.new));
        match (old, new, leaf.ca.as_ref() == Some(&self.new)) {
            (true, false, false) => Phase::Before,
            (true, true, false) => Phase::Appended,
            (true, true, true) => Phase::NewLeaf,
            (false, true, true) => Phase::Dropped,
            _ => Phase::Astray,
        }
    }
}

impl Phase {
    /// For programs; `None` where it is no phase.
    pub fn number(self) -> Option<u8> {
        match self {
            Self::Unknown | Self::Astray => None,
            Self::Before => Some(0),
            Self::Appended => Some(1),
            Self::NewLeaf => Some(2),
            Self::Dropped => Some(3),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "? not known",
            Self::Astray => "! of no phase",
            Self::Before => "0 as it was",
            Self::Appended => "1 accepts the new CA",
            Self::NewLeaf => "2 has the new leaf",
            Self::Dropped => "3 rid of the old CA",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::Leaf;
    use super::*;

    fn host(ca: &str, trusts: &[&str]) -> Host {
        Host {
            address: [10, 0, 0, 1].into(),
            name: None,
            leaf: Some(Leaf { serial: "1".into(), ca: Some(ca.into()) }),
            trusts: Some(trusts.iter().map(|ca| (*ca).to_owned()).collect()),
            age_s: None,
        }
    }

    #[test]
    fn every_phase_and_what_is_none() {
        let rotation = Rotation { old: ["old".to_owned()].into(), new: "new".into() };
        for (ca, trusts, phase) in [
            ("old", &["old"][..], Phase::Before),
            ("old", &["old", "new"], Phase::Appended),
            ("new", &["old", "new"], Phase::NewLeaf),
            ("new", &["new"], Phase::Dropped),
            ("new", &["old"], Phase::Astray),
            ("old", &["new"], Phase::Astray),
            ("new", &["other"], Phase::Astray),
        ] {
            assert_eq!(rotation.phase(&host(ca, trusts)), phase, "{ca} {trusts:?}");
        }
        let silent = Host { trusts: None, ..host("old", &[]) };
        assert_eq!(rotation.phase(&silent), Phase::Unknown);
        assert!(Phase::Unknown < Phase::Before && Phase::Astray < Phase::Before);
    }
}
