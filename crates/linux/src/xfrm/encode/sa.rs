//! SAs, with their keys.

use std::net::IpAddr;

use ipsec::sa::{Encap, Limits, Mode, Sa, SaKey};
use zerocopy::IntoBytes;
use zeroize::Zeroizing;

use super::{address, family, selector_info};
use crate::netlink::Attributes;
use crate::xfrm::algorithm::{Algorithms, algorithms};
use crate::xfrm::policy::Selector;
use crate::xfrm::state;
use crate::xfrm::uapi::*;

/// A message with keys in it: wiped when dropped. It never grows beyond what is set aside, so no copy stays behind.
pub(crate) struct SecretBody(Zeroizing<Vec<u8>>);

/// More than any SA needs: two algorithms of 72 + 64 bytes and a window of 512 are the large ones.
const SECRET_BODY: usize = 4096;

impl SecretBody {
    fn new(fixed: &[u8]) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BODY));
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    fn attr(&mut self, kind: u16, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum::<usize>() + 4;
        debug_assert!(self.0.len() + length + 3 <= SECRET_BODY, "no room set aside for {length}");
        self.0.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        for part in parts {
            self.0.extend_from_slice(part);
        }
        let padded = self.0.len().next_multiple_of(4);
        self.0.resize(padded, 0);
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The keys of an SA.
pub(crate) struct Keys<'a> {
    encr: &'a [u8],
    integ: &'a [u8],
}

impl<'a> Keys<'a> {
    /// As the SA has them.
    pub(crate) fn of(sa: &'a Sa) -> Self {
        Self { encr: sa.encr_key.expose(), integ: sa.integ_key.expose() }
    }
}

/// What an update of an SA's limits carries for its keys. The kernel wants them there, of the right length, and takes over
/// only limits and encapsulation (`xfrm_state_update` of its `net/xfrm/xfrm_state.c`).
pub(crate) static NO_KEYS: [u8; 64] = [0; 64];

/// `struct xfrm_usersa_info` and its attributes, for NEWSA.
pub(crate) fn new_sa(sa: &Sa, limits: LifetimeCfg) -> Result<SecretBody, String> {
    sa_body(sa, limits, algorithms(sa)?, &Keys::of(sa))
}

/// The same for UPDSA, which leaves keys, window and counters of the SA as they are.
pub(crate) fn update_sa(sa: &Sa, limits: LifetimeCfg) -> Result<SecretBody, String> {
    let algorithms = algorithms(sa)?;
    let integ = match algorithms {
        Algorithms::Aead { .. } => 0,
        Algorithms::Split { key_len, .. } => key_len,
    };
    let encr = sa.cipher.encr_key_len().min(NO_KEYS.len());
    sa_body(sa, limits, algorithms, &Keys { encr: &NO_KEYS[..encr], integ: &NO_KEYS[..integ] })
}

/// An SA that nobody is to use, with AES-GCM and a key of zeros.
pub(crate) fn trial_sa(src: IpAddr, key: SaKey) -> SecretBody {
    let info = SaInfo {
        id: Id {
            daddr: address(key.dst),
            spi: key.spi.0.to_be_bytes(),
            proto: PROTO_ESP,
            ..Id::default()
        },
        saddr: address(src),
        lft: LifetimeCfg {
            soft_byte_limit: INF,
            hard_byte_limit: INF,
            soft_packet_limit: INF,
            hard_packet_limit: INF,
            // Goes by itself if nobody takes it away.
            hard_add_expires_seconds: 10,
            ..LifetimeCfg::default()
        },
        reqid: *crate::xfrm::REQIDS.end(),
        family: family(key.dst),
        ..SaInfo::default()
    };
    let mut body = SecretBody::new(info.as_bytes());
    let name = Name::new("rfc4106(gcm(aes))");
    let head = AlgoAuth { name, key_bits: 160, icv_bits: 128 };
    body.attr(attr::ALG_AEAD, &[head.as_bytes(), &NO_KEYS[..20]]);
    body
}

