//! Ethernet frames with IP packets in them, as far as lines look at them.

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;

/// Whether there is an IP packet in it.
pub fn is_ip(frame: &[u8]) -> bool {
    matches!(ethertype(frame), Some(IPV4 | IPV6))
}

/// The IP packet in it, without what pads the frame.
pub fn packet(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(ETHERNET..)?;
    let word = |at: usize| Some(usize::from(u16_at(packet, at)?));
    let length = match ethertype(frame)? {
        IPV4 => word(2)?,
        IPV6 => 40 + word(4)?,
        _ => return None,
    };
    packet.get(..length)
}

/// The protocol of the IP packet in it: the first one, where IPv6 has several.
pub fn protocol(frame: &[u8]) -> Option<u8> {
    let packet = packet(frame)?;
    packet.get(if packet[0] >> 4 == 4 { 9 } else { 6 }).copied()
}

/// Where its UDP header begins; `None` if it has none: another protocol, or a later fragment.
pub fn udp(frame: &[u8]) -> Option<usize> {
    let packet = packet(frame)?;
    let at = match packet.first()? >> 4 {
        4 if packet.get(9) == Some(&UDP) && u16_at(packet, 6)? & 0x1fff == 0 => {
            usize::from(packet[0] & 15) * 4
        }
        6 if packet.get(6) == Some(&UDP) => 40,
        _ => return None,
    };
    (packet.len() >= at + 8).then_some(ETHERNET + at)
}

/// A word of two bytes.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes)
}

/// Puts another port into a UDP header; the checksum follows (RFC 1624).
pub fn set_port(frame: &mut [u8], at: usize, port: u16) {
    let (Some(old), Some(sum)) =
        (u16_at(frame, at), udp(frame).and_then(|udp| u16_at(frame, udp + 6)))
    else {
        return;
    };
    frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
    // Without a checksum there is nothing to mend.
    let Some(udp) = udp(frame).filter(|_| sum != 0) else { return };
    let total = u32::from(!sum) + u32::from(!old) + u32::from(port);
    let total = (total & 0xffff) + (total >> 16);
    let sum = !(((total & 0xffff) + (total >> 16)) as u16);
    let sum = if sum == 0 { 0xffff } else { sum };
    frame[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
}

fn ethertype(frame: &[u8]) -> Option<u16> {
    u16_at(frame, 12)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use ipsec::packet::proto;
    use std::net::{IpAddr, SocketAddr};

    /// A frame with a UDP datagram in an IP packet, checksums and all.
    pub fn datagram(src: &str, dst: &str, ports: (u16, u16), payload: usize, df: bool) -> Vec<u8> {
        let [src, dst] = [(src, ports.0), (dst, ports.1)]
            .map(|(address, port)| SocketAddr::new(address.parse().unwrap(), port));
        let payload: Vec<u8> = (0..payload).map(|n| n as u8).collect();
        let mut packet = ipsec::packet::udp(src, dst, &payload).unwrap();
        if src.is_ipv4() {
            packet[6] = if df { 0x40 } else { 0 };
            ipsec::packet::fill_ipv4_checksum(&mut packet[..20]);
        }
        let kind = if src.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
        [&[2; 6][..], &[3; 6], &kind, &packet].concat()
    }

    /// The checksum of a UDP datagram; 0 if it holds the right one already.
    pub fn checksum(src: IpAddr, dst: IpAddr, udp: &[u8]) -> u16 {
        let pseudo = ipsec::checksum::pseudo_header(src, dst, proto::UDP, udp.len());
        ipsec::checksum::finish(ipsec::checksum::add(pseudo, udp))
    }

    #[test]
    fn ports_change_and_checksums_stay_right() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            for port in [0, 1, 500, 20_001, 65_535] {
                let mut frame = datagram(src, dst, (4500, 4500), 33, true);
                let at = udp(&frame).unwrap();
                set_port(&mut frame, at, port);
                assert_eq!(u16_at(&frame, at), Some(port));
                assert_eq!(checksum(src.parse().unwrap(), dst.parse().unwrap(), &frame[at..]), 0);
            }
        }
    }

    #[test]
    fn only_what_has_ports_is_taken_for_it() {
        let frame = datagram("10.0.0.1", "10.0.0.2", (1, 2), 10, true);
        assert_eq!(udp(&frame), Some(34));
        let mut later = frame.clone();
        later[20..22].copy_from_slice(&[0, 1]);
        assert_eq!(udp(&later), None);
        let mut esp = frame.clone();
        esp[23] = 50;
        assert_eq!(udp(&esp), None);
        assert!((0..frame.len()).all(|cut| udp(&frame[..cut]).is_none()));
        let padded = [&frame[..], &[0; 9]].concat();
        assert_eq!(packet(&padded).unwrap().len(), 20 + 8 + 10);
    }
}
