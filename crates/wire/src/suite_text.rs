//! strongSwan's proposal syntax: `aes128-sha256-modp2048`, `aes128gcm16`, a trailing `!` accepted.

use crate::proposal::Proposal;

/// Why a proposal's text was refused; `Display` says it with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuiteError {
    /// A keyword that is not known; `known` lists those that are, `nearest` the likeliest meant.
    #[error("unknown algorithm `{keyword}`{}; known are: {known}", .nearest.as_ref().map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default())]
    UnknownAlgorithm {
        /// What was written.
        keyword: String,
        /// The most similar known keyword, if any is near.
        nearest: Option<String>,
        /// All known keywords, comma-separated.
        known: String,
    },
    /// Known, but missing a kind without which the protocol cannot work, or combined wrongly.
    #[error("{0}")]
    Incomplete(String),
}

/// Reads an IKE proposal. The PRF follows from the integrity algorithm where none is named.
pub fn parse_ike(text: &str) -> Result<Proposal, SuiteError> {
    let _ = text;
    Err(SuiteError::Incomplete(String::new()))
}

/// Reads an ESP proposal. A key exchange method in it asks for PFS; `esn` and `noesn` choose sequence numbers.
pub fn parse_esp(text: &str) -> Result<Proposal, SuiteError> {
    let _ = text;
    Err(SuiteError::Incomplete(String::new()))
}
