//! The command line.

use crate::matrix::Cell;

/// What is to be run.
#[derive(Default)]
pub struct Args {
    /// One JSON document instead of a table.
    pub json: bool,
    /// Only names; nothing is run.
    pub list: bool,
    only: Vec<String>,
    ci: bool,
}

const USAGE: &str = "usage: warren-interop [--json] [--list] [--part ci] [--only TEXT]...\n\
    --only takes the cells in whose names all words of TEXT stand; may be repeated for more cells";

impl Args {
    /// Reads the command line.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut args = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => args.json = true,
                "--list" => args.list = true,
                "--only" => args.only.push(words.next().ok_or(USAGE)?.clone()),
                "--part" => match words.next().map(String::as_str) {
                    Some("ci") => args.ci = true,
                    _ => return Err(format!("the only part is `ci`; {USAGE}")),
                },
                other => return Err(format!("unknown argument {other}; {USAGE}")),
            }
        }
        Ok(args)
    }

    /// Whether a cell is chosen.
    pub fn wants(&self, cell: &Cell) -> bool {
        let name = cell.to_string();
        let named = |text: &String| {
            text.split_whitespace().all(|word| name.split(' ').any(|part| part.contains(word)))
        };
        (!self.ci || cell.ci) && (self.only.is_empty() || self.only.iter().any(named))
    }
}
