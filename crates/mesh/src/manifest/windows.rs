//! `main_mode_proposals` and `quick_mode_proposals`: suites in the words of Windows.

use super::nearest::nearest;
use super::read::{Property, Reader, short};
use super::yaml::{Node, Value};
use super::{MainMode, QuickMode, Windows};

const MAIN_ENCRYPTION: [&str; 5] = ["DES", "DES3", "AES128", "AES192", "AES256"];
const MAIN_HASH: [&str; 4] = ["MD5", "SHA1", "SHA256", "SHA384"];
const KEY_EXCHANGE: [&str; 6] = ["DH1", "DH2", "DH14", "DH19", "DH20", "DH24"];
const QUICK_ENCRYPTION: [&str; 9] =
    ["None", "DES", "DES3", "AES128", "AES192", "AES256", "AESGCM128", "AESGCM192", "AESGCM256"];
const QUICK_HASH: [&str; 7] =
    ["None", "MD5", "SHA1", "SHA256", "AESGMAC128", "AESGMAC192", "AESGMAC256"];

/// `None` where neither is written.
pub(crate) fn windows(
    reader: &mut Reader<'_>,
    main: Option<Property<'_>>,
    quick: Option<Property<'_>>,
) -> Option<Windows> {
    if main.is_none() && quick.is_none() {
        return None;
    }
    let main_words: [(&str, &[&str]); 3] =
        [("encryption", &MAIN_ENCRYPTION), ("hash", &MAIN_HASH), ("keyexchange", &KEY_EXCHANGE)];
    let quick_words: [(&str, &[&str]); 2] =
        [("encryption", &QUICK_ENCRYPTION), ("hash", &QUICK_HASH)];
    let main_mode = items(main)
        .iter()
        .filter_map(|item| words(reader, item, "main_mode_proposals", &main_words))
        .filter_map(|words| <[String; 3]>::try_from(words).ok())
        .map(|[encryption, hash, keyexchange]| MainMode { encryption, hash, keyexchange })
        .collect();
    let quick_mode = items(quick)
        .iter()
        .filter_map(|item| words(reader, item, "quick_mode_proposals", &quick_words))
        .filter_map(|words| <[String; 2]>::try_from(words).ok())
        .map(|[encryption, hash]| QuickMode { encryption, hash })
        .collect();
    Some(Windows { main_mode, quick_mode })
}

/// A single map is a list of one.
fn items(p: Option<Property<'_>>) -> &[Node] {
    match p.map(|p| (p.node, &p.node.value)) {
        Some((_, Value::List(items))) => items,
        Some((node, _)) if !node.is_null() => std::slice::from_ref(node),
        _ => &[],
    }
}

fn words(
    reader: &mut Reader<'_>,
    node: &Node,
    property: &str,
    keys: &[(&str, &[&str])],
) -> Option<Vec<String>> {
    let names: Vec<&str> = keys.iter().map(|(name, _)| *name).collect();
    let Some(entries) = node.map() else {
        let p = Property { name: property, node };
        reader.expected(
            p,
            &format!("a list of maps with {}", names.join(", ")),
            "- encryption: AES128",
        );
        return None;
    };
    reader.check_keys(entries, &names, property);
    let mut out = Vec::new();
    for (name, known) in keys {
        let Some(entry) = node.get(name) else {
            let message = format!("`{name}` is missing in this item of `{property}`");
            reader.error(
                node.span,
                message,
                format!("add `{name}:` with one of {}", known.join(", ")),
            );
            continue;
        };
        let Some(text) = reader.text(Property { name, node: &entry.value }, known[0]) else {
            continue;
        };
        match known.iter().find(|word| word.eq_ignore_ascii_case(text.trim())) {
            Some(word) => out.push((*word).to_owned()),
            None => {
                let meant = nearest(text, known.iter().copied());
                let meant =
                    meant.map(|word| format!("did you mean `{word}`? ")).unwrap_or_default();
                let message = format!("unknown `{name}` of `{property}`: `{}`", short(text));
                reader.error(
                    entry.value.span,
                    message,
                    format!("{meant}known are: {}", known.join(", ")),
                );
            }
        }
    }
    (out.len() == keys.len()).then_some(out)
}
