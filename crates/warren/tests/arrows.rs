//! The walls between the crates, as far as cargo cannot hold them (`docs/ARCHITECTURE.md`, "Arrows").
#![allow(clippy::disallowed_methods, reason = "tests of the program use files, clocks and threads")]

use std::fs;
use std::path::{Path, PathBuf};

/// Which crates each crate may depend on outside its tests.
const ARROWS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("crypto", &["wire"]),
    ("ipsec", &["wire", "crypto"]),
    ("ike", &["wire", "crypto", "ipsec"]),
    ("mesh", &["wire", "ipsec", "ike"]),
    ("linux", &["wire", "ipsec"]),
    ("sim", &["mesh", "ike", "ipsec", "crypto", "wire"]),
];

/// Paths that a crate must not name although its dependencies would let it.
const NEVERS: &[(&str, &str, &str)] = &[
    ("ike", "ipsec::dataplane", "IKE makes SAs, it does not install them"),
    ("mesh", "wire::payload", "the fleet knows nothing of payloads"),
    ("mesh", "wire::message", "the fleet knows nothing of messages"),
];

#[test]
fn crates_depend_only_along_the_arrows() {
    for (name, allowed) in ARROWS {
        let manifest =
            fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        let dependencies = section(&manifest, "[dependencies]");
        for (other, _) in ARROWS.iter().filter(|(other, _)| other != name) {
            let depends = dependencies.lines().any(|line| {
                line.starts_with(&format!("{other}.")) || line.starts_with(&format!("{other} ="))
            });
            assert!(!depends || allowed.contains(other), "{name} must not depend on {other}");
        }
        assert!(!dependencies.contains("warren"), "nothing depends on the program: {name} does");
    }
}

#[test]
fn no_crate_names_what_it_must_not_know() {
    for (name, path, why) in NEVERS {
        for file in sources(name) {
            let text = fs::read_to_string(&file).unwrap();
            let (head, tail) = path.split_once("::").unwrap();
            let grouped = text.lines().any(|line| {
                line.starts_with(&format!("use {head}::{{")) && line.contains(&format!("{tail}::"))
            });
            assert!(!text.contains(path) && !grouped, "{} names {path}: {why}", file.display());
        }
    }
}

#[test]
fn unsafe_lives_in_linux_and_one_module_of_crypto() {
    for (name, _) in ARROWS.iter().filter(|(name, _)| *name != "linux") {
        let lib = fs::read_to_string(root().join("crates").join(name).join("src/lib.rs")).unwrap();
        let attribute =
            if *name == "crypto" { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
        assert!(lib.contains(attribute), "{name} lacks {attribute}");
    }
    let with_unsafe = sources("crypto")
        .into_iter()
        .filter(|file| fs::read_to_string(file).unwrap().contains("allow(unsafe_code)"))
        .count();
    assert!(with_unsafe <= 1, "crypto has one FFI module, found {with_unsafe}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn section<'a>(manifest: &'a str, heading: &str) -> &'a str {
    let start = manifest.find(heading).map_or(manifest.len(), |at| at + heading.len());
    let rest = &manifest[start..];
    &rest[..rest.find("\n[").unwrap_or(rest.len())]
}

fn sources(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root().join("crates").join(name).join("src")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no sources of {name}");
    found
}
