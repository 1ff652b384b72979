//! One file a command.

pub mod capture;
pub mod certificates;
pub mod check;
pub mod doctor;
pub mod explain;
pub mod guard;
pub mod import;
pub mod keys;
mod layout;
pub mod man;
pub mod mtu;
pub mod pki;
pub mod plan;
pub mod replay;
pub mod sim;
pub mod status;
pub mod trace;
pub mod tunnel;
pub mod wait;
