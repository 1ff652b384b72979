//! The tables of docs/algorithms.md say what the program does, and what the RFCs ask for.
#![allow(missing_docs)]

use ike::suite::{self, Review};
use wire::suite_text::{parse_esp, parse_ike};

const PAGE: &str = include_str!("../../../docs/algorithms.md");
/// Keywords; a page that shrinks has lost a row.
const KEYWORDS: usize = 76;

/// What a proposal with an algorithm says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    Yes,
    Noted,
    No,
}

impl Word {
    fn written(cell: &str) -> Self {
        match cell {
            _ if cell.starts_with("yes, with a note") => Self::Noted,
            _ if cell.starts_with("yes") => Self::Yes,
            _ if cell.starts_with("no") => Self::No,
            _ => panic!("neither yes nor no: {cell}"),
        }
    }

    fn of(review: Option<Review>) -> Self {
        match review {
            Some(review) if review.usable && review.weak.is_empty() => Self::Yes,
            Some(review) if review.usable => Self::Noted,
            _ => Self::No,
        }
    }
}

fn in_ike(proposals: &[String]) -> Word {
    Word::of(proposals.iter().find_map(|text| parse_ike(text).ok()).map(|p| suite::review(&p)))
}

fn in_esp(proposals: &[String]) -> Word {
    Word::of(proposals.iter().find_map(|text| parse_esp(text).ok()).map(|p| suite::review(&p)))
}

/// What the RFC asks for is there, what it forbids is not.
fn obeys(level: &str, word: Word, row: &str) {
    let forbidden = level.starts_with("MUST NOT");
    let wanted = !level.contains("NOT") && ["MUST", "SHOULD"].iter().any(|l| level.starts_with(l));
    assert!(!forbidden || word == Word::No, "what must not be: {row}");
    assert!(!wanted || word != Word::No, "what is asked for is missing: {row}");
}

/// Rows of the section of this heading: cells.
fn rows(heading: &str) -> impl Iterator<Item = (Vec<&str>, &str)> {
    let section = PAGE.split("\n## ").find(|section| section.starts_with(heading));
    let lines = section.unwrap_or_else(|| panic!("no section {heading}")).lines();
    let rows = lines.filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    rows.skip(1).map(|line| (line.trim_matches('|').split('|').map(str::trim).collect(), line))
}

/// Keywords of a row's first cell.
fn keywords<'a>(cells: &[&'a str]) -> impl Iterator<Item = &'a str> + use<'a> {
    cells[0].split('`').skip(1).step_by(2)
}

/// Both protocols have a column. `K` stands for the keyword; the first form that is a proposal counts.
fn check_both(heading: &str, forms: [&[&str]; 2]) -> usize {
    let mut seen = 0;
    for (cells, row) in rows(heading) {
        let (ike, esp) = (Word::written(cells[3]), Word::written(cells[5]));
        obeys(cells[2], ike, row);
        obeys(cells[4], esp, row);
        for keyword in keywords(&cells) {
            let [for_ike, for_esp] = forms.map(|forms| with(forms, keyword));
            assert_eq!((in_ike(&for_ike), in_esp(&for_esp)), (ike, esp), "{keyword}: {row}");
            seen += 1;
        }
    }
    seen
}

/// The same where one column says it.
fn check_ike(heading: &str, form: &str) -> usize {
    let mut seen = 0;
    for (cells, row) in rows(heading) {
        let word = Word::written(cells[3]);
        obeys(cells[2], word, row);
        for keyword in keywords(&cells) {
            assert_eq!(in_ike(&with(&[form], keyword)), word, "{keyword}: {row}");
            seen += 1;
        }
    }
    seen
}

fn with(forms: &[&str], keyword: &str) -> Vec<String> {
    forms.iter().map(|form| form.replace('K', keyword)).collect()
}

#[test]
fn what_the_page_says_is_so() {
    let encryption: [&[&str]; 2] =
        [&["K-prfsha256-modp2048", "K-sha256-modp2048"], &["K", "K-sha256"]];
    let seen = check_both("Encryption", encryption)
        + check_both("Integrity", [&["aes128-K-prfsha256-modp2048"], &["aes128-K"]])
        + check_ike("Pseudorandom functions", "aes128-sha256-K-modp2048")
        + check_ike("Key exchange", "aes128-sha256-K");
    assert!(seen >= KEYWORDS, "only {seen} keywords");
}

/// The judge is not blind.
#[test]
#[should_panic(expected = "what is asked for is missing")]
fn a_missing_must_is_found() {
    obeys("MUST-", Word::No, "");
}

#[test]
#[should_panic(expected = "what must not be")]
fn a_must_not_that_is_there_is_found() {
    obeys("MUST NOT (9395)", Word::Noted, "");
}
