//! The list of RFC 7296's requirements names files and tests that exist.
#![allow(clippy::disallowed_methods, reason = "reads the project's own files")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const LIST: &str = include_str!("../../../docs/rfc7296.md");
/// Rows; a list that shrinks has lost a requirement.
const ROWS: usize = 248;
/// Sections with requirements.
const SECTIONS: &[&str] = &[
    "1", "1.2", "1.3", "1.3.1", "1.3.2", "1.3.3", "1.4", "1.4.1", "1.5", "1.7", "2", "2.1", "2.2",
    "2.3", "2.4", "2.5", "2.6", "2.6.1", "2.7", "2.8", "2.8.1", "2.8.2", "2.9", "2.9.2", "2.10",
    "2.11", "2.12", "2.13", "2.14", "2.15", "2.16", "2.17", "2.18", "2.19", "2.20", "2.21.2",
    "2.21.3", "2.21.4", "2.22", "2.23", "2.23.1", "2.24", "2.25", "2.25.1", "2.25.2", "3", "3.1",
    "3.2", "3.3", "3.3.1", "3.3.2", "3.3.3", "3.3.4", "3.3.5", "3.3.6", "3.4", "3.5", "3.6", "3.7",
    "3.8", "3.9", "3.10", "3.10.1", "3.11", "3.12", "3.13", "3.13.1", "3.14", "3.15", "3.16", "4",
    "5",
];

/// A name of the list as a file.
fn file(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if let Some(rest) = name.strip_prefix("lib:") {
        return root.join("crates/ike/src").join(rest);
    }
    let of_ike = ["ladders/", "leaf/"].iter().any(|dir| name.starts_with(dir));
    if of_ike { root.join("crates/ike/tests").join(name) } else { root.join(name) }
}

/// Words that look like files.
fn files(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split([' ', ',', '(', ')', ';']);
    words.map(|word| word.trim_end_matches([':', '.'])).filter(|word| word.ends_with(".rs"))
}

#[test]
fn every_row_names_what_is_there() {
    let rows: Vec<Vec<&str>> = LIST
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| §"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() >= ROWS, "only {} rows", rows.len());
    for row in &rows {
        let [section, requirement, place, test] = row[..] else { panic!("{row:?}") };
        assert!(![section, requirement, place, test].contains(&""), "an empty cell: {row:?}");
        assert!(files(place).next().is_some(), "no file: {row:?}");
        for name in files(place) {
            assert!(file(name).is_file(), "there is no {name}: {row:?}");
        }
        let (in_file, name) = test.split_once("::").unwrap_or_else(|| panic!("no test: {row:?}"));
        let text = std::fs::read_to_string(file(in_file));
        let text = text.unwrap_or_else(|e| panic!("{in_file}: {e}: {row:?}"));
        // A function, or a line of a table that makes functions.
        let there = [format!("fn {name}("), format!("    {name}: ")];
        assert!(there.iter().any(|form| text.contains(form.as_str())), "no {name}: {row:?}");
    }
    let there: BTreeSet<_> = rows.iter().map(|row| row[0]).collect();
    let missing: Vec<_> = SECTIONS.iter().filter(|section| !there.contains(*section)).collect();
    assert!(missing.is_empty(), "no row of {missing:?}");
}
