//! Capture files, pcap and pcapng, as IP packets with their times.

use std::fs::File;
use std::path::Path;

use pcap_parser::data::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, PacketData, get_packetdata};
use pcap_parser::pcapng::Block;
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};

/// Bytes of a file that are in memory at once: the largest packet that a capture may hold, and some.
const BUFFER: usize = 1 << 20;
/// EtherTypes of VLAN tags (IEEE 802.1Q, 802.1ad).
const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];
/// VLAN tags in front of a packet that are looked behind.
const MAX_TAGS: usize = 4;

/// Why a file is no capture, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not to be opened or read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Neither pcap nor pcapng.
    #[error("this is no capture: neither pcap nor pcapng; `tcpdump -w FILE` writes one")]
    NoCapture,
    /// Something else follows after so many packets.
    #[error("the capture is damaged after {0} packets")]
    Damaged(usize),
}

/// How far times of an interface are from nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Interface {
    link: Linktype,
    /// Ticks a second.
    resolution: u64,
    /// Seconds.
    offset: i64,
}

/// Reads a capture: `each` gets the time in nanoseconds since 1970 and the IP packet. What is no IP packet is passed
/// over; the number of packets of any kind comes back.
pub fn read(path: &Path, mut each: impl FnMut(u64, &[u8])) -> Result<usize, Error> {
    let file = File::open(path)?;
    let mut reader = create_reader(BUFFER, file).map_err(|_| Error::NoCapture)?;
    let mut interfaces: Vec<Interface> = Vec::new();
    let (mut packets, mut starved) = (0, false);
    loop {
        match reader.next() {
            Ok((length, block)) => {
                packets += usize::from(take(&block, &mut interfaces, &mut each));
                starved = false;
                reader.consume(length);
            }
            Err(PcapError::Eof) => return Ok(packets),
            // A block that does not fit into the buffer, or that the file ends in.
            Err(PcapError::Incomplete(_)) if starved => return Err(Error::Damaged(packets)),
            Err(PcapError::Incomplete(_)) => {
                starved = true;
                reader.refill().map_err(|_| Error::Damaged(packets))?;
            }
            Err(_) => return Err(Error::Damaged(packets)),
        }
    }
}

/// Whether the block was a packet.
fn take(
    block: &PcapBlockOwned<'_>,
    interfaces: &mut Vec<Interface>,
    each: &mut impl FnMut(u64, &[u8]),
) -> bool {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution =
                if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
            *interfaces = vec![Interface { link: header.network, resolution, offset: 0 }];
            false
        }
        PcapBlockOwned::Legacy(packet) => {
            let Some(interface) = interfaces.first() else { return true };
            let ticks = u64::from(packet.ts_usec);
            let nanos =
                u64::from(packet.ts_sec) * 1_000_000_000 + scale(ticks, interface.resolution);
            give(nanos, packet.data, interface.link, each);
            true
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            false
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            let resolution = interface.ts_resolution().filter(|r| *r > 0).unwrap_or(1_000_000);
            interfaces.push(Interface {
                link: interface.linktype,
                resolution,
                offset: interface.ts_offset(),
            });
            false
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let index = usize::try_from(packet.if_id).unwrap_or(usize::MAX);
            let Some(interface) = interfaces.get(index) else { return true };
            let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
            give(nanos(ticks, interface), data, interface.link, each);
            true
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let Some(interface) = interfaces.first() else { return true };
            give(0, packet.data, interface.link, each);
            true
        }
        PcapBlockOwned::NG(_) => false,
    }
}

fn nanos(ticks: u64, interface: &Interface) -> u64 {
    let (seconds, rest) = (ticks / interface.resolution, ticks % interface.resolution);
    let seconds = seconds.saturating_add_signed(interface.offset);
    seconds.saturating_mul(1_000_000_000).saturating_add(scale(rest, interface.resolution))
}

/// Ticks below a second in nanoseconds.
fn scale(ticks: u64, resolution: u64) -> u64 {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(resolution.max(1));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

fn give(nanos: u64, data: &[u8], link: Linktype, each: &mut impl FnMut(u64, &[u8])) {
    let packet = match get_packetdata(data, link, data.len()) {
        Some(PacketData::L2(frame)) => ethernet(frame),
        Some(PacketData::L3(ETHERTYPE_IPV4 | ETHERTYPE_IPV6, packet)) => Some(packet),
        _ => None,
    };
    if let Some(packet) = packet {
        each(nanos, packet);
    }
}

fn ethernet(frame: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    for _ in 0..=MAX_TAGS {
        let kind = u16::from_be_bytes(*frame.get(at..)?.first_chunk()?);
        match kind {
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => return frame.get(at + 2..),
            tag if VLAN_TAGS.contains(&tag) => at += 4,
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Error, ethernet, read};

    fn written(name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path =
            std::env::temp_dir().join(format!("warren-decode-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A pcap of raw IP packets: microseconds, little endian.
    fn pcap(packets: &[&[u8]]) -> Vec<u8> {
        let word = |w: u32| w.to_le_bytes();
        let mut out: Vec<u8> =
            [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 101].into_iter().flat_map(word).collect();
        for (n, packet) in packets.iter().enumerate() {
            let len = packet.len() as u32;
            out.extend([n as u32, 7, len, len].into_iter().flat_map(word));
            out.extend(*packet);
        }
        out
    }

    type Packets = Vec<(u64, Vec<u8>)>;

    fn count(name: &str, bytes: &[u8]) -> (Packets, Result<usize, Error>) {
        let path = written(name, bytes);
        let mut seen = Vec::new();
        let result = read(&path, |at, packet| seen.push((at, packet.to_vec())));
        std::fs::remove_file(path).unwrap();
        (seen, result)
    }

    #[test]
    fn packets_come_with_their_times() {
        let (seen, result) = count("good", &pcap(&[&[0x45, 1], &[0x60, 2], &[0x10]]));
        assert_eq!(result.unwrap(), 3);
        assert_eq!(seen, [(7_000, vec![0x45, 1]), (1_000_007_000, vec![0x60, 2])]);
    }

    #[test]
    fn files_that_are_none_or_end_early_are_named() {
        assert!(matches!(
            count("none", b"no capture at all, but long enough").1,
            Err(Error::NoCapture)
        ));
        assert!(matches!(count("empty", b"").1, Err(Error::NoCapture)));
        let whole = pcap(&[&[0x45, 1], &[0x45; 100]]);
        let (seen, result) = count("torn", &whole[..whole.len() - 50]);
        assert!(matches!(result, Err(Error::Damaged(1))), "{result:?}");
        assert_eq!(seen.len(), 1);
        assert!(matches!(read(std::path::Path::new("/nowhere"), |_, _| ()), Err(Error::Io(_))));
    }

    #[test]
    fn every_cut_of_a_capture_is_survived() {
        let whole = pcap(&[&[0x45; 30], &[0x60; 60]]);
        for len in 0..whole.len() {
            let _ = count("cut", &whole[..len]);
        }
    }

    #[test]
    fn tags_of_vlans_are_looked_behind() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0x00, 0, 5, 0x08, 0x00, 0x45, 9]);
        assert_eq!(ethernet(&frame), Some(&[0x45, 9][..]));
        assert_eq!(ethernet(&frame[..13]), None);
        frame[16] = 0x86;
        assert_eq!(ethernet(&frame), None);
    }
}
