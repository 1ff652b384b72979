//! The form of PEM (RFC 7468): labels, frames, base64. What is certified is read elsewhere.

use zeroize::Zeroizing;

/// One `-----BEGIN …` to `-----END …`.
pub(crate) struct Block {
    pub(crate) label: String,
    /// The block in its normal form: no indentation, no text around it.
    pub(crate) text: Zeroizing<String>,
    /// Whether a pass phrase is needed to read it (RFC 1421 4.6.1.1, PKCS#8).
    pub(crate) encrypted: bool,
}

/// What is wrong with the form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PemError {
    /// There is no `-----BEGIN`.
    Missing,
    /// All on one line: the line breaks were lost.
    Folded,
    /// There is no `-----END` of this label.
    Open(String),
    /// This line of the block is not base64; it is not shown for keys.
    NotBase64 { label: String, line: usize },
    /// It is base64, but not of what the label says.
    NotDer(String),
}

/// All blocks of a text; text between them is passed over, as other tools do.
pub(crate) fn blocks(text: &str) -> Result<Vec<Block>, PemError> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((_, line)) = lines.next() {
        let Some(after) = line.trim().strip_prefix("-----BEGIN ") else { continue };
        let Some(label) = after.strip_suffix("-----") else { return Err(PemError::Folded) };
        if label.contains("-----") {
            return Err(PemError::Folded);
        }
        found.push(block(label, &mut lines, text.len() + 2 * label.len() + 64)?);
    }
    if found.is_empty() { Err(PemError::Missing) } else { Ok(found) }
}

fn block<'t>(
    label: &str,
    lines: &mut impl Iterator<Item = (usize, &'t str)>,
    room: usize,
) -> Result<Block, PemError> {
    // Room enough: a string that grows leaves copies of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(room));
    let mut body = Zeroizing::new(String::with_capacity(room));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut encrypted = label.contains("ENCRYPTED");
    for (number, line) in lines {
        let line = line.trim();
        if line.strip_prefix("-----END ").and_then(|l| l.strip_suffix("-----")) == Some(label) {
            text.push_str(line);
            text.push('\n');
            return if der(&body) || encrypted {
                Ok(Block { label: label.to_owned(), text, encrypted })
            } else {
                Err(PemError::NotDer(label.to_owned()))
            };
        }
        if line.starts_with("-----") {
            break;
        }
        if body.is_empty() && line.contains(':') {
            encrypted |= line.starts_with("Proc-Type:") && line.contains("ENCRYPTED");
        } else if !line
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
        {
            return Err(PemError::NotBase64 { label: label.to_owned(), line: number + 1 });
        } else {
            body.push_str(line);
        }
        text.push_str(line);
        text.push('\n');
    }
    Err(PemError::Open(label.to_owned()))
}

/// Certificates and keys are SEQUENCEs: their first byte is 0x30, the first letter therefore `M`.
fn der(body: &str) -> bool {
    let data = body.trim_end_matches('=');
    body.len() - data.len() <= 2
        && body.len().is_multiple_of(4)
        && data.len() > 16
        && data.starts_with('M')
        && !data.contains('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "MIIBCgKCAQEAMIIBCgKCAQEAMIIBCgKC\nAQEA";

    fn error(text: &str) -> Option<PemError> {
        blocks(text).err()
    }

    #[test]
    fn forms() {
        let good = format!("Bag Attributes\n  -----BEGIN X-----\n{BODY}\n-----END X-----\n");
        let found = blocks(&good).unwrap_or_default();
        assert_eq!(found.len(), 1);
        assert_eq!(&**found[0].text, format!("-----BEGIN X-----\n{BODY}\n-----END X-----\n"));
        assert_eq!(error("hello"), Some(PemError::Missing));
        assert_eq!(error("-----BEGIN X----- MIIB -----END X-----"), Some(PemError::Folded));
        assert_eq!(error("-----BEGIN X-----\nMIIB\n"), Some(PemError::Open("X".into())));
        assert_eq!(error("-----BEGIN X-----\n-----END Y-----\n"), Some(PemError::Open("X".into())));
        let dots = "-----BEGIN X-----\nMIIB\n...\n-----END X-----";
        assert_eq!(error(dots), Some(PemError::NotBase64 { label: "X".into(), line: 3 }));
        let text = "-----BEGIN X-----\nRVhBTVBMRSBFWEFNUExFIEVYQU1QTEUg\n-----END X-----";
        assert_eq!(error(text), Some(PemError::NotDer("X".into())));
    }

    #[test]
    fn pass_phrases_are_seen() {
        let old = format!(
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n{BODY}\n-----END RSA PRIVATE KEY-----"
        );
        assert!(blocks(&old).is_ok_and(|b| b[0].encrypted));
        let new = format!(
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n{BODY}\n-----END ENCRYPTED PRIVATE KEY-----"
        );
        assert!(blocks(&new).is_ok_and(|b| b[0].encrypted));
    }
}
