//! SAs as the kernel has them ("states"), and the kernel's selector for an SA.

use std::net::IpAddr;

use ipnet::IpNet;
use ipsec::sa::{Direction, Mode, Sa, SaKey};
use wire::selector::TrafficSelector;

use super::REQIDS;
use super::policy::{PortMask, Selector};
use super::split::is_icmp;
use super::uapi::LifetimeCfg;

/// An SA of the kernel, without its keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct State {
    /// Destination and SPI. SPI 0: no SA yet, but the place of one that was asked for by an acquire.
    pub(crate) key: SaKey,
    pub(crate) src: IpAddr,
    pub(crate) reqid: u32,
    /// `XFRM_MODE_*`.
    pub(crate) mode: u8,
    /// Which packets it is for; `None` for those of both families.
    pub(crate) selector: Option<Selector>,
    /// Of ESP in UDP: source and destination port.
    pub(crate) encap: Option<(u16, u16)>,
    pub(crate) esn: bool,
    pub(crate) limits: LifetimeCfg,
    /// When it was installed, in seconds since 1970.
    pub(crate) added: u64,
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) replays: u64,
    pub(crate) bad_icv: u64,
    /// Seconds since 1970.
    pub(crate) last_used: Option<u64>,
}

impl State {
    /// Whether it is one of this program's.
    pub(crate) fn is_ours(&self) -> bool {
        REQIDS.contains(&self.reqid)
    }

    /// Whether it only holds the place of an SA that was asked for.
    pub(crate) fn is_larval(&self) -> bool {
        self.key.spi.0 == 0
    }
}

/// The narrowest selector of the kernel's that admits what the SA's traffic selectors admit; `None` if those
/// are of two families.
///
/// The kernel has one selector for each SA. Where there are several traffic selectors it is wider than they are: the
/// policies say the rest. In transport mode the addresses are those of the packets, whatever a NAT
/// has made of those in the selectors (RFC 7296 2.23.1).
pub(crate) fn selector(sa: &Sa) -> Option<Selector> {
    let (from, to) = match sa.direction {
        Direction::Out => (&sa.local_ts, &sa.remote_ts),
        Direction::In => (&sa.remote_ts, &sa.local_ts),
    };
    let (src, dst) = match sa.mode {
        Mode::Transport => (IpNet::from(sa.src), IpNet::from(sa.dst)),
        Mode::Tunnel => (enclosing(from)?, enclosing(to)?),
    };
    if src.addr().is_ipv4() != dst.addr().is_ipv4() {
        return None;
    }
    let protocol = common(from, |ts| ts.protocol).or(common(to, |ts| ts.protocol)).unwrap_or(0);
    let ranges = [from, to].map(|side| common(side, |ts| (ts.start_port, ts.end_port)));
    let (src_port, dst_port) = if is_icmp(protocol) {
        icmp(ranges[0].or(ranges[1]))
    } else if protocol == 0 {
        (PortMask::ANY, PortMask::ANY)
    } else {
        (one_block(ranges[0]), one_block(ranges[1]))
    };
    Some(Selector { src, dst, protocol, src_port, dst_port, interface: 0 })
}

/// What all selectors of a side say alike, unless they say "any".
fn common<T: PartialEq + Copy>(
    side: &[TrafficSelector],
    of: impl Fn(&TrafficSelector) -> T,
) -> Option<T> {
    let first = side.first()?;
    let any = of(&TrafficSelector::host(first.start));
    let value = of(first);
    (value != any && side.iter().all(|ts| of(ts) == value)).then_some(value)
}

