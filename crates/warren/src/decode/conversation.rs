//! From IP packets to what hosts said to each other: IKE messages, opened where a key is known, and ESP, counted.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ike::fragment::{Fragment, Gather};
use ike::sk::{self, SkError};
use ipsec::Instant;
use ipsec::packet::{self, Headers, proto};
use ipsec::reassembly::{Reassembler, Reassembly};
use wire::datagram::{Datagram, classify};
use wire::esp::Spi;
use wire::message::{Header, Message, SkFrame};
use wire::payload::Payload;

use super::keyring::Keyring;

const IKE_PORT: u16 = 500;
const NATT_PORT: u16 = 4500;
/// Messages of which pieces are kept, at most; the table is emptied beyond that.
const MAX_GATHERED: usize = 1024;

/// One thing that passed.
#[derive(Debug)]
pub struct Entry {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// From where; the port is 0 for ESP without UDP.
    pub src: SocketAddr,
    /// To where.
    pub dst: SocketAddr,
    /// What.
    pub what: What,
}

/// What passed.
#[derive(Debug)]
pub enum What {
    /// An IKE message that could be read as far as it says.
    Ike(Box<Ike>),
    /// What should be an IKE message or ESP, and why it is not.
    Malformed(String),
    /// ESP packets, one after the other, of one SA.
    Esp {
        /// The SA.
        spi: Spi,
        /// How many.
        packets: u64,
        /// With their headers from ESP's on.
        bytes: u64,
    },
    /// NAT keepalives (RFC 3948 2.3).
    Keepalive,
}

/// An IKE message.
#[derive(Debug)]
pub struct Ike {
    /// Its header.
    pub header: Header,
    /// Number and total of a fragment (RFC 7383).
    pub fragment: Option<(u16, u16)>,
    /// Outside the encrypted payload.
    pub payloads: Vec<Payload>,
    /// The encrypted payload.
    pub inside: Inside,
}

/// What became of an encrypted payload.
#[derive(Debug)]
pub enum Inside {
    /// There is none.
    Nothing,
    /// It was opened; of fragments: all of them, with the last.
    Open(Vec<Payload>),
    /// A fragment that was opened, and others are missing yet.
    Piece,
    /// No key of this IKE SA is known.
    Closed,
    /// There is a key and it does not fit, or the message was damaged, or what is inside is malformed.
    Bad(String),
}

/// Reads packets in their order.
pub struct Listener {
    /// What messages are opened with; keys may be added at any time.
    pub keys: Keyring,
    /// Only what this host sent or received.
    only: Option<IpAddr>,
    reassembler: Reassembler,
    gathered: BTreeMap<(u64, u64, bool, bool), Gather>,
    /// What passed, in order.
    pub entries: Vec<Entry>,
}

impl Listener {
    /// A reader with these keys.
    pub fn new(keys: Keyring, only: Option<IpAddr>) -> Self {
        Self {
            keys,
            only,
            reassembler: Reassembler::default(),
            gathered: BTreeMap::new(),
            entries: Vec::new(),
        }
    }

    /// An IP packet. What is neither IKE nor ESP is passed over.
    pub fn packet(&mut self, at: u64, bytes: &[u8]) {
        let Ok(headers) = packet::parse(bytes) else { return };
        if self.only.is_some_and(|host| host != headers.src && host != headers.dst) {
            return;
        }
        let whole = &bytes[..headers.total_len.min(bytes.len())];
        if headers.fragment.is_none() {
            return self.whole(at, whole, &headers);
        }
        let added = self.reassembler.add(Instant::from_nanos(at), whole.to_vec(), headers);
        if let Reassembly::Whole { packet, .. } = added
            && let Ok(headers) = packet::parse(&packet)
        {
            self.whole(at, &packet, &headers);
        }
    }

    fn whole(&mut self, at: u64, packet: &[u8], headers: &Headers) {
        let Some(upper) = packet.get(headers.upper..) else { return };
        let between = |ports: (u16, u16)| {
            (SocketAddr::new(headers.src, ports.0), SocketAddr::new(headers.dst, ports.1))
        };
        match headers.protocol {
            proto::ESP => self.esp(at, between((0, 0)), upper),
            proto::UDP => {
                let Some(udp) = upper.first_chunk::<8>() else { return };
                let ports =
                    (u16::from_be_bytes([udp[0], udp[1]]), u16::from_be_bytes([udp[2], udp[3]]));
                self.udp(at, between(ports), &upper[8..]);
            }
            _ => {}
        }
    }

    fn udp(&mut self, at: u64, between: (SocketAddr, SocketAddr), payload: &[u8]) {
        let on = |port| between.0.port() == port || between.1.port() == port;
        if on(NATT_PORT) {
            match classify(payload) {
                Datagram::Ike(message) => self.ike(at, between, message),
                Datagram::Esp(_, packet) => self.esp(at, between, packet),
                Datagram::Keepalive => self.push(at, between, What::Keepalive),
                Datagram::Malformed => {
                    let text = format!("{} bytes that are neither IKE nor ESP", payload.len());
                    self.push(at, between, What::Malformed(text));
                }
            }
        } else if on(IKE_PORT) {
            self.ike(at, between, payload);
        }
    }

