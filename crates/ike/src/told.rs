//! What a refusal tells the peer: the proposals, the mode, or the selectors, that would have been taken.
//!
//! They stand, in strongSwan's syntax, in the data of NO_PROPOSAL_CHOSEN, selectors in that of TS_UNACCEPTABLE, for
//! which RFC 7296 3.10.1 has no use:
//! the operator at the other end then sees both lists. Other daemons neither send nor read them.

use wire::bytes::Reader;
use wire::kept::{Kept, list, put_list, put_selector, selector};
use wire::payload::Notify;
use wire::proposal::Proposal;
use wire::registry::{NotifyType, ProtocolId};
use wire::selector::TrafficSelector;
use wire::suite_text::{parse_esp, parse_ike, parse_list, to_text};

/// Bytes that are sent, and that are read.
pub(crate) const MAX: usize = 512;

/// NO_PROPOSAL_CHOSEN with what is acceptable here, as far as there is room.
pub(crate) fn no_proposal_chosen(ours: &[Proposal], room: usize) -> Notify {
    let mut text = String::new();
    for proposal in ours.iter().map(to_text) {
        let comma = if text.is_empty() { "" } else { "," };
        if text.len() + comma.len() + proposal.len() > room.min(MAX) {
            break;
        }
        text += comma;
        text += &proposal;
    }
    let data = text.into_bytes();
    Notify {
        protocol: ProtocolId::NONE,
        spi: Vec::new(),
        kind: NotifyType::NO_PROPOSAL_CHOSEN,
        data,
    }
}

/// What stands in place of proposals where only the mode is wrong.
const TRANSPORT: &[u8] = b"transport";

/// NO_PROPOSAL_CHOSEN because tunnel mode was asked for where transport mode is configured.
pub(crate) fn transport_wanted() -> Notify {
    Notify { data: TRANSPORT.to_vec(), ..no_proposal_chosen(&[], 0) }
}

/// Whether the peer refused for that reason.
pub(crate) fn wants_transport(notify: &Notify) -> bool {
    notify.data == TRANSPORT
}

/// What stands before selectors.
const SELECTORS: &[u8] = b"TS";

/// TS_UNACCEPTABLE with what is acceptable here: this host's side, then the peer's.
pub(crate) fn ts_unacceptable(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Notify {
    let mut data = SELECTORS.to_vec();
    put_list(&mut data, local, put_selector);
    put_list(&mut data, remote, put_selector);
    if data.len() > MAX {
        data.clear();
    }
    Notify { kind: NotifyType::TS_UNACCEPTABLE, data, ..no_proposal_chosen(&[], 0) }
}

/// What the peer would have taken: its side, then this host's; nothing if it does not say so.
pub(crate) fn selectors(notify: &Notify) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
    let told = notify.data.strip_prefix(SELECTORS).filter(|data| data.len() <= MAX);
    let read = |data| -> Kept<_> {
        let mut r = Reader::new(data, "selectors");
        let sides = (list(&mut r, selector)?, list(&mut r, selector)?);
        r.finish()?;
        Ok(sides)
    };
    told.and_then(|data| read(data).ok()).unwrap_or_default()
}

/// What the peer would have taken; nothing if it does not say so in words that are known here.
pub(crate) fn proposals(protocol: ProtocolId, notify: &Notify) -> Vec<Proposal> {
    let text = Some(&notify.data).filter(|data| data.len() <= MAX);
    let Some(text) = text.and_then(|data| std::str::from_utf8(data).ok()) else {
        return Vec::new();
    };
    let parse = if protocol == ProtocolId::IKE { parse_ike } else { parse_esp };
    parse_list(text, parse).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read() {
        let ours =
            parse_list("aes256-sha384-ecp384,aes128gcm16-prfsha256-x25519", parse_ike).unwrap();
        assert_eq!(proposals(ProtocolId::IKE, &no_proposal_chosen(&ours, MAX)), ours);
        let many = vec![ours[0].clone(); 60];
        let told = no_proposal_chosen(&many, MAX);
        assert_eq!(no_proposal_chosen(&many, 19).data, []);
        assert!(told.data.len() <= MAX && proposals(ProtocolId::IKE, &told).len() > 10);
    }

    #[test]
    fn selectors_that_are_told_are_read() {
        let [a, b] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(|a| vec![TrafficSelector::host(a.into())]);
        let told = ts_unacceptable(&a, &b);
        assert_eq!(selectors(&told), (a.clone(), b));
        for cut in 0..told.data.len() {
            let cut = Notify { data: told.data[..cut].to_vec(), ..told.clone() };
            assert_eq!(selectors(&cut), Default::default());
        }
        assert_eq!(ts_unacceptable(&vec![a[0]; 200], &[]).data, []);
    }

    #[test]
    fn other_data_is_nothing() {
        for data in [&b""[..], b"\xff\xfe", b"aes128", b"\x1b[31m", &[b','; 512], &[b'a'; 513]] {
            let notify = Notify { data: data.to_vec(), ..no_proposal_chosen(&[], MAX) };
            assert_eq!(proposals(ProtocolId::IKE, &notify), []);
            assert_eq!(proposals(ProtocolId::ESP, &notify), []);
        }
    }
}
