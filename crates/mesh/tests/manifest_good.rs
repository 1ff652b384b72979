//! Manifests that are taken: the three shapes, and what their values mean.

mod manifest_support;

use manifest_support::*;

#[test]
fn smoke() {
    let (m, notes) = ok(&format!("ipsec_subnets: [10.0.1.1/20]\npsk: {PSK}\n"));
    assert_eq!(m.ipsec_subnets[0].to_string(), "10.0.0.0/20");
    assert_eq!(notes.len(), 1);
}
