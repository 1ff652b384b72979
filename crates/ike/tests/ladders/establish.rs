//! IKE_SA_INIT and IKE_AUTH.

use crate::setup::*;

#[test]
fn psk() {
    let mut world = toy(1, |_| {});
    world.traffic = true;
    world.initiate(0);
    world.run_secs(3);
    println!("{}", world.story());
    world.assert_settled();
    world.assert_no_loss();
}
