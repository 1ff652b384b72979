//! A link that carries shorter packets than the hosts' own, behind a router that says so (RFC 1191, RFC 8201).

use std::net::IpAddr;
use std::time::Instant;

use ipsec::checksum;
use ipsec::packet::{HeaderFields, fill_ipv4_checksum, proto};

use super::frame::{ETHERNET, packet, u16_at};
use super::{Delivery, Passage, Way};

/// The link.
pub struct Narrow {
    /// The longest packet that it carries, in bytes.
    pub mtu: usize,
    /// Who says so.
    router: IpAddr,
    /// The longest packet that passed.
    pub longest: usize,
    /// Packets that were too long and must not be fragmented: their senders were told.
    pub told: u64,
    /// Packets that were too long, and went on in pieces.
    pub fragmented: u64,
}

/// Most of a packet that a router quotes (RFC 1812 4.3.2.3; RFC 4443 3.2: as much as fits).
const QUOTE: (usize, usize) = (548, 1232);

impl Narrow {
    /// One that carries this much, with a router of this address.
    pub fn new(mtu: usize, router: IpAddr) -> Self {
        Self { mtu, router, longest: 0, told: 0, fragmented: 0 }
    }

    fn too_long(&mut self, now: Instant, way: Way, frame: &[u8], out: &mut Vec<Delivery>) {
        let Some(packet) = packet(frame) else { return };
        let fragmentable = packet[0] >> 4 == 4 && packet[6] & 0x40 == 0;
        if fragmentable {
            self.fragmented += 1;
            for piece in fragments(packet, self.mtu) {
                self.longest = self.longest.max(piece.len());
                let frame = [&frame[..ETHERNET], &piece].concat();
                out.push(Delivery { at: now, way, frame });
            }
        } else if let Some(error) = too_big(packet, self.router, self.mtu) {
            self.told += 1;
            let back = if way == Way::Out { Way::In } else { Way::Out };
            // To where it came from.
            let frame = [&frame[6..12], &frame[..6], &frame[12..ETHERNET], &error].concat();
            out.push(Delivery { at: now, way: back, frame });
        }
    }
}

impl Passage for Narrow {
    fn pass(&mut self, now: Instant, way: Way, frame: Vec<u8>, out: &mut Vec<Delivery>) {
        let length = packet(&frame).map_or(0, <[u8]>::len);
        if length > self.mtu {
            return self.too_long(now, way, &frame, out);
        }
        self.longest = self.longest.max(length);
        out.push(Delivery { at: now, way, frame });
    }
}

/// The pieces of an IPv4 packet (RFC 791 3.2), which may be a piece itself. Options are not copied: the lab sends none.
fn fragments(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let header = usize::from(packet[0] & 15) * 4;
    let (Some(body), Some(place)) = (packet.get(header..), u16_at(packet, 6)) else {
        return Vec::new();
    };
    let step = mtu.saturating_sub(header) / 8 * 8;
    if step == 0 {
        return Vec::new();
    }
    let count = body.len().div_ceil(step);
    let piece = |(number, part): (usize, &[u8])| {
        let more = place & 0x2000 != 0 || number + 1 < count;
        let offset = (place & 0x1fff) + (number * step / 8) as u16;
        let mut piece = packet[..header].to_vec();
        piece[2..4].copy_from_slice(&((header + part.len()) as u16).to_be_bytes());
        piece[6..8].copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
        fill_ipv4_checksum(&mut piece);
        piece.extend_from_slice(part);
        piece
    };
    body.chunks(step).enumerate().map(piece).collect()
}

/// "Fragmentation needed" or "packet too big" of a router, to the sender of a packet.
fn too_big(packet: &[u8], router: IpAddr, mtu: usize) -> Option<Vec<u8>> {
    let headers = ipsec::packet::parse(packet).ok()?;
    let v4 = headers.src.is_ipv4();
    let (kind, code, most) = if v4 { (3, 4, QUOTE.0) } else { (2, 0, QUOTE.1) };
    // The MTU ends at the eighth byte in both.
    let mtu = u32::try_from(mtu).ok()?.to_be_bytes();
    let mut message = [&[kind, code, 0, 0][..], &mtu, &packet[..packet.len().min(most)]].concat();
    let protocol = if v4 { proto::ICMP } else { proto::ICMPV6 };
    let pseudo = match v4 {
        true => 0,
        false => checksum::pseudo_header(router, headers.src, protocol, message.len()),
    };
    let sum = checksum::finish(checksum::add(pseudo, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let (src, dst) = (router, headers.src);
    let fields = HeaderFields { src, dst, protocol, tos: 0, ttl: 64, dont_fragment: false };
    Some([&fields.build(message.len())?[..], &message].concat())
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::datagram;
    use super::*;

    fn pass(narrow: &mut Narrow, frame: &[u8]) -> Vec<Delivery> {
        let mut out = Vec::new();
        narrow.pass(Instant::now(), Way::Out, frame.to_vec(), &mut out);
        out
    }

    #[test]
    fn what_fits_passes_as_it_is() {
        let mut narrow = Narrow::new(1400, "10.0.0.254".parse().unwrap());
        let frame = datagram("10.0.0.1", "10.0.0.2", (7, 7), 1372, true);
        let out = pass(&mut narrow, &frame);
        assert!(out.len() == 1 && out[0].way == Way::Out && out[0].frame == frame);
        assert_eq!((narrow.longest, narrow.told, narrow.fragmented), (1400, 0, 0));
    }

    #[test]
    fn pieces_make_the_whole_again() {
        let mut narrow = Narrow::new(1281, "10.0.0.254".parse().unwrap());
        let frame = datagram("10.0.0.1", "10.0.0.2", (7, 7), 4000, false);
        let out = pass(&mut narrow, &frame);
        let mut body = Vec::new();
        for (number, delivery) in out.iter().enumerate() {
            let piece = packet(&delivery.frame).unwrap();
            let headers = ipsec::packet::parse(piece).unwrap();
            let fragment = headers.fragment.unwrap();
            assert!(piece.len() <= 1281 && fragment.offset == body.len());
            assert_eq!(fragment.more, number + 1 < out.len());
            body.extend_from_slice(&piece[20..]);
        }
        assert_eq!(body, packet(&frame).unwrap()[20..]);
        assert_eq!(narrow.fragmented, 1);
    }

    #[test]
    fn senders_are_told_what_the_link_carries() {
        for (src, dst, router) in
            [("10.0.0.1", "10.0.0.2", "10.0.0.254"), ("fd00::1", "fd00::2", "fd00::fe")]
        {
            let mut narrow = Narrow::new(1400, router.parse().unwrap());
            let frame = datagram(src, dst, (7, 7), 1401, true);
            let out = pass(&mut narrow, &frame);
            assert!(out.len() == 1 && out[0].way == Way::In && narrow.told == 1);
            let error = packet(&out[0].frame).unwrap();
            let headers = ipsec::packet::parse(error).unwrap();
            assert_eq!((headers.src, headers.dst), (router.parse().unwrap(), src.parse().unwrap()));
            assert!(checksum::is_right(error, &headers));
            let message = &error[headers.upper..];
            assert_eq!(u16_at(message, 6), Some(1400));
            assert_eq!(message[8..28], packet(&frame).unwrap()[..20]);
            assert_eq!((&out[0].frame[..6], &out[0].frame[6..12]), (&[3; 6][..], &[2; 6][..]));
        }
    }
}
