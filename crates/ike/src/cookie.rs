//! Stateless cookies (RFC 7296 2.6).

use std::net::IpAddr;

use crypto::provider::Unsupported;
use crypto::{Provider, Secret};
use ipsec::Instant;
use wire::message::IkeSpi;

/// Makes and checks cookies without keeping anything about those who got one.
pub struct CookieJar {
    master: Secret,
}

/// What a cookie is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The initiator's nonce.
    pub ni: &'a [u8],
    /// The initiator's address.
    pub ip: IpAddr,
    /// The initiator's SPI.
    pub spi_i: IkeSpi,
}

impl CookieJar {
    /// From 32 secret random bytes.
    pub fn new(master: [u8; 32]) -> Self {
        Self { master: Secret::new(master.to_vec()) }
    }

    /// A cookie: version of the secret, MAC.
    pub fn issue(&self, provider: &dyn Provider, now: Instant, claim: Claim<'_>) -> Result<Vec<u8>, Unsupported> {
        let _ = (provider, now, claim, &self.master);
        todo!()
    }

    /// Whether `cookie` was issued to this claim under the current secret or the one before.
    pub fn check(&self, provider: &dyn Provider, now: Instant, claim: Claim<'_>, cookie: &[u8]) -> bool {
        let _ = (provider, now, claim, cookie);
        todo!()
    }
}
