//! `warren pki`: what it makes is judged by OpenSSL, what it is given may be anything.
#![allow(clippy::disallowed_methods, reason = "tests of the program use files, clocks and threads")]

mod world;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use world::{Ended, Folder, assert_narrow, finish, warren};

fn pki(folder: &Path, args: &[&str]) -> Ended {
    finish(warren().arg("pki").args(args).arg("--dir").arg(folder))
}

/// OpenSSL's word, where it is installed; it must be where tests must run.
fn openssl(folder: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new("openssl");
    command.args(args).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "openssl {args:?}: {text}{error}");
            Some(text)
        }
        Err(_) => {
            assert!(std::env::var_os("CI").is_none(), "openssl is not installed");
            eprintln!("SKIPPED: no openssl");
            None
        }
    }
}

#[test]
fn openssl_accepts_every_kind() {
    for kind in ["rsa3072", "p256", "p384", "ed25519"] {
        let folder = Folder::new();
        pki(&folder, &["init", "--key", kind]).ok();
        let sans =
            ["--san", "10.0.0.1", "--san", "fd00::1", "--san", "a.example", "--san", "x@y.example"];
        pki(&folder, &[&["issue", "web-1", "--key", kind, "--days", "30"][..], &sans].concat())
            .ok();
        let Some(shown) =
            openssl(&folder, &["verify", "-x509_strict", "-CAfile", "ca.pem", "web-1.pem"])
        else {
            return;
        };
        assert!(shown.contains("web-1.pem: OK"), "{shown}");
        let text = openssl(&folder, &["x509", "-in", "web-1.pem", "-noout", "-text"]).unwrap();
        for word in ["CN = web-1", "IP Address:10.0.0.1", "DNS:a.example", "email:x@y.example"] {
            assert!(text.replace("CN=", "CN = ").contains(word), "{word} not in {text}");
        }
        let public = openssl(&folder, &["pkey", "-in", "web-1.key", "-pubout"]).unwrap();
        let certified =
            openssl(&folder, &["x509", "-in", "web-1.pem", "-noout", "-pubkey"]).unwrap();
        assert_eq!(public, certified, "key and certificate do not belong together");
    }
}

#[test]
fn keys_are_for_their_owner() {
    let folder = Folder::new();
    pki(&folder, &["init", "--key", "p256"]).ok();
    pki(&folder, &["issue", "--key", "p256"]).ok();
    for name in ["ca.key", "warren-instance.key"] {
        let mode = std::fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    // A file that is replaced by force is for its owner too, whatever it was before.
    let key = folder.join("warren-instance.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let before = std::fs::read_to_string(&key).unwrap();
    pki(&folder, &["issue", "--key", "p256"]).fails(1, &["warren-instance", "--force"]);
    assert_eq!(std::fs::read_to_string(&key).unwrap(), before);
    pki(&folder, &["issue", "--key", "p256", "--force"]).ok();
    assert_ne!(std::fs::read_to_string(&key).unwrap(), before);
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    pki(&folder, &["init", "--key", "p256"]).fails(1, &["ca.pem", "--force"]);
}

#[test]
fn what_cannot_be_made() {
    let folder = Folder::new();
    pki(&folder, &["issue"]).fails(1, &["ca.pem", "pki init"]);
    pki(&folder, &["init", "--key", "p256", "--name", "the CA"]).ok();
    for name in ["", "ca", "../x", "a/b"] {
        pki(&folder, &["issue", name]).fails(2, &["cannot name"]);
    }
    pki(&folder, &["issue", "the CA", "--key", "p256"]).fails(1, &["the CA", "another name"]);
    pki(&folder, &["issue", "x", "--key", "p256", "--san", "pörk@example"]).fails(1, &["pörk"]);
    pki(&folder, &["issue", "x", "--key", "dsa"]).fails(2, &["rsa3072", "ed25519"]);
    std::fs::write(folder.join("ca.key"), "not a key").unwrap();
    pki(&folder, &["issue", "x", "--key", "p256"]).fails(1, &["CA's key"]);
    assert!(!folder.join("x.key").exists());
    pki(Path::new("/proc/nowhere"), &["init", "--key", "p256"]).fails(1, &["/proc/nowhere"]);
}

#[test]
fn inspect_reads_certificates_and_manifests() {
    let folder = Folder::new();
    pki(
        &folder,
        &[
            "init",
            "--key",
            "p256",
            "--name",
            "a CA with a name that is quite long for a line of a terminal, is it not, and longer",
        ],
    )
    .ok();
    pki(&folder, &["issue", "--key", "p256", "--days", "20"]).ok();
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let text = world::pki::properties(
        &read("warren-instance.pem"),
        &read("warren-instance.key"),
        &read("ca.pem"),
    );
    let manifest = folder.put("warren.yml", format!("ipsec_subnets: [10.0.0.0/8]\n{text}"));
    let inspect = |path: &Path| finish(warren().args(["pki", "inspect"]).arg(path));
    assert_narrow(&inspect(&manifest).ok());
    let json = finish(warren().args(["--json", "pki", "inspect"]).arg(&manifest)).ok();
    let rows: Value = serde_json::from_str(&json).unwrap();
    let rows = rows["certificates"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0]["role"], &rows[1]["role"]), (&"leaf".into(), &"ca".into()));
    assert_eq!(rows[0]["days_left"], 19);
    inspect(&folder.put("empty", "")).fails(1, &["empty", "BEGIN CERTIFICATE"]);
    inspect(&folder.join("ca.key")).fails(1, &["ca.key", "BEGIN CERTIFICATE"]);
    inspect(&folder.put("bytes", [0xff, 0, 0x30])).fails(1, &["bytes"]);
    inspect(&folder.put("broken", read("ca.pem").replacen("MII", "MIX", 1))).fails(1, &["broken"]);
    inspect(&folder).fails(1, &["directory"]);
    inspect(Path::new("/dev/zero")).fails(1, &["larger than"]);
    inspect(Path::new("/nonexistent")).fails(1, &["/nonexistent"]);
}
