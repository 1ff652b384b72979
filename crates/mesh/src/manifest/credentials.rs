//! Certificates, keys and pre-shared keys: that they are there, and have the right form.

use super::pem::{self, Block, PemError};
use super::properties::Fields;
use super::read::{Property, Reader};
use super::secret::SecretBytes;
use super::source::Span;
use super::yaml::Value;
use super::{CaItem, Certificates, Credentials, PpkSetting};

/// Shorter keys are guessed: an active attacker gets what he needs to try them offline (RFC 7296 2.15).
const SHORTEST_PSK: usize = 20;
const CERTIFICATE: &str = "CERTIFICATE";
const KEYS: [&str; 3] = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];

pub(crate) fn credentials(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    section: Span,
) -> Credentials {
    if reader.options.ignore_credentials {
        return Credentials::Absent;
    }
    let names = ["instance_certificate", "instance_private_key", "ca_certificates"];
    let parts = names.map(|name| fields.get(name));
    if let Some(psk) = fields.get("psk") {
        let crls = fields.get("crls");
        if let Some(part) = parts.iter().chain([&crls]).flatten().next() {
            let message = format!("both `psk` and `{}` are given", part.name);
            reader.error(psk.node.span, message, "keep either `psk` or the certificate properties");
        }
        return self::psk(reader, psk).map_or(Credentials::Absent, Credentials::Psk);
    }
    let missing: Vec<&str> = names
        .iter()
        .zip(&parts)
        .filter(|(_, part)| part.is_none())
        .map(|(name, _)| *name)
        .collect();
    if !missing.is_empty() {
        absent(reader, &missing, fields, section);
    }
    let certificate = parts[0].and_then(|p| certificate(reader, p));
    let key = parts[1].and_then(|p| private_key(reader, p));
    let cas = parts[2].map(|p| ca_certificates(reader, p)).unwrap_or_default();
    let crls = fields.get("crls").map(|p| crls(reader, p)).unwrap_or_default();
    match (certificate, key) {
        (Some(instance_certificate), Some(instance_private_key)) => {
            Credentials::Certificates(Certificates {
                instance_certificate,
                instance_private_key,
                ca_certificates: cas,
                crls,
            })
        }
        _ => Credentials::Absent,
    }
}

fn absent(reader: &mut Reader<'_>, missing: &[&str], fields: &Fields<'_>, section: Span) {
    let span =
        missing.iter().find_map(|name| fields.entry(name)).map_or(section, |entry| entry.key_span);
    if missing.len() == 3 {
        let remedy = "give `instance_certificate`, `instance_private_key` and `ca_certificates` \
                      (`warren pki init` makes them), or `psk`";
        reader.error(span, "there are neither certificates nor a `psk`", remedy);
    } else {
        let message = format!("`{}` is missing", missing.join("` and `"));
        reader.error(span, message, "certificates need all three: instance_certificate, instance_private_key, ca_certificates");
    }
}

/// The post-quantum pre-shared key: in the forms of a `psk`, with a name.
pub(crate) fn ppk<'a>(
    reader: &mut Reader<'_>,
    get: impl Fn(&'static str) -> Option<Property<'a>>,
) -> Option<PpkSetting> {
    let [secret, id, required] = ["ppk", "ppk_id", "ppk_required"].map(get);
    let Some(given) = secret else {
        if let Some(lone) = id.or(required) {
            let message = format!("`{}` is given without `ppk`", lone.name);
            reader.error(lone.node.span, message, "give the key as well, or remove the line");
        }
        return None;
    };
    let Some(id) = id else {
        let remedy = "give it a name that both ends share: `ppk_id: fleet-2026`";
        reader.error(given.node.span, "`ppk` is given without `ppk_id`", remedy);
        return None;
    };
    let id = reader.text(id, "fleet-2026")?.to_owned();
    let required = required.and_then(|p| reader.truth(p)).unwrap_or(false);
    if reader.options.ignore_credentials {
        return None;
    }
    Some(PpkSetting { id, secret: psk(reader, given)?, required })
}

