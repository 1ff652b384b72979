//! What can be wrong with files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use crate::world::{Folder, finish, root, warren};
use crate::{Judge, PSK};

#[test]
fn no_manifest_at_all() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    judge.refuses("", &["warren.yml"]);
    judge.refuses("---\n", &["warren.yml"]);
    judge.refuses("just words\n", &["warren.yml"]);
    judge.refuses("[1, 2, 3]\n", &["warren.yml"]);
    judge.refuses([0, 1, 2, 0xff, 0xfe, 0x80, b'\n', 0], &["warren.yml"]);
    judge.refuses(vec![b'#'; 17 << 20], &["warren.yml", "16"]);
    judge.refuses("a: &a [x]\nb: *a\nb: {{{\n", &["warren.yml:"]);
}

#[test]
fn deep_and_swelling_yaml_costs_nothing() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    judge.refuses("[".repeat(100_000), &["warren.yml"]);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..20 {
        let before = format!("*a{}, ", n - 1).repeat(9);
        bomb += &format!("a{n}: &a{n} [{}]\n", before.trim_end_matches(", "));
    }
    judge.refuses(bomb + "ipsec_subnets: *a19\n", &["warren.yml"]);
}

#[test]
fn what_is_no_file() {
    let folder = Folder::new();
    let check = |path: &str| finish(warren().args(["check", path]));
    let here = folder.to_str().unwrap();
    check(here).refused(&[here, "directory"]);
    let missing = folder.join("missing.yml");
    check(missing.to_str().unwrap()).refused(&["missing.yml", "No such file"]);
    // A device that never ends.
    check("/dev/zero").refused(&["/dev/zero", "larger than 16 MiB"]);
}

#[test]
fn a_file_that_may_not_be_read() {
    if !root() {
        return;
    }
    let folder = Folder::new();
    // The program where nobody can reach it too.
    let program = folder.join("warren");
    fs::copy(env!("CARGO_BIN_EXE_warren"), &program).unwrap();
    let path = folder.put("warren.yml", format!("ipsec_subnets: [10.77.0.0/24]\n{PSK}"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = std::process::Command::new(program);
    command.arg("check").arg(&path).uid(65534).gid(65534);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    finish(&mut command).refused(&["warren.yml", "Permission denied"]);
}

#[test]
fn references_that_lead_nowhere() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    let text = "ipsec_subnets: [10.77.0.0/24]\npsk: file:secret.psk\n";
    judge.refuses(text, &["warren.yml:2", "secret.psk", "No such file"]);
    let text = "ipsec_subnets: [10.77.0.0/24]\npsk: credential:psk\n";
    judge.refuses(text, &["warren.yml:2", "CREDENTIALS_DIRECTORY"]);
    let text = "ipsec_subnets: [10.77.0.0/24]\npsk: credential:../psk\n";
    judge.refuses(text, &["warren.yml:2", "../psk"]);
    let text = "ipsec_subnets: [10.77.0.0/24]\npsk: file:.\n";
    judge.refuses(text, &["warren.yml:2", "directory"]);
    let text = format!("ipsec_subnets: [10.77.0.0/24]\n{PSK}include: [other.yml]\n");
    judge.refuses(text, &["warren.yml:3", "other.yml", "No such file"]);
}

#[test]
fn files_that_include_each_other() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    judge.daemon.folder.put("other.yml", "include: [warren.yml]\n");
    let text = format!("ipsec_subnets: [10.77.0.0/24]\n{PSK}include: [other.yml]\n");
    judge.refuses(text, &["include", "warren.yml", "other.yml"]);
    judge.refuses(format!("{PSK}include: [warren.yml]\n"), &["warren.yml", "include"]);
}

#[test]
fn an_error_in_an_included_file_names_that_file() {
    if !root() {
        return;
    }
    let judge = Judge::new();
    judge.daemon.folder.put("other.yml", "\nmode: tunel\n");
    let text = format!("ipsec_subnets: [10.77.0.0/24]\n{PSK}include: [other.yml]\n");
    judge.refuses(text, &["other.yml:2:7", "tunel", "tunnel"]);
}

#[test]
fn an_output_that_cannot_be_written() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let help = finish(warren().arg("sim").stdout(full()));
    help.fails(1, &["standard output", "No space left"]);
    let silent = finish(warren().args(["check", "/nonexistent"]).stderr(full()));
    assert_eq!(silent.code, Some(1));
    // A reader that has seen enough.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    finish(warren().args(["sim", "--hosts", "3"]).stdout(writer)).ok();
}
