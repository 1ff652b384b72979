//! What the tests of the manifest share.
#![allow(dead_code)]

use mesh::manifest::{Diagnostics, Manifest, NoFiles, Note};

pub const PSK: &str = "correct horse battery staple";

pub fn ok(text: &str) -> (Manifest, Vec<Note>) {
    match Manifest::parse("ipsec.yml", text, &NoFiles) {
        Ok(good) => good,
        Err(found) => panic!("refused:\n{found}"),
    }
}

pub fn bad(text: &str) -> Diagnostics {
    match Manifest::parse("ipsec.yml", text, &NoFiles) {
        Ok(_) => panic!("taken:\n{text}"),
        Err(found) => found,
    }
}
