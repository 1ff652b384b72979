//! A chain of payloads, as it stands inside an encrypted one; the first byte is the type of the first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::message;
use wire::notify;
use wire::payload::Payload;
use wire::registry::PayloadType;

fuzz_target!(|bytes: &[u8]| {
    let [first, chain @ ..] = bytes else { return };
    let Ok(payloads) = message::parse_payloads(PayloadType(*first), chain) else { return };
    for payload in &payloads {
        let _ = format!("{payload:?}");
        if let Payload::Notify(n) = payload {
            let _ = notify::parse_signature_hash_algorithms(&n.data);
            let _ = notify::parse_invalid_ke_payload(&n.data);
            let _ = notify::parse_cookie(&n.data);
            let _ = notify::parse_child(n);
        }
    }
    let (kind, once) = message::encode_payloads(&payloads);
    let again = message::parse_payloads(kind, &once).expect("what was written reads");
    assert_eq!(message::encode_payloads(&again), (kind, once));
});
