//! The CA is exchanged under a running fleet, in the three phases that every guide has.

use super::Scenario;
use crate::args::KeyType;
use crate::lab::authority::Authority;
use crate::lab::rotation::{self, Phase};
use crate::lab::stage::{Stage, Stopped};
use crate::pki::DAY;

/// `rotate-ca`
pub struct RotateCa;

impl Scenario for RotateCa {
    fn name(&self) -> &'static str {
        "rotate-ca"
    }

    fn about(&self) -> &'static str {
        "new CA appended, new leaf under it, old CA dropped: each host by host, tunnels made anew"
    }

    fn required(&self) -> &'static str {
        "0 packets lost in each phase; status shows which host is in which phase"
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        stage.certify()?;
        let (folder, kind) = (stage.credentials().to_owned(), KeyType::Rsa3072);
        let next = Authority::new(&folder, "ca-2", "the lab's next CA", kind, 30 * DAY)?;
        next.issue("instance-2", "lab instance of next year", 30 * DAY)?;
        stage.begin(stage.len(), &stage.all_pairs())?;
        let phases = [
            Phase { name: "as it was", leaf: "instance", cas: &["ca"] },
            Phase { name: "new CA appended", leaf: "instance", cas: &["ca", "ca-2"] },
            Phase { name: "new leaf", leaf: "instance-2", cas: &["ca", "ca-2"] },
            Phase { name: "old CA dropped", leaf: "instance-2", cas: &["ca-2"] },
        ];
        for pair in phases.windows(2) {
            rotation::play(stage, pair[0], pair[1])?;
        }
        Ok(())
    }
}
