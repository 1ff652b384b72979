//! Suites for people: what was agreed, and why nothing was.

use wire::proposal::Proposal;

use crate::negotiate::{EspSuite, IkeSuite};

/// `aes128-sha256-modp2048` or `aes128gcm16-prfsha256-ecp256`: strongSwan's syntax.
pub fn suite_text(suite: &IkeSuite) -> String {
    let _ = suite;
    todo!()
}

/// `aes128gcm16`, `aes128-sha256-modp2048-esn`.
pub fn suite_text_esp(suite: &EspSuite) -> String {
    let _ = suite;
    todo!()
}

/// Both lists side by side with what keeps the nearest pair apart, for the log of a NO_PROPOSAL_CHOSEN.
pub fn explain(ours: &[Proposal], theirs: &[Proposal]) -> String {
    let _ = (ours, theirs);
    todo!()
}
