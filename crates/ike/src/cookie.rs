//! Stateless cookies (RFC 7296 2.6).

use std::net::IpAddr;

use crypto::provider::Unsupported;
use crypto::{Provider, Secret};
use ipsec::Instant;
use wire::message::IkeSpi;
use wire::registry::Prf;

/// Makes and checks cookies without keeping anything about those who got one.
#[derive(Clone)]
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

    /// A cookie: version of the secret, MAC. 33 bytes with the real provider, at most 64 (RFC 7296 2.6).
    pub fn issue(
        &self,
        provider: &dyn Provider,
        now: Instant,
        claim: Claim<'_>,
    ) -> Result<Vec<u8>, Unsupported> {
        self.cookie(provider, epoch(now), claim)
    }

    /// Whether `cookie` was issued to this claim under the current secret or the one before.
    pub fn check(
        &self,
        provider: &dyn Provider,
        now: Instant,
        claim: Claim<'_>,
        cookie: &[u8],
    ) -> bool {
        let current = epoch(now);
        let live = [Some(current), current.checked_sub(1)];
        // The version alone chooses the secret: one MAC a check.
        let Some(epoch) = live.into_iter().flatten().find(|e| cookie.first() == Some(&version(*e)))
        else {
            return false;
        };
        // `Secret` compares in constant time.
        self.cookie(provider, epoch, claim)
            .is_ok_and(|good| Secret::new(good) == Secret::from(cookie))
    }

    /// `version | MAC(secret of the epoch, SPIi | IPi | Ni)`; the nonce, of variable length, stands last.
    fn cookie(
        &self,
        provider: &dyn Provider,
        epoch: u64,
        claim: Claim<'_>,
    ) -> Result<Vec<u8>, Unsupported> {
        let secret = provider.prf(PRF, self.master.expose(), &[&epoch.to_be_bytes()])?;
        let ip = match claim.ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let spi = claim.spi_i.0.to_be_bytes();
        let mac = provider.prf(PRF, secret.expose(), &[&spi, &ip.octets(), claim.ni])?;
        let mut cookie = Vec::with_capacity(1 + mac.len());
        cookie.push(version(epoch));
        cookie.extend_from_slice(mac.expose().get(..MAC_LEN).unwrap_or(mac.expose()));
        Ok(cookie)
    }
}

/// A secret serves so long, and once more as the one before.
const PERIOD_SECS: u64 = 60;
const PRF: Prf = Prf::HMAC_SHA2_256;
const MAC_LEN: usize = 32;

/// Which secret is current. Each is derived from the master and its number: nothing is kept.
fn epoch(now: Instant) -> u64 {
    now.as_nanos() / (PERIOD_SECS * 1_000_000_000)
}

fn version(epoch: u64) -> u8 {
    epoch.to_be_bytes()[7]
}
