//! One file an exchange, both roles in each.

pub(crate) mod addresses;
pub(crate) mod auth;
pub(crate) mod child;
pub(crate) mod create_child;
pub(crate) mod delete;
mod encap;
pub(crate) mod followup;
pub(crate) mod init;
pub(crate) mod intermediate;
pub(crate) mod liveness;
mod proof;
pub(crate) mod recovered;
pub(crate) mod rekey;
