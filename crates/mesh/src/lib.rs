//! The fleet seen from one host, as one pure value: manifest → plan → peers → reconciler → status.
//!
//! [`Mesh`] takes an [`Input`] and gives [`Output`]s in the order in which they must be carried out;
//! it touches nothing itself. Knows fleets, and nothing of IKE payloads.
#![forbid(unsafe_code)]

mod backlog;
mod bucket;
pub mod budget;
pub mod cleartext;
pub mod command;
pub mod directory;
pub mod event;
pub mod fleet;
pub mod import;
pub mod journal;
pub mod loaded;
pub mod manifest;
pub mod mesh;
pub mod metrics;
pub mod pair;
pub mod peer;
pub mod peers;
pub mod plan;
pub mod radius;
pub mod readiness;
pub mod reconcile;
pub mod recording;
pub mod status;
pub mod time;

pub use command::{Command, CommandError, Order, Reply, Target};
pub use event::{Event, Kind};
pub use loaded::{CertificateFact, CertificateRole, Loaded};
pub use mesh::{Identity, Input, Mesh, Output, Why};
pub use status::Status;
