//! Other systems' names of algorithms in strongSwan's syntax.

use ike::suite::review;
use wire::suite_text::{parse_esp, parse_ike};

/// An encryption algorithm: `aes-256`, `aes 256`, `aes-128-gcm`. `None`: there is no such thing here.
pub(super) fn encryption(name: &str, bits: Option<&str>) -> Option<String> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let bits = bits.map(str::to_owned);
    Some(match name.as_str() {
        "aes" | "rijndael" | "aes-cbc" => format!("aes{}", bits.as_deref().unwrap_or("128")),
        "aes-128" | "aes-192" | "aes-256" => name.replace('-', ""),
        "aes-128-gcm" | "aes-192-gcm" | "aes-256-gcm" => format!("aes{}gcm16", &name[4..7]),
        "aes-ctr" | "aesctr" | "aes-128-ctr" => {
            format!("aes{}ctr", bits.as_deref().unwrap_or("128"))
        }
        "aes-192-ctr" | "aes-256-ctr" => format!("aes{}ctr", &name[4..7]),
        "aes-gcm-16" | "aes-gcm" => format!("aes{}gcm16", bits.as_deref().unwrap_or("128")),
        "chacha20-poly1305" => "chacha20poly1305".into(),
        "null" | "null-enc" => "null".into(),
        _ => return None,
    })
}

/// An integrity or hash algorithm: `hmac-sha2-256`, `hmac_sha256`, `sha1`.
pub(super) fn integrity(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    Some(match name.strip_prefix("hmac-").unwrap_or(&name) {
        "sha1" | "sha" => "sha1",
        "sha256" | "sha2-256" => "sha256",
        "sha384" | "sha2-384" => "sha384",
        "sha512" | "sha2-512" => "sha512",
        _ => return None,
    })
}

/// A Diffie-Hellman group by name or number; those that are broken are none here.
pub(super) fn group(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let number = name.strip_prefix("grp").unwrap_or(&name);
    Some(match number {
        "5" | "modp1536" => "modp1536".into(),
        "14" | "modp2048" => "modp2048".into(),
        "15" | "modp3072" => "modp3072".into(),
        "16" | "modp4096" => "modp4096".into(),
        "17" | "modp6144" => "modp6144".into(),
        "18" | "modp8192" => "modp8192".into(),
        "19" | "ecp256" => "ecp256".into(),
        "20" | "ecp384" => "ecp384".into(),
        "21" | "ecp521" => "ecp521".into(),
        "31" | "curve25519" | "x25519" => "x25519".into(),
        _ => return None,
    })
}

/// Parts of a suite, as far as they are known; what is not is among `unknown`.
#[derive(Clone, Default, Debug)]
pub(super) struct Parts {
    pub(super) encryption: Option<String>,
    pub(super) integrity: Option<String>,
    pub(super) group: Option<String>,
    pub(super) unknown: Vec<String>,
}

impl Parts {
    /// An encryption algorithm by another system's name.
    pub(super) fn encryption(&mut self, name: &str, bits: Option<&str>) {
        match encryption(name, bits) {
            Some(known) => self.encryption = Some(known),
            None => self.unknown.push(name.to_owned()),
        }
    }

    /// An integrity algorithm by another system's name.
    pub(super) fn integrity(&mut self, name: &str) {
        match integrity(name) {
            Some(known) => self.integrity = Some(known.to_owned()),
            None => self.unknown.push(name.to_owned()),
        }
    }

    /// A group by another system's name or number.
    pub(super) fn group(&mut self, name: &str) {
        match group(name) {
            Some(known) => self.group = Some(known),
            None => self.unknown.push(name.to_owned()),
        }
    }

    /// The IKE suite; `None` if a part is not known here, or nothing was said.
    pub(super) fn ike(&self) -> Option<String> {
        let encryption = self.encryption.as_ref().filter(|_| self.unknown.is_empty())?;
        let hash = self.integrity.as_deref().unwrap_or("sha256");
        let group = self.group.as_deref().unwrap_or("modp2048");
        let text = match is_aead(encryption) {
            true => format!("{encryption}-prf{hash}-{group}"),
            false => format!("{encryption}-{hash}-{group}"),
        };
        parse_ike(&text).is_ok_and(|one| review(&one).usable).then_some(text)
    }

    /// The ESP suite.
    pub(super) fn esp(&self) -> Option<String> {
        let encryption = self.encryption.as_ref().filter(|_| self.unknown.is_empty())?;
        let mut text = encryption.clone();
        if !is_aead(encryption) {
            text = format!("{text}-{}", self.integrity.as_deref().unwrap_or("sha256"));
        }
        if let Some(group) = &self.group {
            text = format!("{text}-{group}");
        }
        parse_esp(&text).is_ok_and(|one| review(&one).usable).then_some(text)
    }
}

fn is_aead(encryption: &str) -> bool {
    encryption.contains("gcm") || encryption.contains("poly1305")
}

#[cfg(test)]
mod tests {
    use super::Parts;

    #[test]
    fn suites_of_other_names() {
        let mut parts = Parts::default();
        assert_eq!(parts.ike(), None);
        parts.encryption("aes", Some("256"));
        parts.integrity("hmac_sha256");
        parts.group("14");
        assert_eq!(parts.ike().as_deref(), Some("aes256-sha256-modp2048"));
        assert_eq!(parts.esp().as_deref(), Some("aes256-sha256-modp2048"));
        parts.encryption("aes-128-gcm", None);
        assert_eq!(parts.ike().as_deref(), Some("aes128gcm16-prfsha256-modp2048"));
        assert_eq!(parts.esp().as_deref(), Some("aes128gcm16-modp2048"));
        parts.group("modp1024");
        assert_eq!((parts.ike(), parts.unknown.clone()), (None, vec!["modp1024".to_owned()]));
    }
}
