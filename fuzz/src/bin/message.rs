//! A whole IKE message: read, shown, and written to what reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::message;

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = message::parse(bytes) else { return };
    let _ = read.to_string();
    let _ = wire::pretty::detail(&read.header, &read.payloads);
    match &read.sk {
        Some(sk) => {
            assert_eq!(sk.aad.len() + sk.body.len(), bytes.len());
            assert!(sk.fragment.is_none_or(|(number, total)| 1 <= number && number <= total));
        }
        None => {
            let once = message::encode_plain(&read.header, &read.payloads);
            let again = message::parse(&once).expect("what was written reads");
            assert_eq!(message::encode_plain(&again.header, &again.payloads), once);
        }
    }
});
