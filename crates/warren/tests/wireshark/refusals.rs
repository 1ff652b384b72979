//! Messages that say no.

use std::sync::Arc;

use ike::{ChildConfig, PeerConfig};
use wire::suite_text::parse_ike;

use super::config::Setup;
use super::pair::Pair;
use super::tshark::{self, Reading};

#[test]
fn another_key_exchange() {
    assert_notify("INVALID_KE_PAYLOAD", false, |b| {
        b.ike_proposals = [parse_ike("aes128-sha256-ecp256").unwrap()].into();
    });
}

#[test]
fn a_cookie() {
    assert_notify("COOKIE", true, |_| {});
}

#[test]
fn no_common_suite() {
    assert_notify("NO_PROPOSAL_CHOSEN", false, |b| {
        b.ike_proposals = [parse_ike("aes256-sha512-ecp521").unwrap()].into();
    });
}

#[test]
fn another_pre_shared_key() {
    assert_notify("AUTHENTICATION_FAILED", false, |b| {
        b.auth =
            ike::Auth::Psk(crypto::Secret::new(b"another key of a good length".to_vec()).into());
    });
}

#[test]
fn no_common_selectors() {
    assert_notify("TS_UNACCEPTABLE", false, |b| {
        let child = ChildConfig { local_ts: b.child.remote_ts.clone(), ..(*b.child).clone() };
        b.child = Arc::new(child);
    });
}

/// A handshake with a responder that `edit` makes say no in this way.
fn assert_notify(name: &str, cookies: bool, edit: impl FnOnce(&mut PeerConfig)) {
    if !tshark::present() {
        return;
    }
    let setup = Setup::new("aes128-sha256-curve25519-ecp256", "aes128gcm16");
    let (a, mut b) = setup.peers();
    edit(&mut b);
    let mut pair = Pair::new(a, b, cookies);
    pair.initiate();
    let reading = Reading::of(&pair.capture, &pair.tables());
    reading.assert_clean(&[]);
    assert!(reading.text.contains(&format!("Notify Message Type: {name} (")), "{}", reading.text);
}
