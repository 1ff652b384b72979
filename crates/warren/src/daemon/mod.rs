//! `warren run`: the daemon.

mod aside;
pub mod boot;
pub mod carrier;
pub mod cleartext;
pub mod control;
pub mod driver;
pub mod flight;
pub mod handover;
pub mod holder;
mod intake;
pub mod jobs;
pub mod journal;
pub mod log;
pub mod orders;
pub mod site;
pub mod tape;
pub mod thrift;
pub mod trace;
