//! Any datagram on the NAT traversal port, as the socket hands it up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::datagram::{Datagram, NON_ESP_MARKER, classify};
use wire::message::{self, Header};

fuzz_target!(|bytes: &[u8]| {
    match classify(bytes) {
        Datagram::Ike(ike) => {
            assert_eq!([&NON_ESP_MARKER, ike].concat(), bytes);
            let header = Header::parse(ike);
            if let Ok(message) = message::parse(ike) {
                assert_eq!(header, Ok(message.header));
            }
        }
        Datagram::Esp(spi, packet) => {
            assert_ne!(spi.0, 0);
            assert_eq!(packet, bytes);
            assert!(wire::esp::parse_header(packet).is_some());
        }
        Datagram::Keepalive => assert_eq!(bytes, [0xff]),
        Datagram::Malformed => assert!(bytes.len() < 8 || bytes[..4] == NON_ESP_MARKER),
    }
});