/// The narrowest network around all addresses.
fn enclosing(side: &[TrafficSelector]) -> Option<IpNet> {
    let start = side.iter().map(|ts| ts.start).min()?;
    let end = side.iter().map(|ts| ts.end).max()?;
    let (bits, widest) = match (start, end) {
        (IpAddr::V4(a), IpAddr::V4(b)) => ((a.to_bits() ^ b.to_bits()).leading_zeros(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => ((a.to_bits() ^ b.to_bits()).leading_zeros(), 128),
        _ => return None,
    };
    IpNet::new(start, bits.min(widest) as u8).ok().map(|net| net.trunc())
}

/// OPAQUE ports (65535 to 0) have no block: the kernel knows no such thing.
fn one_block(range: Option<(u16, u16)>) -> PortMask {
    let (first, last) = range.unwrap_or((0, u16::MAX));
    match PortMask::range(first, last).as_slice() {
        [one] => *one,
        _ => PortMask::ANY,
    }
}

/// One type, with one code or with all.
fn icmp(range: Option<(u16, u16)>) -> (PortMask, PortMask) {
    let Some((first, last)) = range else { return (PortMask::ANY, PortMask::ANY) };
    let ([t0, c0], [t1, c1]) = (first.to_be_bytes(), last.to_be_bytes());
    match (t0 == t1, c0, c1) {
        (true, 0, u8::MAX) => (PortMask::one(t0.into()), PortMask::ANY),
        (true, ..) if c0 == c1 => (PortMask::one(t0.into()), PortMask::one(c0.into())),
        (true, ..) => (PortMask::one(t0.into()), PortMask::ANY),
        (false, ..) => (PortMask::ANY, PortMask::ANY),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crypto::Secret;
    use crypto::cipher::CipherSpec;
    use ipsec::sa::{Limits, Reqid};
    use wire::esp::Spi;
    use wire::registry::{Encr, Integ};

    /// An outbound AES-GCM SA in transport mode from 10.0.0.1 to 10.0.0.2.
    pub(crate) fn sa() -> Sa {
        let (src, dst) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        Sa {
            spi: Spi(0xc001_0203),
            src,
            dst,
            direction: Direction::Out,
            mode: Mode::Transport,
            reqid: Reqid(0x5741_0000),
            cipher: CipherSpec { encr: Encr::AES_GCM_16, key_bits: 128, integ: Integ::NONE },
            encr_key: Secret::new((0..20).collect()),
            integ_key: Secret::default(),
            esn: false,
            replay_window: 64,
            encap: None,
            ipcomp: None,
            limits: Limits::default().into(),
            local_ts: [TrafficSelector::host(src)].into(),
            remote_ts: [TrafficSelector::host(dst)].into(),
        }
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn transport_mode_has_the_hosts() {
        let mut sa = sa();
        assert_eq!(selector(&sa), Some(Selector::between(net("10.0.0.1/32"), net("10.0.0.2/32"))));
        // Behind a NAT the peer speaks of another address than its packets have.
        sa.remote_ts =
            [TrafficSelector::host("192.168.1.1".parse().unwrap()).with(6, 22..=22)].into();
        let narrow = selector(&sa).unwrap();
        assert_eq!((narrow.dst, narrow.protocol), (net("10.0.0.2/32"), 6));
        assert_eq!((narrow.src_port, narrow.dst_port), (PortMask::ANY, PortMask::one(22)));
        sa.direction = Direction::In;
        (sa.src, sa.dst) = (sa.dst, sa.src);
        let back = selector(&sa).unwrap();
        assert_eq!((back.src, back.src_port), (net("10.0.0.2/32"), PortMask::one(22)));
    }

    #[test]
    fn tunnel_mode_encloses_all() {
        let mut sa = sa();
        sa.mode = Mode::Tunnel;
        let mut two = [
            TrafficSelector::net(net("10.9.1.0/24")).with(6, 80..=80),
            TrafficSelector::net(net("10.9.2.0/24")).with(6, 443..=443),
        ];
        sa.remote_ts = two.into();
        let wide = selector(&sa).unwrap();
        assert_eq!((wide.src, wide.dst), (net("10.0.0.1/32"), net("10.9.0.0/22")));
        assert_eq!((wide.protocol, wide.dst_port), (6, PortMask::ANY));
        two[1] = TrafficSelector::net(net("fd00::/8"));
        sa.remote_ts = two.into();
        assert_eq!(selector(&sa), None);
        sa.remote_ts = [TrafficSelector::net(net("0.0.0.0/0"))].into();
        assert_eq!(selector(&sa).unwrap().dst, net("0.0.0.0/0"));
    }

    #[test]
    fn icmp_and_opaque() {
        let mut sa = sa();
        let echo = TrafficSelector::icmp(8, 0);
        sa.local_ts = [sa.local_ts[0].with(1, echo..=echo)].into();
        let one = selector(&sa).unwrap();
        assert_eq!((one.src_port, one.dst_port), (PortMask::one(8), PortMask::one(0)));
        sa.local_ts = [sa.local_ts[0].with(1, 0x0800..=0x08ff)].into();
        assert_eq!(selector(&sa).unwrap().dst_port, PortMask::ANY);
        sa.local_ts = [sa.local_ts[0].opaque(17)].into();
        let opaque = selector(&sa).unwrap();
        assert_eq!((opaque.protocol, opaque.src_port), (17, PortMask::ANY));
    }
}