/// A pre-shared key: text as it is, or hex behind `0x`, or base64 behind `0s`, as in strongSwan.
pub(crate) fn psk(reader: &mut Reader<'_>, p: Property<'_>) -> Option<SecretBytes> {
    let written = reader.resolved(p)?;
    let trimmed = written.expose().strip_suffix(b"\n").unwrap_or(written.expose());
    let trimmed = trimmed.strip_suffix(b"\r").unwrap_or(trimmed);
    let Some(secret) = decoded(trimmed) else {
        let remedy = "after `0x` write an even number of hex digits, after `0s` base64; or take another first character";
        reader.error(p.node.span, format!("`{}` cannot be decoded", p.name), remedy);
        return None;
    };
    if secret.len() < SHORTEST_PSK {
        let message = format!(
            "the pre-shared key is too short: {} bytes, at least {SHORTEST_PSK} are needed. Whoever answers one \
             handshake in place of a host can try keys offline until one fits, as fast as he can hash",
            secret.len()
        );
        reader.error(p.node.span, message, "take a random one: `head -c 32 /dev/urandom | base64`");
        return None;
    }
    Some(secret)
}

fn decoded(text: &[u8]) -> Option<SecretBytes> {
    if let Some(hex) = text.strip_prefix(b"0x") {
        let digit = |b: &u8| (*b as char).to_digit(16);
        let pairs = hex.chunks(2).map(|pair| match pair {
            [a, b] => Some((digit(a)? * 16 + digit(b)?) as u8),
            _ => None,
        });
        return pairs.collect::<Option<Vec<u8>>>().map(SecretBytes::new);
    }
    match text.strip_prefix(b"0s") {
        Some(base64) => base64_decoded(base64).map(SecretBytes::new),
        None => Some(SecretBytes::new(text.to_vec())),
    }
}

fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let end = text.iter().position(|b| *b == b'=').unwrap_or(text.len());
    if text[end..].len() > 2 || text[end..].iter().any(|b| *b != b'=') || end % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(end);
    let (mut bits, mut have) = (0u32, 0);
    for byte in &text[..end] {
        bits = (bits << 6 | LETTERS.iter().position(|l| l == byte)? as u32) & 0xff_ffff;
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    Some(out)
}

fn certificate(reader: &mut Reader<'_>, p: Property<'_>) -> Option<String> {
    let blocks = blocks(reader, p, "- BEGIN CERTIFICATE -")?;
    if let Some(key) = blocks.iter().find(|block| block.label.contains("PRIVATE KEY")) {
        reader.found.sources.hide(p.node.span.file, p.node.lines.0, p.node.lines.1, 1);
        let message = format!("`{}` holds a {}", p.name, key.label);
        reader.error(
            p.node.span,
            message,
            "a key belongs into `instance_private_key` alone; put the certificate here",
        );
        return None;
    }
    if let Some(other) = blocks.iter().find(|block| block.label != CERTIFICATE) {
        let message = format!("`{}` holds a `{}`, not a certificate", p.name, other.label);
        reader.error(
            p.node.span,
            message,
            "put blocks `-----BEGIN CERTIFICATE-----` here, and nothing else",
        );
        return None;
    }
    Some(blocks.iter().map(|block| block.text.as_str()).collect())
}

fn private_key(reader: &mut Reader<'_>, p: Property<'_>) -> Option<SecretBytes> {
    let blocks = blocks(reader, p, "- BEGIN PRIVATE KEY -")?;
    // `openssl ecparam -genkey` writes the parameters in front of the key.
    let keys: Vec<&Block> = blocks.iter().filter(|block| block.label != "EC PARAMETERS").collect();
    let [key] = keys[..] else {
        let message =
            format!("`{}` must hold one private key, found {} PEM blocks", p.name, keys.len());
        reader.error(p.node.span, message, "keep the block of the private key alone");
        return None;
    };
    if key.encrypted {
        let remedy = "the daemon starts without a person: take the pass phrase off with \
                      `openssl pkey -in KEY.pem -out PLAIN.pem`";
        reader.error(p.node.span, "the private key is protected by a pass phrase", remedy);
        return None;
    }
    if !KEYS.contains(&key.label.as_str()) {
        let (message, remedy) = wrong_key(&key.label, p.name);
        reader.error(p.node.span, message, remedy);
        return None;
    }
    Some(SecretBytes::new(key.text.as_bytes().to_vec()))
}

fn wrong_key(label: &str, name: &str) -> (String, &'static str) {
    let message = format!("`{name}` holds a `{label}`");
    let remedy = match label {
        CERTIFICATE => {
            "the certificate belongs into `instance_certificate`; put its private key here"
        }
        "OPENSSH PRIVATE KEY" => {
            "keys of OpenSSH are not for certificates: convert it with `ssh-keygen -p -m PKCS8 -f KEY`"
        }
        _ if label.contains("EXAMPLE") => {
            "this is the placeholder of a guide: put your own private key here"
        }
        _ => {
            "put a private key in PKCS#8, PKCS#1 or SEC1 here: `-----BEGIN PRIVATE KEY-----`, \
              `-----BEGIN RSA PRIVATE KEY-----` or `-----BEGIN EC PRIVATE KEY-----`"
        }
    };
    (message, remedy)
}

