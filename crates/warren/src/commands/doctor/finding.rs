//! What a check found.

use serde::Serialize;

/// How it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It could not be checked; the text says why.
    Skipped,
    /// It works, and may not for long, or not as it seems to.
    Warning,
    /// It does not work, or will not after the next start.
    Error,
}

/// One check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// Where it belongs: `daemon`, `manifest`, `host`, `network`, `firewall`, `peers`, or a peer's address.
    pub area: String,
    /// What was checked, in a word or two.
    pub check: &'static str,
    /// How it is.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All checks of one area.
pub struct Findings<'a> {
    area: String,
    all: &'a mut Vec<Finding>,
}

impl<'a> Findings<'a> {
    /// Adds to `all`.
    pub fn of(area: impl Into<String>, all: &'a mut Vec<Finding>) -> Self {
        Self { area: area.into(), all }
    }

    /// As it should be.
    pub fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Level::Ok, text.into(), None);
    }

    /// It could not be checked.
    pub fn skipped(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Level::Skipped, text.into(), None);
    }

    /// It works for now.
    pub fn warning(
        &mut self,
        check: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(check, Level::Warning, text.into(), Some(remedy.into()));
    }

    /// It does not work.
    pub fn error(
        &mut self,
        check: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(check, Level::Error, text.into(), Some(remedy.into()));
    }

    /// Any of them.
    pub fn add(&mut self, check: &'static str, level: Level, text: String, remedy: Option<String>) {
        let remedy = remedy.filter(|remedy| !remedy.is_empty());
        self.all.push(Finding { area: self.area.clone(), check, level, text, remedy });
    }
}
