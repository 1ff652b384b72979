//! Wall-clock time for people.

pub use ike::rfc3339;
