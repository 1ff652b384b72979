//! The only room with system calls: sockets, netlink, TUN, namespaces, clocks.
//!
//! Nothing here decides anything; every module is a thin, checked wrapper around one kernel interface.
#![allow(
    clippy::disallowed_methods,
    reason = "time, threads and files of the other crates live here"
)]

pub mod capture;
pub mod clock;
pub mod datagram;
pub mod echo;
pub mod errno;
pub mod guard;
pub mod listener;
pub mod lock;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod parcel;
pub mod passing;
pub mod random;
pub mod raw;
pub mod route;
pub mod sandbox;
pub mod tun;
pub mod udp;
pub mod userspace;
pub mod xfrm;

mod filter;
mod sys;

pub use errno::Errno;
