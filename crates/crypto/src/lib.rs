//! Cryptography behind one trait: prf+, ciphers, key exchange, signatures, chains of certificates.
//!
//! [`native`] does it with AWS-LC; [`toy`] is for the simulator and for fuzzing past the MACs, and
//! protects nothing. Pure: randomness and time come in as arguments.
#![deny(unsafe_code)]

pub mod chain;
pub mod cipher;
pub mod credentials;
pub mod kx;
pub mod native;
pub mod prf;
pub mod provider;
pub mod secret;
pub mod sign;
pub mod toy;

pub use credentials::Credentials;
pub use provider::Provider;
pub use secret::Secret;
