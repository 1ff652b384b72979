//! What the kernel reports by itself.

use std::os::fd::{AsFd, BorrowedFd};

use ipsec::dataplane::PacketInfo;
use ipsec::sa::SaKey;

use super::policy::{Installed, Selector};
use super::split::is_icmp;
use super::state::State;
use super::uapi::*;
use super::{Error, POLICY_INDEXES, decode};
use crate::netlink::{Family, Socket};

/// A subscription to acquires, expiries, mappings, and changes of SAs and policies by anybody.
#[derive(Debug)]
pub(crate) struct Events {
    socket: Socket,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A packet met a policy of ours and no SA.
    Acquire { reqid: u32, packet: PacketInfo },
    /// A limit of an SA was reached; after a hard one the SA is gone.
    Expire { state: State, hard: bool },
    /// The peer of an SA in UDP has a new address or port.
    Moved { key: SaKey, reqid: u32, remote: std::net::SocketAddr },
    /// Somebody, perhaps this program, installed or changed an SA of ours.
    SaPut(Box<State>),
    /// Somebody, perhaps this program, took an SA away.
    SaRemoved(SaKey),
    /// Somebody took all SAs away.
    SasFlushed,
    /// Somebody, perhaps this program, installed or replaced a policy.
    PolicyPut(Installed),
    /// Somebody, perhaps this program, took a policy away.
    PolicyRemoved(Installed),
    /// Somebody took all policies away.
    PoliciesFlushed,
}

impl Events {
    /// Subscribes in this thread's network namespace.
    pub(crate) fn open() -> Result<Self, Error> {
        let socket = Socket::open(Family::Xfrm)?;
        for group in [group::ACQUIRE, group::EXPIRE, group::SA, group::POLICY, group::MAPPING] {
            socket.join(group)?;
        }
        Ok(Self { socket })
    }