fn ca_certificates(reader: &mut Reader<'_>, p: Property<'_>) -> Vec<CaItem> {
    let Value::List(items) = &p.node.value else {
        let message = format!("`ca_certificates` must be a list, found {}", p.node.kind());
        let remedy = "the `- |` is missing: write\nca_certificates:\n- |\n  -----BEGIN CERTIFICATE-----\n  …\n\
                      with one such item for each CA, even if there is only one";
        reader.error(p.node.span, message, remedy);
        return Vec::new();
    };
    if items.is_empty() {
        let remedy = "add the CA that signed `instance_certificate`:\nca_certificates:\n- |\n  -----BEGIN CERTIFICATE-----\n  …";
        reader.error(p.node.span, "`ca_certificates` is empty", remedy);
    }
    let mut cas: Vec<CaItem> = Vec::new();
    for node in items {
        let Some(pem) = certificate(reader, Property { name: p.name, node }) else { continue };
        if let Some(first) = cas.iter().find(|known| known.pem == pem) {
            let message = "this CA is listed twice";
            reader.found.note(
                node.span,
                message,
                format!("the first is in line {}", first.span.line),
            );
            continue;
        }
        cas.push(CaItem { pem, span: node.span });
    }
    cas
}

fn crls(reader: &mut Reader<'_>, p: Property<'_>) -> Vec<CaItem> {
    let items = match &p.node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(p.node),
    };
    let mut all = Vec::new();
    for node in items {
        let item = Property { name: p.name, node };
        let Some(blocks) = blocks(reader, item, "- BEGIN X509 CRL -") else { continue };
        if let Some(other) = blocks.iter().find(|block| block.label != "X509 CRL") {
            let message = format!("`crls` holds a `{}`, not a revocation list", other.label);
            reader.error(node.span, message, "put blocks `-----BEGIN X509 CRL-----` here (`openssl crl -inform der -in CRL` makes one)");
            continue;
        }
        let pem = blocks.iter().map(|block| block.text.as_str()).collect();
        all.push(CaItem { pem, span: node.span });
    }
    all
}

fn blocks(reader: &mut Reader<'_>, p: Property<'_>, what: &str) -> Option<Vec<Block>> {
    let secret = reader.resolved(p)?;
    let Ok(text) = std::str::from_utf8(secret.expose()) else {
        reader.error(
            p.node.span,
            format!("`{}` is not text", p.name),
            "convert it to PEM: `openssl x509 -inform der` or `openssl pkey -inform der`",
        );
        return None;
    };
    let error = match pem::blocks(text) {
        Ok(blocks) => return Some(blocks),
        Err(error) => error,
    };
    let dashes = what.replace("- ", "-----").replace(" -", "-----");
    let header =
        if p.name == "ca_certificates" { "- |".to_owned() } else { format!("{}: |", p.name) };
    let as_block = format!("write it as a block of text:\n{header}\n  {dashes}\n  …");
    let (message, remedy) = match error {
        PemError::Missing => ("is not PEM: there is no `-----BEGIN`".to_owned(), as_block),
        PemError::Folded => ("has lost its line breaks: the `|` is missing".to_owned(), as_block),
        PemError::Open(label) => (
            format!("has no line `-----END {label}-----`"),
            "copy the whole PEM, its last line included".to_owned(),
        ),
        PemError::NotBase64 { label, line } => (
            format!("is not PEM: line {line} of it is not base64, as a {label} must be"),
            "is a placeholder still in it? Copy the whole PEM as it was made".to_owned(),
        ),
        PemError::NotDer(label) => (
            format!("holds no {label}, only its frame"),
            "is it a placeholder, or cut short? Copy the whole PEM as it was made".to_owned(),
        ),
    };
    reader.error(p.node.span, format!("`{}` {message}", p.name), remedy);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        for (text, plain) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(base64_decoded(text.as_bytes()).as_deref(), Some(plain.as_bytes()));
        }
        for bad in ["Z", "Zg=a", "Zg===", "Z!"] {
            assert_eq!(base64_decoded(bad.as_bytes()), None);
        }
    }
}
