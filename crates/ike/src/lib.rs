//! IKEv2 (RFC 7296) as a value: datagrams, finished jobs and commands go in; datagrams, jobs and events come out.
//!
//! Knows the RFC and nothing of fleets: which peers there are, who initiates and how many at once is
//! `mesh`'s. Makes SAs, does not install them. Pure: time and randomness are arguments.
#![forbid(unsafe_code)]

pub mod auth;
pub mod auth_methods;
mod child_sa;
mod cluster;
pub mod collide;
pub mod config;
mod context;
pub mod cookie;
mod crash;
pub mod endpoint;
pub mod error;
mod established;
pub mod event;
mod exchange;
pub mod fragment;
mod ike_sa;
pub mod ipcomp;
pub mod job;
pub mod keys;
pub mod mobility;
pub mod multi_ke;
pub mod narrow;
pub mod nat;
pub mod negotiate;
pub mod ppk;
pub mod record;
pub mod redirect;
pub mod rng;
pub mod sk;
pub mod suite;
mod timer;
mod told;
pub mod window;

pub use crypto::Credentials;
pub use crypto::chain::rfc3339;
pub use crypto::{Provider, Secret};

pub use config::{Auth, ChildConfig, Directory, Load, PeerConfig};
pub use endpoint::{Endpoint, Now, Output};
pub use event::{ChildId, Event, IkeSaId};
pub use job::{Done, Job, JobId, Work};
pub use ppk::Ppk;
