//! Messages for the ladder: what is inside SK, by the sender's keys.

use crypto::{Provider, Secret};
use ike::endpoint::Datagram;
use ike::keys::IkeKeys;
use ike::multi_ke::Additional;
use ike::negotiate::IkeSuite;
use ike::sk::{self, SkCiphers};
use ike::{Endpoint, IkeSaId};
use wire::message::Header;
use wire::payload::Payload;
use wire::registry::{Ke, Prf};

pub fn describe(sender: &Endpoint, provider: &dyn Provider, datagram: &Datagram) -> String {
    let bytes = datagram.bytes.strip_prefix(&[0, 0, 0, 0]).unwrap_or(&datagram.bytes);
    match (open(sender, provider, datagram), wire::message::parse(bytes)) {
        (Some((header, payloads)), _) => wire::pretty::line(&header, &payloads),
        (None, Ok(message)) => message.to_string(),
        (None, Err(_)) => format!("{} bytes", bytes.len()),
    }
}

/// The message with its payloads, decrypted as its sender could.
pub fn open(
    sender: &Endpoint,
    provider: &dyn Provider,
    datagram: &Datagram,
) -> Option<(Header, Vec<Payload>)> {
    let bytes = datagram.bytes.strip_prefix(&[0, 0, 0, 0]).unwrap_or(&datagram.bytes);
    let message = wire::message::parse(bytes).ok()?;
    let Some(frame) = message.sk else { return Some((message.header, message.payloads)) };
    // Read as the receiver does.
    let ciphers = ciphers(sender, provider, &message.header, !message.header.flags.initiator)?;
    Some((message.header, sk::open(&frame, &*ciphers.r#in).ok()?))
}

/// The message with what is inside SK changed, and sealed again; `None` if nothing is encrypted.
pub fn reseal(
    sender: &Endpoint,
    provider: &dyn Provider,
    datagram: &Datagram,
    change: &mut dyn FnMut(&mut Vec<u8>),
) -> Option<Vec<u8>> {
    let bytes = datagram.bytes.strip_prefix(&[0, 0, 0, 0]).unwrap_or(&datagram.bytes);
    let message = wire::message::parse(bytes).ok()?;
    let frame = message.sk?;
    let header = message.header;
    let mut plain =
        sk::open_bytes(&frame, &*ciphers(sender, provider, &header, !header.flags.initiator)?.r#in)
            .ok()?;
    change(&mut plain);
    let ciphers = ciphers(sender, provider, &header, header.flags.initiator)?;
    let sealed = sk::seal_bytes(&header, frame.first, frame.fragment, &plain, &*ciphers.out, 77);
    Some([&datagram.bytes[..datagram.bytes.len() - bytes.len()], &sealed].concat())
}

/// A datagram that `sender` could have sent.
pub fn forge(
    sender: &Endpoint,
    provider: &dyn Provider,
    header: &Header,
    fragment: Option<(u16, u16)>,
    (first, plain): (wire::registry::PayloadType, &[u8]),
) -> Vec<u8> {
    let ciphers = ciphers(sender, provider, header, header.flags.initiator).expect("its keys");
    sk::seal_bytes(header, first, fragment, plain, &*ciphers.out, 1 << 40)
}

fn ciphers(
    sender: &Endpoint,
    provider: &dyn Provider,
    header: &Header,
    initiator: bool,
) -> Option<SkCiphers> {
    let keys = (1..1000).find_map(|n| {
        sender
            .export_keys(IkeSaId(n))
            .filter(|k| k.spi_i == header.spi_i && k.spi_r == header.spi_r)
    })?;
    let suite = IkeSuite {
        cipher: keys.cipher,
        prf: Prf::HMAC_SHA2_256,
        ke: Ke::CURVE25519,
        additional: Additional::NONE,
    };
    let none = Secret::default;
    let keys = IkeKeys {
        sk_d: none(),
        sk_ai: keys.sk_ai,
        sk_ar: keys.sk_ar,
        sk_ei: keys.sk_ei,
        sk_er: keys.sk_er,
        sk_pi: none(),
        sk_pr: none(),
    };
    SkCiphers::new(provider, &suite, &keys, initiator).ok()
}
