//! `run --record` and `replay`: a day of a daemon, again.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::telling::credentials;
use crate::world::{Folder, assert_narrow, finish, root, warren};
use crate::{Mesh, NAMES};

#[test]
fn a_recording_is_played_again_with_the_same_outcome() {
    if !root() {
        return;
    }
    let folder = Folder::new();
    // Signatures of P-256 are made with chance.
    let manifest = format!("{}{NAMES}", credentials(&folder));
    let mut mesh = Mesh::of(&["10.77.0.1", "10.77.0.2"], 24, 0, &manifest);
    mesh.daemons[1].start(&manifest);
    let tape = mesh.daemons[0].folder.join("tape");
    mesh.daemons[0].folder.put("warren.yml", &manifest);
    let mut command = mesh.daemons[0].run_command();
    command.arg("--record").arg(&tape);
    mesh.daemons[0].start_as(command);
    mesh.connect(0, 1);
    let one = &mesh.daemons[0];
    one.warren(&["rekey", "two"]).ok();
    one.folder.put("warren.yml", format!("{manifest}dpddelay: 20\n"));
    one.warren(&["reload"]).ok();
    one.warren(&["down", "two"]).ok();
    one.warren(&["up", "two"]).ok();
    one.until_up(mesh.address(1));
    assert!(one.log().contains("credentials and the seed of all keys"), "{}", one.log());
    one.warren(&["stop", "--flush"]).ok();
    assert!(mesh.daemons[0].ended().success());
    assert_eq!(tape.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // The files are gone: all that is needed is in the recording.
    drop(folder);
    let replay = |args: &[&str]| finish(warren().arg("replay").arg(&tape).args(args));
    let shown = replay(&["--peer", "two"]).ok();
    assert_narrow(&shown);
    for word in [
        "IKE_SA_INIT request",
        "IKE_AUTH response 1 [ IDr",
        "CREATE_CHILD_SA",
        "child-up",
        "what was recorded",
    ] {
        assert!(shown.contains(word), "no {word} in:\n{shown}");
    }
    let sums = replay(&["--json"]).ok();
    let sums: Value = serde_json::from_str(sums.lines().last().unwrap()).unwrap();
    assert_eq!((sums["same"].as_bool(), sums["torn"].as_bool()), (Some(true), Some(false)));
    damaged(&std::fs::read(&tape).unwrap());
}

/// What is torn ends early, and what is not what it was is told.
fn damaged(whole: &[u8]) {
    let folder = Folder::new();
    let replay = |bytes: &[u8]| {
        let path = folder.put("tape", bytes);
        finish(warren().arg("replay").arg(path))
    };
    let torn = replay(&whole[..whole.len() - 3]).ok();
    assert!(torn.contains("in the middle of an input"), "{torn}");
    let mut another_seed = whole.to_vec();
    let host = "warren".len();
    // Somewhere in the beginning's seed, which follows the names.
    let begin = 4 + u32::from_be_bytes(*whole.first_chunk().unwrap()) as usize;
    another_seed[begin - 16 - host] ^= 1;
    replay(&another_seed).fails(1, &["is not what came out"]);
    replay(b"").fails(1, &["empty"]);
    replay(b"no recording at all").fails(1, &["no recording"]);
}
