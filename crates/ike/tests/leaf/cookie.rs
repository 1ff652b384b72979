//! Cookies: bound to all they should be, and not for ever.

use std::time::Duration;

use crypto::native::Native;
use ike::cookie::{Claim, CookieJar};
use ipsec::Instant;
use wire::message::IkeSpi;

const NI: [u8; 32] = [9; 32];

fn claim() -> Claim<'static> {
    Claim { ni: &NI, ip: "10.0.0.1".parse().unwrap(), spi_i: IkeSpi(5) }
}

fn at(secs: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(secs)
}

#[test]
fn a_cookie_is_good_until_its_secret_is_rotated_out() {
    let jar = CookieJar::new([7; 32]);
    let cookie = jar.issue(&Native, at(0), claim()).unwrap();
    assert!((1..=64).contains(&cookie.len()));
    for secs in [0, 1, 59, 60, 119] {
        assert!(jar.check(&Native, at(secs), claim(), &cookie), "{secs}");
    }
    // Not even when its version comes round again.
    for secs in [120, 1000, 256 * 60, 256 * 60 + 60] {
        assert!(!jar.check(&Native, at(secs), claim(), &cookie), "{secs}");
    }
}

#[test]
fn a_cookie_is_bound_to_nonce_address_and_spi() {
    let jar = CookieJar::new([7; 32]);
    let now = at(1000);
    let cookie = jar.issue(&Native, now, claim()).unwrap();
    let others = [
        Claim { ni: &NI[..31], ..claim() },
        Claim { ni: &[8; 32], ..claim() },
        Claim { ip: "10.0.0.2".parse().unwrap(), ..claim() },
        Claim { ip: "2001:db8::1".parse().unwrap(), ..claim() },
        Claim { spi_i: IkeSpi(6), ..claim() },
    ];
    for other in others {
        assert!(!jar.check(&Native, now, other, &cookie), "{other:?}");
    }
    assert!(!CookieJar::new([8; 32]).check(&Native, now, claim(), &cookie));
    assert!(!jar.check(&Native, now, claim(), &[]));
    for at in 0..cookie.len() {
        let mut bad = cookie.clone();
        bad[at] ^= 1;
        assert!(!jar.check(&Native, now, claim(), &bad), "byte {at}");
        assert!(!jar.check(&Native, now, claim(), &cookie[..at]), "{at} bytes");
    }
}
