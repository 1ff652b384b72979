//! strongSwan's proposal syntax: what is accepted reads back from its own text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::suite_text::{parse_esp, parse_ike, parse_list, to_text};

fuzz_target!(|text: &str| {
    if text.len() > 300 {
        return;
    }
    for parse in [parse_ike, parse_esp] {
        match parse_list(text, parse) {
            Ok(proposals) => {
                for proposal in &proposals {
                    let written = to_text(proposal);
                    let again = parse(&written).expect("its own text reads");
                    assert_eq!(to_text(&again), written);
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