fn sa_body(
    sa: &Sa,
    lft: LifetimeCfg,
    algorithms: Algorithms,
    keys: &Keys<'_>,
) -> Result<SecretBody, String> {
    let mut body = SecretBody::new(sa_info(sa, lft).as_bytes());
    match algorithms {
        Algorithms::Aead { name, icv_bits } => {
            let head = AlgoAuth { name: Name::new(name), key_bits: bits(keys.encr), icv_bits };
            body.attr(attr::ALG_AEAD, &[head.as_bytes(), keys.encr]);
        }
        Algorithms::Split { encr, integ, icv_bits, .. } => {
            let head = AlgoCrypt { name: Name::new(encr), key_bits: bits(keys.encr) };
            body.attr(attr::ALG_CRYPT, &[head.as_bytes(), keys.encr]);
            let head = AlgoAuth { name: Name::new(integ), key_bits: bits(keys.integ), icv_bits };
            body.attr(attr::ALG_AUTH_TRUNC, &[head.as_bytes(), keys.integ]);
        }
    }
    if let Some(window) = window(sa) {
        let words = window.div_ceil(32);
        let replay =
            ReplayStateEsn { bmp_len: words, replay_window: window, ..ReplayStateEsn::default() };
        let bitmap = [0; REPLAY_ESN_MAX as usize / 8];
        body.attr(attr::REPLAY_ESN_VAL, &[replay.as_bytes(), &bitmap[..words as usize * 4]]);
    }
    if let Some(encap) = sa.encap {
        body.attr(attr::ENCAP, &[encap_info(sa, encap).as_bytes()]);
    }
    Ok(body)
}

fn bits(key: &[u8]) -> u32 {
    key.len() as u32 * 8
}

/// With extended sequence numbers the kernel wants a window, of outbound SAs too, and never of size 0: there the check
/// cannot be switched off, as the high bits of a sequence number are guessed from the window (RFC 4303 A2).
fn window(sa: &Sa) -> Option<u32> {
    let smallest = if sa.esn { 32 } else { 0 };
    let window = match sa.direction {
        ipsec::sa::Direction::In => sa.replay_window.clamp(smallest, REPLAY_ESN_MAX),
        ipsec::sa::Direction::Out => smallest,
    };
    (window > 0).then_some(window)
}

fn sa_info(sa: &Sa, lft: LifetimeCfg) -> SaInfo {
    let selector = state::selector(sa);
    let mut flags = if sa.esn { STATE_ESN } else { 0 };
    if selector.is_none() {
        flags |= STATE_AF_UNSPEC;
    }
    SaInfo {
        sel: selector.map(|selector| selector_info(&selector)).unwrap_or_default(),
        id: Id {
            daddr: address(sa.dst),
            spi: sa.spi.0.to_be_bytes(),
            proto: PROTO_ESP,
            pad: [0; 3],
        },
        saddr: address(sa.src),
        lft,
        reqid: sa.reqid.0,
        family: family(sa.dst),
        mode: mode(sa.mode),
        flags,
        ..SaInfo::default()
    }
}

/// `XFRM_MODE_*`.
pub(crate) fn mode(mode: Mode) -> u8 {
    match mode {
        Mode::Transport => MODE_TRANSPORT,
        Mode::Tunnel => MODE_TUNNEL,
    }
}

/// Source and destination port: an outbound SA's own port is the source, an inbound one's the destination.
pub(crate) fn encap_ports(sa: &Sa, encap: Encap) -> (u16, u16) {
    match sa.direction {
        ipsec::sa::Direction::Out => (encap.local_port, encap.remote_port),
        ipsec::sa::Direction::In => (encap.remote_port, encap.local_port),
    }
}

fn encap_info(sa: &Sa, encap: Encap) -> EncapTmpl {
    let (sport, dport) = encap_ports(sa, encap);
    EncapTmpl {
        encap_type: ENCAP_ESPINUDP,
        sport: sport.to_be_bytes(),
        dport: dport.to_be_bytes(),
        ..EncapTmpl::default()
    }
}

