//! Configurations of other IPsec systems as a manifest: OpenBSD's `ipsec.conf`, `ipsec-tools.conf` and `racoon.conf`,
//! strongSwan's `swanctl.conf`.
//!
//! What has a counterpart is taken over; whatever has none is named in a note with its line, never dropped in silence.
//! Secrets that are in the files are in the manifest: it is to be kept as they were.

mod algorithms;
mod draft;
mod emit;
mod openbsd;
mod racoon;
mod setkey;
mod swanctl;
mod words;

use std::fmt;

use draft::Draft;
pub use draft::Given;

/// Files that include files, at most so deep.
const DEEPEST: usize = 8;
/// Files in all.
const MOST_FILES: usize = 256;

/// Which system a file is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// `ipsec.conf` of OpenBSD (ipsec.conf(5)).
    OpenBsd,
    /// `ipsec-tools.conf`, input of setkey(8).
    Setkey,
    /// `racoon.conf`.
    Racoon,
    /// `psk.txt` of racoon.
    RacoonKeys,
    /// `swanctl.conf`.
    Swanctl,
}

/// A remark on one line of the input.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Note {
    /// Which file; empty: all of them.
    pub file: String,
    /// Counted from 1; 0: the whole file.
    pub line: usize,
    /// What has no counterpart or another meaning, and what to do about it.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => f.write_str(&self.text),
            (file, 0) => write!(f, "{file}: {}", self.text),
            (file, line) => write!(f, "{file}, line {line}: {}", self.text),
        }
    }
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imported {
    /// A manifest in YAML.
    pub manifest: String,
    /// What a reader has to know.
    pub notes: Vec<Note>,
}

/// Why there is no manifest.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// A file is of none of the known kinds.
    #[error(
        "{0}: neither ipsec.conf, ipsec-tools.conf, racoon.conf, its psk.txt nor swanctl.conf; `--format` names it"
    )]
    Format(String),
    /// Nothing in the files would be protected.
    #[error("nothing in these files says what to protect")]
    Nothing,
}

/// A file with its content.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name, for notes and to find what it includes.
    pub name: String,
    /// What is in it.
    pub text: String,
    /// Which kind, if that was said.
    pub format: Option<Format>,
}

/// Fetches an included file: its name as written, and the file that names it.
pub type Include<'a> = dyn Fn(&str, &str) -> Result<Vec<Source>, String> + 'a;

/// Reads the files, and whatever they include, into one manifest.
///
/// # Errors
/// If a file is of no known kind, or nothing in all of them is to be protected.
pub fn import(
    sources: Vec<Source>,
    include: &Include<'_>,
    given: Given,
) -> Result<Imported, Error> {
    let mut draft = Draft::new(given);
    let mut todo: Vec<(usize, Source)> =
        sources.into_iter().rev().map(|source| (0, source)).collect();
    let mut read = 0;
    while let Some((depth, source)) = todo.pop() {
        read += 1;
        let format =
            source.format.or_else(|| detect(&source)).ok_or(Error::Format(source.name.clone()))?;
        draft.begin(&source.name);
        match format {
            Format::OpenBsd => openbsd::read(&source.text, &mut draft),
            Format::Setkey => setkey::read(&source.text, &mut draft),
            Format::Racoon => racoon::read(&source.text, &mut draft),
            Format::RacoonKeys => racoon::read_keys(&source.text, &mut draft),
            Format::Swanctl => swanctl::read(&source.text, &mut draft),
        }
        for (line, path) in std::mem::take(&mut draft.includes) {
            if depth >= DEEPEST || read + todo.len() >= MOST_FILES {
                draft.note(line, format!("`{path}` is not read: too many files include files"));
                continue;
            }
            match include(&path, &source.name) {
                Ok(files) => todo.extend(files.into_iter().rev().map(|file| {
                    (depth + 1, Source { format: file.format.or(Some(format)), ..file })
                })),
                Err(error) => draft.note(line, format!("`{path}` is not read: {error}")),
            }
        }
    }
    draft.finish()
}

/// By what is in it; names of files say little.
fn detect(source: &Source) -> Option<Format> {
    let lines =
        || source.text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let begins = |words: &[&str]| {
        lines().any(|line| {
            let first = line.split(|c: char| c.is_whitespace() || c == '{' || c == ';').next();
            words.contains(&first.unwrap_or_default())
        })
    };
    if begins(&["spdadd", "spdflush", "spddelete"]) {
        Some(Format::Setkey)
    } else if begins(&["connections", "secrets", "authorities", "pools"]) {
        Some(Format::Swanctl)
    } else if begins(&["sainfo", "remote", "listen", "padding", "path"]) {
        Some(Format::Racoon)
    } else if begins(&["ike", "flow", "esp", "ah", "ipcomp", "tcpmd5"]) {
        Some(Format::OpenBsd)
    } else if source.name.ends_with("psk.txt") {
        Some(Format::RacoonKeys)
    } else if begins(&["include"]) {
        // All that such a file of OpenBSD has besides are macros.
        Some(Format::OpenBsd)
    } else {
        None
    }
}