    fn esp(&mut self, at: u64, between: (SocketAddr, SocketAddr), packet: &[u8]) {
        let Some((spi, _)) = wire::esp::parse_header(packet) else {
            return self.push(at, between, What::Malformed("ESP without its header".into()));
        };
        if let Some(Entry { src, dst, what: What::Esp { spi: last, packets, bytes }, .. }) =
            self.entries.last_mut()
            && (*src, *dst, *last) == (between.0, between.1, spi)
        {
            *packets += 1;
            *bytes += packet.len() as u64;
            return;
        }
        self.push(at, between, What::Esp { spi, packets: 1, bytes: packet.len() as u64 });
    }

    fn ike(&mut self, at: u64, between: (SocketAddr, SocketAddr), bytes: &[u8]) {
        let what = match wire::message::parse(bytes) {
            Ok(message) => What::Ike(Box::new(self.open(message))),
            Err(error) => What::Malformed(error.to_string()),
        };
        self.push(at, between, what);
    }

    fn open(&mut self, message: Message<'_>) -> Ike {
        let Message { header, payloads, sk } = message;
        let inside = sk.as_ref().map_or(Inside::Nothing, |sk| self.inside(&header, sk));
        Ike { header, fragment: sk.and_then(|sk| sk.fragment), payloads, inside }
    }

    fn inside(&mut self, header: &Header, sk: &SkFrame<'_>) -> Inside {
        let Some(cipher) = self.keys.cipher(header) else { return Inside::Closed };
        let opened = match sk.fragment {
            None => sk::open(sk, cipher).map(Inside::Open),
            Some(numbers) => {
                sk::open_bytes(sk, cipher).and_then(|plain| self.gather(header, sk, numbers, plain))
            }
        };
        opened.unwrap_or_else(|error| Inside::Bad(error.to_string()))
    }

    fn gather(
        &mut self,
        header: &Header,
        sk: &SkFrame<'_>,
        (number, total): (u16, u16),
        plain: Vec<u8>,
    ) -> Result<Inside, SkError> {
        let of =
            Fragment { message_id: header.message_id, exchange: header.exchange, number, total };
        if self.gathered.len() >= MAX_GATHERED {
            self.gathered.clear();
        }
        let flags = (header.flags.initiator, header.flags.response);
        let key = (header.spi_i.0, header.spi_r.0, flags.0, flags.1);
        let gather = self.gathered.entry(key).or_default();
        match gather
            .wants(of)
            .and_then(|wanted| if wanted { gather.add(of, sk.first, plain) } else { Ok(None) })
        {
            Ok(Some((first, content))) => {
                Ok(Inside::Open(wire::message::parse_payloads(first, &content)?))
            }
            Ok(None) => Ok(Inside::Piece),
            Err(misbehaviour) => Ok(Inside::Bad(misbehaviour.to_string())),
        }
    }

    fn push(&mut self, at: u64, (src, dst): (SocketAddr, SocketAddr), what: What) {
        self.entries.push(Entry { at, src, dst, what });
    }
}

#[cfg(test)]
mod tests {
    use super::{Inside, Keyring, Listener, What};
    use wire::message::{Flags, Header, IkeSpi, encode_plain};
    use wire::payload::Payload;
    use wire::registry::{ExchangeType, PayloadType};

    fn request(ports: (u16, u16), marker: bool) -> Vec<u8> {
        let header = Header {
            spi_i: IkeSpi(1),
            spi_r: IkeSpi(0),
            next_payload: PayloadType::NONE,
            version: Header::VERSION,
            exchange: ExchangeType::IKE_SA_INIT,
            flags: Flags { initiator: true, ..Flags::default() },
            message_id: 0,
            length: 0,
        };
        let mut bytes = if marker { vec![0; 4] } else { Vec::new() };
        bytes.extend(encode_plain(&header, &[Payload::Nonce(vec![7; 32])]));
        let at = |port| std::net::SocketAddr::from(([192, 0, 2, 1], port));
        ipsec::packet::udp(at(ports.0), at(ports.1), &bytes).unwrap()
    }

    #[test]
    fn messages_are_known_by_their_ports() {
        let keys = Keyring::default();
        let mut listener = Listener::new(keys, None);
        for (ports, marker) in [((500, 500), false), ((4500, 4500), true), ((1025, 4500), true)] {
            listener.packet(1, &request(ports, marker));
        }
        listener.packet(1, &request((53, 53), false));
        assert_eq!(listener.entries.len(), 3);
        for entry in &listener.entries {
            let What::Ike(ike) = &entry.what else { panic!("{entry:?}") };
            assert!(matches!(ike.inside, Inside::Nothing) && ike.payloads.len() == 1);
        }
    }

    #[test]
    fn damaged_packets_are_survived() {
        let (keys, whole) = (Keyring::default(), request((500, 500), false));
        let mut listener = Listener::new(keys, None);
        for at in 0..whole.len() {
            listener.packet(1, &whole[..at]);
            for value in [0, 1, 0x2e, 0x35, 0x7f, 0xff] {
                let mut spoiled = whole.clone();
                spoiled[at] = value;
                listener.packet(1, &spoiled);
            }
        }
        let malformed = |what: &What| matches!(what, What::Malformed(_));
        assert!(listener.entries.iter().any(|entry| malformed(&entry.what)));
    }
}
