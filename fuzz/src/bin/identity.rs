//! An identity from the wire (first byte: type) and from a text; what is shown reads as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::identity::Identity;
use wire::registry::IdType;

fuzz_target!(|bytes: &[u8]| {
    if let Some((kind, data)) = bytes.split_first()
        && let Ok(id) = Identity::decode(IdType(*kind), data)
    {
        assert_eq!(id.encode(), (IdType(*kind), data.to_vec()));
        shown_reads_back(&id);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = Identity::from_text(text)
    {
        shown_reads_back(&id);
    }
});

fn shown_reads_back(id: &Identity) {
    let text = id.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    let again = Identity::from_text(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert!(again.matches(id), "{text}: {again} is not {id}");
}
