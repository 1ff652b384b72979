//! Keys as lines of Wireshark's tables `ikev2_decryption_table` and `esp_sa`.
//!
//! Algorithms are named there by fixed texts, and one line with another text makes Wireshark refuse
//! the whole table: what has no name is left out. The names are those of Wireshark 4.0 (the texts of
//! `packet-isakmp.c` and `packet-ipsec.c`); later releases have added names and changed none.

use std::fmt::Write;
use std::net::IpAddr;

use crypto::Secret;
use crypto::cipher::CipherSpec;
use ike::endpoint::ExportedKeys;
use ipsec::sa::Sa;
use serde::Serialize;
use wire::registry::{Encr, Integ};

/// Both tables.
#[derive(Clone, PartialEq, Eq, Default, Serialize)]
pub struct Tables {
    /// Lines of `ikev2_decryption_table`.
    pub ike: Vec<String>,
    /// Lines of `esp_sa`.
    pub esp: Vec<String>,
    /// SAs of which Wireshark cannot decrypt the algorithms: they have no line.
    pub left_out: usize,
}

/// The tables of these SAs.
pub fn tables(ike: &[ExportedKeys], esp: &[Sa]) -> Tables {
    let (all, mut tables) = (ike.len() + esp.len(), Tables::default());
    tables.ike.extend(ike.iter().filter_map(ike_line));
    tables.esp.extend(esp.iter().filter_map(esp_line));
    tables.left_out = all - tables.ike.len() - tables.esp.len();
    tables
}

/// The line of one IKE SA; `None` if Wireshark cannot decrypt its algorithms.
pub fn ike_line(keys: &ExportedKeys) -> Option<String> {
    let encr = ike_encr(keys.cipher)?;
    let integ = ike_integ(keys.cipher.integ)?;
    let [ei, er, ai, ar] = [&keys.sk_ei, &keys.sk_er, &keys.sk_ai, &keys.sk_ar].map(hex);
    Some(format!("{},{},{ei},{er},\"{encr}\",{ai},{ar},\"{integ}\"", keys.spi_i, keys.spi_r))
}

/// The line of one ESP SA; `None` if Wireshark cannot decrypt its algorithms.
pub fn esp_line(sa: &Sa) -> Option<String> {
    let encr = esp_encr(sa.cipher)?;
    let integ = esp_integ(sa.cipher.integ, sa.esn)?;
    let protocol = match sa.dst {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    };
    let Sa { src, dst, spi, .. } = sa;
    let [encr_key, integ_key] = [&sa.encr_key, &sa.integ_key].map(prefixed);
    Some(format!(
        r#""{protocol}","{src}","{dst}","0x{spi}","{encr}","{encr_key}","{integ}","{integ_key}""#
    ))
}

/// `AES-GCM-128 with 16 octet ICV [RFC5282]`; the key has its salt behind it, as here.
fn ike_encr(cipher: CipherSpec) -> Option<String> {
    let icv = match cipher.encr {
        Encr::AES_CBC => return Some(format!("AES-CBC-{} [RFC3602]", cipher.key_bits)),
        Encr::AES_CTR => return Some(format!("AES-CTR-{} [RFC5930]", cipher.key_bits)),
        Encr::AES_GCM_8 => 8,
        Encr::AES_GCM_12 => 12,
        Encr::AES_GCM_16 => 16,
        _ => return None,
    };
    Some(format!("AES-GCM-{} with {icv} octet ICV [RFC5282]", cipher.key_bits))
}

fn ike_integ(integ: Integ) -> Option<&'static str> {
    Some(match integ {
        Integ::NONE => "NONE [RFC4306]",
        Integ::HMAC_SHA1_96 => "HMAC_SHA1_96 [RFC2404]",
        Integ::HMAC_SHA2_256_128 => "HMAC_SHA2_256_128 [RFC4868]",
        Integ::HMAC_SHA2_384_192 => "HMAC_SHA2_384_192 [RFC4868]",
        Integ::HMAC_SHA2_512_256 => "HMAC_SHA2_512_256 [RFC4868]",
        _ => return None,
    })
}

/// Wireshark takes the key's length, salt included, from the key.
fn esp_encr(cipher: CipherSpec) -> Option<&'static str> {
    Some(match cipher.encr {
        Encr::NULL => "NULL",
        Encr::AES_CBC => "AES-CBC [RFC3602]",
        Encr::AES_CTR => "AES-CTR [RFC3686]",
        Encr::AES_GCM_8 => "AES-GCM with 8 octet ICV [RFC4106]",
        Encr::AES_GCM_12 => "AES-GCM with 12 octet ICV [RFC4106]",
        Encr::AES_GCM_16 => "AES-GCM with 16 octet ICV [RFC4106]",
        _ => return None,
    })
}

/// With extended sequence numbers Wireshark cannot compute an ICV: it does not know the high bits.
/// "ANY" makes it skip the ICV instead of calling it wrong. An AEAD brings its own.
fn esp_integ(integ: Integ, esn: bool) -> Option<&'static str> {
    Some(match (integ, esn) {
        (Integ::NONE, _) => "NULL",
        (Integ::HMAC_SHA1_96, false) => "HMAC-SHA-1-96 [RFC2404]",
        (Integ::HMAC_SHA2_256_128, false) => "HMAC-SHA-256-128 [RFC4868]",
        (Integ::HMAC_SHA2_384_192, false) => "HMAC-SHA-384-192 [RFC4868]",
        (Integ::HMAC_SHA2_512_256, false) => "HMAC-SHA-512-256 [RFC4868]",
        (Integ::HMAC_SHA1_96 | Integ::AES_XCBC_96 | Integ::AES_CMAC_96, _) => {
            "ANY 96 bit authentication [no checking]"
        }
        (Integ::HMAC_SHA2_256_128, true) => "ANY 128 bit authentication [no checking]",
        (Integ::HMAC_SHA2_384_192, true) => "ANY 192 bit authentication [no checking]",
        (Integ::HMAC_SHA2_512_256, true) => "ANY 256 bit authentication [no checking]",
        _ => return None,
    })
}

fn prefixed(key: &Secret) -> String {
    if key.is_empty() { String::new() } else { format!("0x{}", hex(key)) }
}

fn hex(key: &Secret) -> String {
    let mut out = String::with_capacity(2 * key.len());
    for byte in key.expose() {
        // Writing to a `String` cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}