    /// Shows what came in one datagram, without waiting; `false` when there is none.
    pub(crate) fn read(&mut self, mut show: impl FnMut(Event)) -> Result<bool, Error> {
        Ok(self.socket.notifications(|kind, body| {
            if let Some(event) = decode(kind, body) {
                show(event);
            }
        })?)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `None` for what is not ours, or of no interest.
fn decode(kind: u16, body: &[u8]) -> Option<Event> {
    match kind {
        msg::ACQUIRE => acquire(body),
        msg::EXPIRE => {
            let expire: Expire = read(body)?;
            let state = decode::sa_info(&expire.state).filter(State::is_ours)?;
            Some(Event::Expire { state, hard: expire.hard != 0 })
        }
        msg::MAPPING => mapping(body),
        msg::NEWSA | msg::UPDSA => {
            decode::state(body).filter(State::is_ours).map(|state| Event::SaPut(Box::new(state)))
        }
        // The SA itself follows as an attribute; its name is enough.
        msg::DELSA => read(body).and_then(|id| decode::sa_id(&id)).map(Event::SaRemoved),
        msg::FLUSHSA => Some(Event::SasFlushed),
        msg::NEWPOLICY | msg::UPDPOLICY => {
            decode::policy(body).filter(is_ours).map(Event::PolicyPut)
        }
        msg::DELPOLICY => {
            let policy = decode::attribute(body, size_of::<PolicyId>(), attr::POLICY)?;
            decode::policy(policy).filter(is_ours).map(Event::PolicyRemoved)
        }
        msg::FLUSHPOLICY => Some(Event::PoliciesFlushed),
        _ => None,
    }
}

fn is_ours(installed: &Installed) -> bool {
    POLICY_INDEXES.contains(&installed.index)
}

fn acquire(body: &[u8]) -> Option<Event> {
    let acquire: Acquire = read(body)?;
    if !POLICY_INDEXES.contains(&acquire.policy.index) {
        return None;
    }
    let template = decode::first_template(body, size_of::<Acquire>())?;
    let packet = packet(&decode::selector(&acquire.sel)?);
    Some(Event::Acquire { reqid: template.reqid, packet })
}

fn mapping(body: &[u8]) -> Option<Event> {
    let mapping: Mapping = read(body)?;
    let key = decode::sa_id(&mapping.id)?;
    let ip = decode::ip(mapping.id.family)?;
    let remote = std::net::SocketAddr::new(
        decode::address(ip, mapping.new_saddr),
        u16::from_be_bytes(mapping.new_sport),
    );
    Some(Event::Moved { key, reqid: mapping.reqid, remote })
}

/// The packet that a selector was made from.
pub(crate) fn packet(selector: &Selector) -> PacketInfo {
    let known = |ports: super::PortMask| (ports.mask == 0xffff).then_some(ports.value);
    let (mut src_port, mut dst_port) = (known(selector.src_port), known(selector.dst_port));
    if is_icmp(selector.protocol) {
        let number = src_port.zip(dst_port).map(|(kind, code)| kind << 8 | code & 0xff);
        (src_port, dst_port) = (number, number);
    }
    let (src, dst) = (selector.src.addr(), selector.dst.addr());
    PacketInfo { src, dst, protocol: selector.protocol, src_port, dst_port }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Body;
    use crate::xfrm::encode;
    use crate::xfrm::policy::{Action, Direction, Policy, PortMask, Template};
    use crate::xfrm::state::tests::sa;
    use zerocopy::IntoBytes;

    fn trap() -> Policy {
        let selector =
            Selector::between("10.0.0.1/32".parse().unwrap(), "10.0.0.0/16".parse().unwrap());
        let template = Template {
            ip: crate::raw::Ip::V4,
            src: None,
            dst: None,
            protocol: PROTO_ESP,
            mode: MODE_TRANSPORT,
            reqid: 0x5741_0003,
            optional: false,
        };
        Policy {
            templates: vec![template],
            ..Policy::new(Direction::Out, 3, selector, Action::Allow)
        }
    }

    fn acquire_for(index: u32, protocol: u8, ports: (u16, u16)) -> Body {
        let mut flow =
            Selector::between("10.0.0.1/32".parse().unwrap(), "10.0.0.9/32".parse().unwrap());
        flow.protocol = protocol;
        (flow.src_port, flow.dst_port) = (PortMask::one(ports.0), PortMask::one(ports.1));
        let encoded = encode::policy(&trap(), index);
        let fixed = Acquire {
            sel: encode::selector_info(&flow),
            policy: read(encoded.bytes()).unwrap(),
            ..Acquire::default()
        };
        let templates = decode::attribute(encoded.bytes(), size_of::<PolicyInfo>(), attr::TMPL);
        Body::new(fixed.as_bytes()).attr(attr::TMPL, templates.unwrap())
    }

    #[test]
    fn acquires_of_ours_only() {
        let ours = acquire_for(0x5700_0009, 6, (40_000, 22));
        let Some(Event::Acquire { reqid, packet }) = decode(msg::ACQUIRE, ours.bytes()) else {
            panic!("no acquire");
        };
        assert_eq!((reqid, packet.dst), (0x5741_0003, "10.0.0.9".parse().unwrap()));
        assert_eq!((packet.src_port, packet.dst_port), (Some(40_000), Some(22)));
        let echo = acquire_for(0x5700_0009, 1, (8, 0));
        let Some(Event::Acquire { packet, .. }) = decode(msg::ACQUIRE, echo.bytes()) else {
            panic!("no acquire");
        };
        assert_eq!((packet.src_port, packet.dst_port), (Some(0x0800), Some(0x0800)));
        assert_eq!(decode(msg::ACQUIRE, acquire_for(9, 6, (1, 2)).bytes()), None);
    }

    #[test]
    fn expiries_and_mappings() {
        let sa = sa();
        let body = encode::new_sa(&sa, encode::limits(&sa)).unwrap();
        let expire = Expire { state: read(body.bytes()).unwrap(), hard: 1, pad: [0; 7] };
        let Some(Event::Expire { state, hard: true }) = decode(msg::EXPIRE, expire.as_bytes())
        else {
            panic!("no expiry");
        };
        assert_eq!((state.key, state.src), (sa.key(), sa.src));
        let mapping = Mapping {
            id: encode::sa_id(sa.key()),
            reqid: sa.reqid.0,
            new_saddr: encode::address("192.0.2.7".parse().unwrap()),
            new_sport: 61_000u16.to_be_bytes(),
            ..Mapping::default()
        };
        assert_eq!(
            decode(msg::MAPPING, mapping.as_bytes()),
            Some(Event::Moved {
                key: sa.key(),
                reqid: sa.reqid.0,
                remote: "192.0.2.7:61000".parse().unwrap()
            })
        );
    }

    #[test]
    fn cut_messages_are_nothing() {
        let whole = acquire_for(0x5700_0009, 6, (1, 2));
        for kind in
            [msg::ACQUIRE, msg::EXPIRE, msg::MAPPING, msg::DELSA, msg::NEWPOLICY, msg::DELPOLICY]
        {
            for length in 0..24 {
                assert_eq!(decode(kind, &whole.bytes()[..length]), None, "{kind:x} {length}");
            }
        }
        for length in 0..whole.bytes().len() {
            let _ = decode(msg::ACQUIRE, &whole.bytes()[..length]);
        }
    }
}
