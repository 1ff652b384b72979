//! Keys with a post-quantum pre-shared key in them (RFC 8784 3), put together by hand.

use crypto::Provider;
use crypto::native::Native;
use ike::keys::IkeKeys;
use ike::ppk::{PpkKeys, identity, parse_identity};
use wire::registry::Prf;

use crate::secret;

#[test]
fn three_keys_are_mixed_and_four_are_not() {
    let [d, ai, ar, ei, er, pi, pr] =
        ["01", "02", "03", "04", "05", "06", "07"].map(|byte| secret(&byte.repeat(32)));
    let mut keys =
        IkeKeys { sk_d: d, sk_ai: ai, sk_ar: ar, sk_ei: ei, sk_er: er, sk_pi: pi, sk_pr: pr };
    let (before, ppk) = (keys.clone(), secret("a1b2c3"));
    let prf = Prf::HMAC_SHA2_256;
    PpkKeys::derive(&Native, prf, &keys, &ppk).unwrap().replace(&mut keys);
    // prf+ of one block: prf(PPK, SK' | 0x01).
    let mix = |key: &crypto::Secret| Native.prf(prf, ppk.expose(), &[key.expose(), &[1]]).unwrap();
    assert_eq!(keys.sk_d, mix(&before.sk_d));
    assert_eq!(keys.sk_pi, mix(&before.sk_pi));
    assert_eq!(keys.sk_pr, mix(&before.sk_pr));
    assert_eq!((keys.sk_ai, keys.sk_ar), (before.sk_ai, before.sk_ar));
    assert_eq!((keys.sk_ei, keys.sk_er), (before.sk_ei, before.sk_er));
}

#[test]
fn names() {
    assert_eq!(parse_identity(&identity(b"fleet").data), Some(&b"fleet"[..]));
    assert_eq!(parse_identity(&[1, b'x']), Some(&b"x"[..]));
    for bad in [&[][..], &[0, 1], &[3, 1]] {
        assert_eq!(parse_identity(bad), None);
    }
}
