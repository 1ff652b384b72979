//! tshark as judge: it reads every message of ours without a complaint, and decrypts IKE and ESP with
//! the tables that `warren keys export` writes.
#![allow(clippy::disallowed_methods, reason = "tests of the program use files, clocks and threads")]
#![allow(missing_docs)]

mod capture;
mod config;
mod decode;
#[path = "../../src/wireshark.rs"]
mod lines;
mod pair;
mod refusals;
mod suites;
mod texts;
mod tshark;
