//! Every row of RFC 7296 2.25, and the order of nonces.

use ike::collide::{
    ChildDoing as C, IkeDoing as I, Nonces, Reply, Request, Settlement, Side, duplicate, loser,
    reply, settle,
};

/// RFC 7296 2.25.1, in its order.
#[test]
fn while_a_child_sa_is_rekeyed_or_closed() {
    let idle = |request| reply(request, I::Idle, true);
    assert_eq!(idle(Request::RekeyChild(C::Closing)), Reply::TemporaryFailure);
    assert_eq!(idle(Request::RekeyChild(C::Rekeying)), Reply::UsualSimultaneous);
    assert_eq!(idle(Request::RekeyChild(C::Absent)), Reply::ChildSaNotFound);
    assert_eq!(idle(Request::RekeyChild(C::Coming)), Reply::TemporaryFailure);
    assert_eq!(idle(Request::DeleteChild(C::Coming)), Reply::WithoutDelete);
    assert_eq!(idle(Request::DeleteChild(C::Closing)), Reply::WithoutDelete);
    assert_eq!(idle(Request::DeleteChild(C::Rekeying)), Reply::Usual);
    assert_eq!(idle(Request::DeleteChild(C::Absent)), Reply::WithoutDelete);
    assert_eq!(idle(Request::RekeyIke), Reply::TemporaryFailure);
}

/// RFC 7296 2.25.2, in its order.
#[test]
fn while_the_ike_sa_is_rekeyed_or_closed() {
    for busy in [false, true] {
        assert_eq!(reply(Request::RekeyIke, I::Rekeying, busy), Reply::UsualSimultaneous);
        assert_eq!(reply(Request::RekeyIke, I::Closing, busy), Reply::TemporaryFailure);
        assert_eq!(reply(Request::DeleteIke, I::Rekeying, busy), Reply::UsualForgetOwn);
        assert_eq!(reply(Request::DeleteIke, I::Closing, busy), Reply::UsualForgetOwn);
        assert_eq!(reply(Request::CreateChild, I::Rekeying, busy), Reply::TemporaryFailure);
        for child in [C::Absent, C::Coming, C::Idle, C::Rekeying, C::Closing] {
            let rekey = Request::RekeyChild(child);
            assert_eq!(reply(rekey, I::Rekeying, busy), Reply::TemporaryFailure);
            assert_eq!(reply(rekey, I::Closing, busy), Reply::TemporaryFailure);
        }
        assert_eq!(reply(Request::DeleteChild(C::Idle), I::Rekeying, busy), Reply::Usual);
        assert_eq!(reply(Request::DeleteChild(C::Absent), I::Rekeying, busy), Reply::WithoutDelete);
    }
}

#[test]
fn while_nothing_is_on() {
    for request in [
        Request::CreateChild,
        Request::RekeyChild(C::Idle),
        Request::DeleteChild(C::Idle),
        Request::RekeyIke,
        Request::DeleteIke,
    ] {
        assert_eq!(reply(request, I::Idle, false), Reply::Usual, "{request:?}");
    }
    // A child that is being made does not hinder work on others.
    assert_eq!(reply(Request::CreateChild, I::Idle, true), Reply::Usual);
    assert_eq!(reply(Request::RekeyChild(C::Idle), I::Idle, true), Reply::Usual);
    assert_eq!(reply(Request::DeleteIke, I::Idle, true), Reply::Usual);
}

const fn nonces<'a>(ni: &'a [u8], nr: &'a [u8]) -> Nonces<'a> {
    Nonces { ni, nr }
}

/// RFC 7296 2.8.1: octet by octet; if one ends, it is the lower one.
#[test]
fn lowest_nonce() {
    let rows: [(Nonces<'_>, Nonces<'_>, Side); 6] = [
        (nonces(&[1, 9], &[5, 0]), nonces(&[2, 0], &[3, 0]), Side::Own),
        (nonces(&[4, 9], &[5, 0]), nonces(&[2, 0], &[9, 0]), Side::Peer),
        // The responder's nonce counts as well.
        (nonces(&[9, 9], &[0, 1]), nonces(&[0, 2], &[0, 3]), Side::Own),
        // Not as numbers: the shorter is lower only if all it has is equal.
        (nonces(&[2], &[2]), nonces(&[1, 0, 0], &[3, 0, 0]), Side::Peer),
        (nonces(&[1], &[9]), nonces(&[1, 0], &[9, 0]), Side::Own),
        (nonces(&[1, 0], &[9, 0]), nonces(&[1], &[9]), Side::Peer),
    ];
    for (own, peer, wanted) in rows {
        assert_eq!(loser(own, peer), wanted, "{own:?} {peer:?}");
    }
}

/// Both ends come to the same SA, one closes the redundant one and the other the old one.
#[test]
fn both_ends_agree() {
    let (a, b) = (nonces(&[3; 32], &[7; 32]), nonces(&[4; 32], &[6; 32]));
    let (here, there) = (settle(a, b), settle(b, a));
    assert_eq!(here, Settlement { keep: Side::Peer, close_own: true, close_old: false });
    assert_eq!(there, Settlement { keep: Side::Own, close_own: false, close_old: true });
    assert_eq!(duplicate(a.lower(), b.lower()), Side::Peer);
    assert_eq!(duplicate(b.lower(), a.lower()), Side::Own);
}
