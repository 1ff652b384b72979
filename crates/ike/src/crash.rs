//! Quick crash detection (RFC 6290): a host that lost an IKE SA shows that it is the one that had it.
//!
//! Each end gives the other a token with IKE_AUTH, and anew with each rekey. Whoever is asked within an IKE SA that he
//! has not got answers with its token: without protection, for he has no key, and yet nobody else can know it. The
//! other end then forgets the IKE SA, and the token with it, and begins anew.
//!
//! A token is made, not kept: `HMAC(secret, role | SPIi | SPIr | maker | taker)`, where the secret comes of the
//! certificate's private key and so is the same after a boot. Hosts of a fleet may share that key: the two addresses
//! keep one host from making the tokens of another (RFC 6290 5.2, 9.2). Of a pre-shared key nothing is made that goes
//! over the network in the clear: guesses could be tried against it. There the secret is one of the process.

use std::net::IpAddr;

use crypto::{Provider, Secret};
use wire::message::IkeSpi;
use wire::payload::{Notify, Payload};
use wire::registry::{NotifyType, Prf, ProtocolId};

use crate::config::Auth;
use crate::context::Context;
use crate::ike_sa::IkeSa;

/// Bytes of a token (RFC 6290 4.1).
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=128;
/// Tokens that are looked at in one message: a maker whose secret changed may send two (4.5).
const MOST: usize = 4;

/// Whose token it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Names {
    pub(crate) spi_i: IkeSpi,
    pub(crate) spi_r: IkeSpi,
    /// Whether the maker is the original initiator.
    pub(crate) initiator: bool,
    pub(crate) maker: IpAddr,
    pub(crate) taker: IpAddr,
}

impl Names {
    /// Of this host's own token for an IKE SA.
    fn of(sa: &IkeSa) -> Self {
        Self {
            spi_i: sa.spi_i,
            spi_r: sa.spi_r,
            initiator: sa.initiator,
            maker: sa.local.ip(),
            taker: sa.remote.ip(),
        }
    }
}

/// The token; `None` where nothing is proven: it would be nobody's.
pub(crate) fn token(
    provider: &dyn Provider,
    auth: &Auth,
    process: &Secret,
    names: Names,
) -> Option<Secret> {
    let secret = match auth {
        Auth::Certificate(credentials) => credentials.own_secret().unwrap_or(process),
        Auth::Psk(_) => process,
        Auth::Null => return None,
    };
    let Names { spi_i, spi_r, initiator, maker, taker } = names;
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let parts: [&[u8]; 5] = [
        &[u8::from(initiator)],
        &spi_i.0.to_be_bytes(),
        &spi_r.0.to_be_bytes(),
        &address(maker),
        &address(taker),
    ];
    provider.prf(Prf::HMAC_SHA2_256, secret.expose(), &parts).ok()
}

/// This host's token for an IKE SA, for the peer.
pub(crate) fn payload(cx: &Context, sa: &IkeSa) -> Option<Payload> {
    let token = token(&*cx.provider, &sa.config.auth, &cx.crash_secret, Names::of(sa))?;
    Some(notify(&token))
}

/// The same for the IKE SA that comes of a rekey by the peer.
pub(crate) fn rekeyed(cx: &Context, old: &IkeSa, spis: (IkeSpi, IkeSpi)) -> Option<Payload> {
    let names = Names { spi_i: spis.0, spi_r: spis.1, initiator: false, ..Names::of(old) };
    Some(notify(&token(&*cx.provider, &old.config.auth, &cx.crash_secret, names)?))
}

/// QCD_TOKEN.
pub(crate) fn notify(token: &Secret) -> Payload {
    Payload::Notify(Notify {
        protocol: ProtocolId::IKE,
        spi: Vec::new(),
        kind: NotifyType::QUICK_CRASH_DETECTION,
        data: token.expose().to_vec(),
    })
}

/// The peer's token in a protected message.
pub(crate) fn find(payloads: &[Payload]) -> Option<Secret> {
    tokens(payloads).next()
}

/// Whether an unprotected message holds `token`, the one that the peer gave; takes as long for any two of one length.
pub(crate) fn shows(payloads: &[Payload], token: &Secret) -> bool {
    tokens(payloads).take(MOST).filter(|shown| shown == token).count() > 0
}

fn tokens(payloads: &[Payload]) -> impl Iterator<Item = Secret> {
    payloads.iter().filter_map(|payload| match payload {
        Payload::Notify(notify)
            if notify.kind == NotifyType::QUICK_CRASH_DETECTION
                && LENGTHS.contains(&notify.data.len()) =>
        {
            Some(Secret::from(notify.data.as_slice()))
        }
        _ => None,
    })
}
