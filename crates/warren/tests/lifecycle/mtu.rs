//! `mtu`: what is computed, and what really passes.

use linux::route::Rtnl;

use crate::world::{assert_narrow, finish, root, warren};
use crate::{BASE, Mesh};

#[test]
fn the_table_has_every_mode_of_every_suite() {
    let text = finish(warren().arg("mtu")).ok();
    assert_narrow(&text);
    let line = text.lines().find(|line| line.starts_with("aes128gcm16 ")).unwrap();
    // 20 IP + 8 ESP + 8 IV + payload and 2, a multiple of 4, + 16 ICV = 1500: 1446 bytes behind the IP header.
    assert_eq!(line.split_whitespace().nth(2), Some("1466"), "{text}");
    let one = finish(warren().args(["mtu", "--suite", "aes256-sha512", "--mtu", "1400", "--json"]));
    let table: serde_json::Value = serde_json::from_str(&one.ok()).unwrap();
    let [row] = table["suites"].as_array().unwrap().as_slice() else { panic!("{table:#}") };
    // 16 IV, 32 ICV, blocks of 16: 1400 - 20 - 8 - 16 - 32 = 1324, 1312 in whole blocks, 2 for the trailer.
    assert_eq!(row["tunnel"]["plain"]["mtu"], 1310, "{row:#}");
    assert_eq!(row["transport"]["plain"]["mtu"], 1330, "{row:#}");
}

#[test]
fn what_is_measured_follows_the_link_and_is_not_above_what_is_computed() {
    if !root() {
        return;
    }
    let mesh = Mesh::pair(BASE);
    let one = &mesh.daemons[0];
    let measure = || {
        let shown = one.json(&["mtu", "10.77.0.2"]);
        let figure =
            |value: &serde_json::Value| value.as_u64().unwrap_or_else(|| panic!("{shown:#}"));
        (figure(&shown["measured"]), figure(&shown["computed"]["mtu"]))
    };
    let (wide, computed) = measure();
    assert_eq!(computed, 1466);
    assert!((1400..=computed).contains(&wide), "{wide} of {computed}");
    assert_narrow(&one.warren(&["mtu", "10.77.0.2"]).ok());
    mesh.net.hosts[0].run(|| Rtnl::open().unwrap().set_mtu("eth0", 1300).unwrap());
    crate::world::eventually("less on a narrower link", || {
        let (narrow, computed) = measure();
        (narrow <= computed && (1200..=1300).contains(&narrow)).then_some(())
    });
    one.warren(&["mtu", "10.77.0.3"]).fails(1, &["10.77.0.3", "warren up"]);
}
