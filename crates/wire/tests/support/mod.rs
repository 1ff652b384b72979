//! Shared by the tests of this crate; not every test uses everything.
#![allow(dead_code, missing_docs)]

pub mod messages;
pub mod strategies;
