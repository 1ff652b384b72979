//! The header before every packet of a device with offload (`struct virtio_net_hdr`, virtio 1.2, 5.1.6).

use ipsec::coalesce::Offload;

/// Bytes of the header.
pub const LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// The TCP flow uses ECN: CWR is on the first segment only, as it is anyway.
const GSO_ECN: u8 = 0x80;

/// What the stack has left to be done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// Its checksum.
    Checksum {
        /// Where what it covers begins.
        start: usize,
        /// Where it stands, from there.
        offset: usize,
    },
    /// It is to be cut, each part with its checksum.
    Segments {
        /// Bytes of payload of each.
        size: u16,
    },
}

/// What a header says; `None` if it says what no header of ours can.
pub fn read(header: &[u8; LEN]) -> Option<Left> {
    let number = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let checksum = header[0] & NEEDS_CSUM != 0;
    match header[1] & !GSO_ECN {
        GSO_NONE if checksum => {
            Some(Left::Checksum { start: number(6).into(), offset: number(8).into() })
        }
        GSO_NONE => Some(Left::Nothing),
        GSO_TCP_V4 | GSO_TCP_V6 | GSO_UDP_L4 if checksum && number(4) > 0 => {
            Some(Left::Segments { size: number(4) })
        }
        _ => None,
    }
}

/// The header of a packet that is as it is on the wire.
pub const PLAIN: [u8; LEN] = [0; LEN];

/// The header of a large packet.
pub fn large(offload: &Offload) -> [u8; LEN] {
    let mut header = PLAIN;
    header[0] = NEEDS_CSUM;
    header[1] = match (offload.tcp, offload.v6) {
        (true, false) => GSO_TCP_V4,
        (true, true) => GSO_TCP_V6,
        (false, _) => GSO_UDP_L4,
    };
    let lengths =
        [offload.header_len, offload.size, offload.checksum_start, offload.checksum_offset];
    for (field, value) in header[2..].chunks_exact_mut(2).zip(lengths) {
        // All are lengths within one IP packet.
        field.copy_from_slice(&(value as u16).to_ne_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let offload = Offload {
            tcp: true,
            v6: false,
            header_len: 52,
            size: 1400,
            checksum_start: 20,
            checksum_offset: 16,
        };
        assert_eq!(read(&large(&offload)), Some(Left::Segments { size: 1400 }));
        assert_eq!(read(&PLAIN), Some(Left::Nothing));
    }

    #[test]
    fn senseless_headers_are_refused() {
        let mut header = large(&Offload {
            tcp: false,
            v6: true,
            header_len: 48,
            size: 100,
            checksum_start: 40,
            checksum_offset: 6,
        });
        header[4..6].fill(0);
        assert_eq!(read(&header), None);
        // UDP fragmentation offload, which is never switched on, and what is not known.
        for kind in [3, 2, 6, 0x7f] {
            header[1] = kind;
            assert_eq!(read(&header), None, "{kind}");
        }
        header[0..2].copy_from_slice(&[0, GSO_TCP_V4]);
        assert_eq!(read(&header), None);
    }
}
