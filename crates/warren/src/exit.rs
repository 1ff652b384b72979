//! How the program ends: 0 yes, 1 no, 2 wrong usage, 3 no daemon.

use std::fmt::Display;
use std::process::ExitCode;

/// Why a command did not end with 0. The message is for people and goes to standard error.
#[derive(Debug)]
pub enum Failure {
    /// The answer is "no": a check failed, a peer is not up, a file is bad.
    No(String),
    /// The command was used wrongly.
    Usage(String),
    /// The daemon cannot be reached.
    Unreachable(String),
    /// The answer is "no" and has been printed already.
    Printed,
}

impl Failure {
    /// "No", because of an error.
    pub fn no(error: impl Display) -> Self {
        Self::No(error.to_string())
    }

    /// Prints the message and gives the exit code.
    pub fn report(&self) -> ExitCode {
        let (code, message) = match self {
            Self::No(message) => (1, message.as_str()),
            Self::Usage(message) => (2, message.as_str()),
            Self::Unreachable(message) => (3, message.as_str()),
            Self::Printed => (1, ""),
        };
        if !message.is_empty() {
            crate::print::complain(format_args!("warren: {message}"));
        }
        ExitCode::from(code)
    }
}
