//! Shared by the tests of vectors.
#![allow(dead_code)]

use crypto::cipher::CipherSpec;
use wire::registry::{Encr, Integ};

/// Bytes from hexadecimal digits, with any white space between them.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap_or_else(|| panic!("`{c}` in {text}")) as u8)
        .collect();
    assert!(digits.len().is_multiple_of(2), "odd number of digits");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn spec(encr: Encr, key_bits: u16, integ: Integ) -> CipherSpec {
    CipherSpec { encr, key_bits, integ }
}

/// Records of `Key = value` lines, separated by blank lines; `#` and `[` begin lines that are skipped.
pub fn records(text: &str) -> Vec<Vec<(String, String)>> {
    let mut all = vec![Vec::new()];
    for line in text.lines().map(str::trim) {
        match line.split_once('=') {
            _ if line.starts_with(['#', '[']) => {}
            Some((key, value)) => {
                let record = all.last_mut().expect("never empty");
                record.push((key.trim().to_ascii_uppercase(), value.trim().to_owned()));
            }
            None if line.is_empty() && !all.last().expect("never empty").is_empty() => {
                all.push(Vec::new())
            }
            None => {}
        }
    }
    all.retain(|record| record.len() > 1);
    all
}

pub fn field(record: &[(String, String)], key: &str) -> Vec<u8> {
    let (_, value) = record
        .iter()
        .find(|(name, _)| name == key)
        .unwrap_or_else(|| panic!("no {key} in {record:?}"));
    hex(value)
}
