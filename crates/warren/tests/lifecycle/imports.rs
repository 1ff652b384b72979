//! `import`: what comes out is a manifest that `check` accepts and daemons run with.

use serde_json::Value;

use crate::Mesh;
use crate::world::{Folder, finish, root, warren};

#[test]
fn what_is_imported_passes_check_and_carries_packets() {
    if !root() {
        return;
    }
    let folder = Folder::new();
    folder.put(
        "ipsec-tools.conf",
        "flush; spdflush;\nspdadd 10.77.0.1 10.77.0.0/24 any -P out ipsec esp/transport//require;\n\
         spdadd 0.0.0.0/0 0.0.0.0/0[22] tcp -P out none;\n",
    );
    folder.put(
        "racoon.conf",
        "remote anonymous { exchange_mode main; proposal { encryption_algorithm aes 256; hash_algorithm sha256; dh_group 14; } }\n\
         sainfo anonymous { encryption_algorithm aes 256; authentication_algorithm hmac_sha256; compression_algorithm deflate; }\n",
    );
    folder.put("psk.txt", "* correct horse battery staple\n");
    let files = ["ipsec-tools.conf", "racoon.conf", "psk.txt"].map(|name| folder.join(name));
    let ended = finish(warren().arg("import").args(&files));
    assert!(ended.err.contains("IKEv1"), "{ended:#?}");
    let manifest = ended.ok();
    let file = folder.put("warren.yml", &manifest);
    finish(warren().arg("check").arg(&file).args(["--address", "10.77.0.1"])).ok();
    let json = finish(warren().arg("import").args(&files).arg("--json")).ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["manifest"].as_str().unwrap().trim_end(), manifest.trim_end());
    assert!(!json["notes"].as_array().unwrap().is_empty());
    let mesh = Mesh::pair(&manifest);
    let row = mesh.daemons[0].peer(mesh.address(1));
    assert_eq!(row["ike_sas"][0]["suite"], "aes256-sha256-modp2048");
    assert_eq!(row["child_sas"][0]["suite"], "aes256-sha256");
}

#[test]
fn included_files_are_read_beside_the_one_that_names_them() {
    let folder = Folder::new();
    std::fs::create_dir(folder.join("conf.d")).unwrap();
    folder.put(
        "conf.d/b.conf",
        "connections { b { remote_addrs = 192.0.2.2\n children { c { mode = transport } } } }\n",
    );
    folder.put(
        "conf.d/a.conf",
        "connections { a { remote_addrs = 192.0.2.1\n children { c { mode = transport } } } }\n",
    );
    let file = folder.put("swanctl.conf", "connections {\n}\ninclude conf.d/*.conf\n");
    let manifest =
        finish(warren().arg("import").arg(&file).args(["--psk", "correct horse battery staple"]))
            .ok();
    let places = ["192.0.2.1/32", "192.0.2.2/32"].map(|net| manifest.find(net));
    assert!(places[0].is_some() && places[0] < places[1], "{manifest}");
    let file = folder.put("warren.yml", &manifest);
    finish(warren().arg("check").arg(&file).args(["--address", "192.0.2.1"])).ok();
}