/// The limits of an SA. Times are whole seconds, rounded up. Soft limits of packets follow from the sequence numbers where
/// none is given, for outbound SAs: whose they are counts them.
pub(crate) fn limits(sa: &Sa) -> LifetimeCfg {
    let Limits { soft_bytes, hard_bytes, soft_packets, hard_packets, hard_time } = *sa.limits;
    let outbound = sa.direction == ipsec::sa::Direction::Out;
    let seven_eighths = outbound.then(|| sa.seq_space() / 8 * 7);
    let seconds = hard_time.map_or(0, |time| time.as_secs() + u64::from(time.subsec_nanos() > 0));
    LifetimeCfg {
        soft_byte_limit: soft_bytes.unwrap_or(INF),
        hard_byte_limit: hard_bytes.unwrap_or(INF),
        soft_packet_limit: soft_packets.or(seven_eighths).unwrap_or(INF),
        hard_packet_limit: hard_packets.map_or(INF, |packets| packets.min(sa.seq_space())),
        hard_add_expires_seconds: seconds,
        ..LifetimeCfg::default()
    }
}

/// Where an SA moves to.
pub(crate) struct Move {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) encap: Option<EncapTmpl>,
    pub(crate) selector: Option<Selector>,
    /// Sequence numbers left out: more than can be sent between the question and the removal of the old SA, since none
    /// may be used twice (RFC 4106 2).
    pub(crate) skip: u32,
}

impl Move {
    /// To where `sa` is.
    pub(crate) fn to(sa: &Sa) -> Self {
        let outbound = sa.direction == ipsec::sa::Direction::Out;
        Self {
            src: sa.src,
            dst: sa.dst,
            encap: sa.encap.map(|encap| encap_info(sa, encap)),
            selector: state::selector(sa),
            skip: if outbound { 1 << 20 } else { 0 },
        }
    }
}

/// An SA as GETSA gave it, keys, window and counters included, for NEWSA at another place. `None` if it is not an SA, or
/// has no sequence numbers left.
pub(crate) fn moved_sa(raw: &[u8], to: &Move) -> Option<SecretBody> {
    let mut info: SaInfo = read(raw)?;
    (info.id.daddr, info.saddr) = (address(to.dst), address(to.src));
    info.sel = to.selector.map(|selector| selector_info(&selector)).unwrap_or_default();
    info.family = family(to.dst);
    let current = std::mem::take(&mut info.curlft);
    (info.replay_errors, info.replay, info.integrity_failed, info.seq) = (0, 0, 0, 0);
    let mut body = SecretBody::new(info.as_bytes());
    for (kind, value) in Attributes::new(raw.get(size_of::<SaInfo>()..)?) {
        match kind {
            attr::ALG_AEAD | attr::ALG_CRYPT | attr::ALG_AUTH_TRUNC | attr::SA_EXTRA_FLAGS => {
                body.attr(kind, &[value]);
            }
            attr::MARK | attr::SET_MARK | attr::SET_MARK_MASK | attr::IF_ID => {
                body.attr(kind, &[value]);
            }
            attr::REPLAY_ESN_VAL => {
                let (head, bitmap) = value.split_at_checked(size_of::<ReplayStateEsn>())?;
                let esn = info.flags & STATE_ESN != 0;
                body.attr(kind, &[skip_esn(read(head)?, to.skip, esn)?.as_bytes(), bitmap]);
            }
            attr::REPLAY_VAL => {
                let mut replay: ReplayState = read(value)?;
                replay.oseq = replay.oseq.checked_add(to.skip)?;
                body.attr(kind, &[replay.as_bytes()]);
            }
            _ => {}
        }
    }
    body.attr(attr::LTIME_VAL, &[current.as_bytes()]);
    if let Some(encap) = to.encap {
        body.attr(attr::ENCAP, &[encap.as_bytes()]);
    }
    Some(body)
}

