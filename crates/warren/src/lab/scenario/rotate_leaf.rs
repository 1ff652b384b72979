//! Every host gets a new certificate of the same CA.

use super::Scenario;
use crate::lab::authority::Authority;
use crate::lab::rotation::{self, Phase};
use crate::lab::stage::{Stage, Stopped};
use crate::pki::DAY;

/// `rotate-leaf`
pub struct RotateLeaf;

impl Scenario for RotateLeaf {
    fn name(&self) -> &'static str {
        "rotate-leaf"
    }

    fn about(&self) -> &'static str {
        "a new certificate of the same CA, host by host; tunnels between old and new are made anew"
    }

    fn required(&self) -> &'static str {
        "0 packets lost; status shows which host has which certificate"
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        stage.certify()?;
        let ca = Authority::open(stage.credentials(), "ca")?;
        ca.issue("instance-2", "lab instance of next year", 30 * DAY)?;
        stage.begin(stage.len(), &stage.all_pairs())?;
        let before = Phase { name: "as it was", leaf: "instance", cas: &["ca"] };
        let after = Phase { name: "new leaf", leaf: "instance-2", cas: &["ca"] };
        rotation::play(stage, before, after)
    }
}
