//! Messages for the ladder: what is inside SK, by the sender's keys.

use crypto::{Provider, Secret};
use ike::endpoint::Datagram;
use ike::keys::IkeKeys;
use ike::negotiate::IkeSuite;
use ike::sk::{self, SkCiphers};
use ike::{Endpoint, IkeSaId};
use wire::message::Header;
use wire::payload::Payload;
use wire::registry::{Ke, Prf};

pub fn describe(sender: &Endpoint, provider: &dyn Provider, datagram: &Datagram) -> String {
    match open(sender, provider, datagram) {
        Some((header, payloads)) => wire::pretty::line(&header, &payloads),
        None => format!("{} bytes", datagram.bytes.len()),
    }
}

/// The message with its payloads, decrypted as its sender could.
pub fn open(sender: &Endpoint, provider: &dyn Provider, datagram: &Datagram) -> Option<(Header, Vec<Payload>)> {
    let bytes = datagram.bytes.strip_prefix(&[0, 0, 0, 0]).unwrap_or(&datagram.bytes);
    let message = wire::message::parse(bytes).ok()?;
    let Some(frame) = message.sk else { return Some((message.header, message.payloads)) };
    let keys = (1..1000).find_map(|n| {
        sender.export_keys(IkeSaId(n)).filter(|k| k.spi_i == message.header.spi_i && k.spi_r == message.header.spi_r)
    })?;
    let suite = IkeSuite { cipher: keys.cipher, prf: Prf::HMAC_SHA2_256, ke: Ke::CURVE25519 };
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
    // Read as the receiver does.
    let ciphers = SkCiphers::new(provider, &suite, &keys, !message.header.flags.initiator).ok()?;
    Some((message.header, sk::open(&frame, &*ciphers.r#in).ok()?))
}