fn skip_esn(mut replay: ReplayStateEsn, skip: u32, esn: bool) -> Option<ReplayStateEsn> {
    let (low, carry) = replay.oseq.overflowing_add(skip);
    if carry {
        replay.oseq_hi = if esn { replay.oseq_hi.checked_add(1)? } else { return None };
    }
    replay.oseq = low;
    Some(replay)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::xfrm::decode;
    use crate::xfrm::state::tests::sa;
    use crypto::Secret;
    use crypto::cipher::CipherSpec;
    use std::time::Duration;
    use wire::registry::{Encr, Integ};

    fn algorithm(body: &SecretBody, kind: u16) -> Option<&[u8]> {
        decode::attribute(body.bytes(), size_of::<SaInfo>(), kind)
    }

    #[test]
    fn sas_round_trip() {
        let mut sa = sa();
        sa.encap = Some(Encap { local_port: 4500, remote_port: 61_000 });
        let body = new_sa(&sa, limits(&sa)).unwrap();
        let state = decode::state(body.bytes()).unwrap();
        assert_eq!((state.key, state.src, state.reqid), (sa.key(), sa.src, sa.reqid.0));
        assert!(state.is_ours() && !state.is_larval() && state.encap == Some((4500, 61_000)));
        assert_eq!(state.selector, state::selector(&sa));
        let encap: EncapTmpl = read(algorithm(&body, attr::ENCAP).unwrap()).unwrap();
        assert_eq!((encap.sport, encap.dport), ([0x11, 0x94], 61_000u16.to_be_bytes()));
        sa.direction = ipsec::sa::Direction::In;
        let inbound = new_sa(&sa, limits(&sa)).unwrap();
        let encap: EncapTmpl = read(algorithm(&inbound, attr::ENCAP).unwrap()).unwrap();
        assert_eq!((encap.sport, encap.dport), (61_000u16.to_be_bytes(), [0x11, 0x94]));
        let window: ReplayStateEsn =
            read(algorithm(&inbound, attr::REPLAY_ESN_VAL).unwrap()).unwrap();
        assert_eq!((window.replay_window, window.bmp_len), (64, 2));
        assert!(algorithm(&body, attr::REPLAY_ESN_VAL).is_none(), "none for an outbound SA");
    }

    #[test]
    fn cut_bodies_are_nothing() {
        let sa = sa();
        let body = new_sa(&sa, limits(&sa)).unwrap();
        for length in 0..body.bytes().len() {
            let cut = &body.bytes()[..length];
            assert_eq!(decode::state(cut).is_some(), length >= size_of::<SaInfo>());
            let _ = moved_sa(cut, &Move::to(&sa));
        }
    }

    #[test]
    fn algorithms_have_the_kernels_names() {
        let mut sa = sa();
        let body = new_sa(&sa, limits(&sa)).unwrap();
        let aead = algorithm(&body, attr::ALG_AEAD).unwrap();
        assert_eq!(crate::netlink::text(&aead[..64]), "rfc4106(gcm(aes))");
        assert_eq!(aead[64..72], [160u32.to_ne_bytes(), 128u32.to_ne_bytes()].concat());
        assert_eq!(aead[72..], (0..20).collect::<Vec<u8>>());

        sa.cipher =
            CipherSpec { encr: Encr::AES_CBC, key_bits: 256, integ: Integ::HMAC_SHA2_256_128 };
        (sa.encr_key, sa.integ_key) = (Secret::new(vec![7; 32]), Secret::new(vec![9; 32]));
        let body = new_sa(&sa, limits(&sa)).unwrap();
        let crypt = algorithm(&body, attr::ALG_CRYPT).unwrap();
        assert_eq!(crate::netlink::text(&crypt[..64]), "cbc(aes)");
        assert_eq!((&crypt[64..68], &crypt[68..]), (&256u32.to_ne_bytes()[..], &[7; 32][..]));
        let auth = algorithm(&body, attr::ALG_AUTH_TRUNC).unwrap();
        assert_eq!(crate::netlink::text(&auth[..64]), "hmac(sha256)");
        assert_eq!(auth[64..72], [256u32.to_ne_bytes(), 128u32.to_ne_bytes()].concat());
        assert_eq!(auth[72..], [9; 32]);

        sa.cipher.encr = Encr::BLOWFISH;
        assert!(new_sa(&sa, limits(&sa)).is_err());
    }

    #[test]
    fn updates_have_no_keys() {
        let mut sa = sa();
        let body = update_sa(&sa, limits(&sa)).unwrap();
        assert_eq!(algorithm(&body, attr::ALG_AEAD).unwrap()[72..], [0; 20]);
        assert!(!decode::same_keys(body.bytes(), new_sa(&sa, limits(&sa)).unwrap().bytes()));
        sa.cipher =
            CipherSpec { encr: Encr::AES_CTR, key_bits: 128, integ: Integ::HMAC_SHA2_512_256 };
        let body = update_sa(&sa, limits(&sa)).unwrap();
        assert_eq!(algorithm(&body, attr::ALG_CRYPT).unwrap()[68..], [0; 20]);
        assert_eq!(algorithm(&body, attr::ALG_AUTH_TRUNC).unwrap()[72..], [0; 64]);
    }

    #[test]
    fn limits_and_windows() {
        let mut sa = sa();
        let none = limits(&sa);
        assert_eq!((none.soft_byte_limit, none.hard_packet_limit), (INF, INF));
        assert_eq!(none.soft_packet_limit, u64::from(u32::MAX) / 8 * 7);
        Arc::make_mut(&mut sa.limits).hard_packets = Some(u64::MAX);
        Arc::make_mut(&mut sa.limits).hard_time = Some(Duration::from_millis(1500));
        assert_eq!(limits(&sa).hard_packet_limit, u32::MAX.into());
        assert_eq!(limits(&sa).hard_add_expires_seconds, 2);
        assert_eq!(window(&sa), None);
        sa.esn = true;
        assert_eq!(window(&sa), Some(32));
        sa.direction = ipsec::sa::Direction::In;
        assert_eq!(limits(&sa).soft_packet_limit, INF);
        for (asked, given) in [(0, 32), (64, 64), (100, 100), (1 << 20, 4096)] {
            sa.replay_window = asked;
            assert_eq!(window(&sa), Some(given));
        }
        sa.esn = false;
        sa.replay_window = 0;
        assert_eq!(window(&sa), None);
    }

    #[test]
    fn an_sa_that_moves_keeps_all_but_its_place() {
        let mut sa = sa();
        sa.esn = true;
        let there = new_sa(&sa, limits(&sa)).unwrap();
        let mut raw = there.bytes().to_vec();
        let at = raw.len() - (size_of::<ReplayStateEsn>() + 4);
        // oseq, so that the margin carries into the high half.
        raw[at + 4..at + 8].copy_from_slice(&(u32::MAX - 5).to_ne_bytes());
        sa.dst = "10.0.0.77".parse().unwrap();
        let moved = moved_sa(&raw, &Move::to(&sa)).unwrap();
        let state = decode::state(moved.bytes()).unwrap();
        assert_eq!((state.key, state.selector), (sa.key(), state::selector(&sa)));
        assert!(decode::same_keys(moved.bytes(), there.bytes()));
        let replay: ReplayStateEsn =
            read(algorithm(&moved, attr::REPLAY_ESN_VAL).unwrap()).unwrap();
        assert_eq!((replay.oseq, replay.oseq_hi), ((1 << 20) - 6, 1));
        // Without extended numbers there are none left.
        let flags = std::mem::offset_of!(SaInfo, flags);
        raw[flags] = 0;
        assert!(moved_sa(&raw, &Move::to(&sa)).is_none());
    }
}
