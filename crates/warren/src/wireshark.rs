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
use wire::message::IkeSpi;
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

/// Why a line of `ikev2_decryption_table` cannot be read. Says nothing of what the line holds: there are keys in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// Not eight fields between commas.
    #[error("not eight fields between commas")]
    Fields,
    /// An SPI that is not 16 hexadecimal digits.
    #[error("an SPI that is not 16 hexadecimal digits")]
    Spi,
    /// An algorithm by another name than Wireshark's, or one that is not known here.
    #[error("an unknown algorithm")]
    Algorithm,
    /// A key that is not hexadecimal, or of another length than its algorithm's.
    #[error("a key that is not hexadecimal, or too long or too short for its algorithm")]
    Key,
}

/// What [`ike_line`] wrote, or Wireshark, or another IKE daemon.
pub fn parse_ike_line(line: &str) -> Result<ExportedKeys, BadLine> {
    let fields: Vec<_> = line.trim().split(',').map(|f| f.trim().trim_matches('"')).collect();
    let [spi_i, spi_r, ei, er, encr, ai, ar, integ] = fields[..] else {
        return Err(BadLine::Fields);
    };
    let cipher = known_ciphers()
        .find(|c| ike_encr(*c).as_deref() == Some(encr) && ike_integ(c.integ) == Some(integ))
        .ok_or(BadLine::Algorithm)?;
    let (encr_len, integ_len) = (cipher.encr_key_len(), integ_key_len(cipher.integ));
    Ok(ExportedKeys {
        spi_i: spi(spi_i)?,
        spi_r: spi(spi_r)?,
        cipher,
        sk_ei: key(ei, encr_len)?,
        sk_er: key(er, encr_len)?,
        sk_ai: key(ai, integ_len)?,
        sk_ar: key(ar, integ_len)?,
    })
}

/// Every combination that has a name in the table.
fn known_ciphers() -> impl Iterator<Item = CipherSpec> {
    let aeads = [Encr::AES_GCM_8, Encr::AES_GCM_12, Encr::AES_GCM_16].map(|e| (e, Integ::NONE));
    let macs = [
        Integ::HMAC_SHA1_96,
        Integ::HMAC_SHA2_256_128,
        Integ::HMAC_SHA2_384_192,
        Integ::HMAC_SHA2_512_256,
    ];
    let others = [Encr::AES_CBC, Encr::AES_CTR].into_iter();
    let others = others.flat_map(move |encr| macs.map(|integ| (encr, integ)));
    let pairs = aeads.into_iter().chain(others);
    pairs.flat_map(|(encr, integ)| {
        [128, 192, 256].map(|key_bits| CipherSpec { encr, key_bits, integ })
    })
}

/// In bytes: as long as the hash (RFC 2404, RFC 4868 2.1.1).
fn integ_key_len(integ: Integ) -> usize {
    match integ {
        Integ::HMAC_SHA1_96 => 20,
        Integ::HMAC_SHA2_256_128 => 32,
        Integ::HMAC_SHA2_384_192 => 48,
        Integ::HMAC_SHA2_512_256 => 64,
        _ => 0,
    }
}

fn spi(text: &str) -> Result<IkeSpi, BadLine> {
    let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let spi = u64::from_str_radix(text, 16).ok().filter(|_| digits);
    spi.map(IkeSpi).ok_or(BadLine::Spi)
}

fn key(text: &str, len: usize) -> Result<Secret, BadLine> {
    if text.len() != 2 * len || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(BadLine::Key);
    }
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| BadLine::Key);
    (0..text.len()).step_by(2).map(byte).collect::<Result<Vec<u8>, _>>().map(Secret::new)
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
