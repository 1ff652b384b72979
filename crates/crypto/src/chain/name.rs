//! Comparing distinguished names (RFC 5280 7.1).

use der::asn1::Any;
use der::{Decode, Tag, Tagged};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{Name, RdnSequence};

/// Whether two DER Names are the same name.
///
/// Equal bytes are; else each attribute is compared by type and value, where values of the
/// character string types are equal without regard to their type, to case, to leading and trailing
/// and to repeated spaces. Unicode normalisation beyond case is left out: such values compare as unequal.
pub fn names_equal(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (Name::from_der(a), Name::from_der(b)) else {
        return false;
    };
    let (a, b): (&RdnSequence, &RdnSequence) = (a.as_ref(), b.as_ref());
    let (a, b) = (a.as_ref(), b.as_ref());
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            // A set: its members may be sorted otherwise once their values differ in case.
            let (a, b) = (a.as_ref(), b.as_ref());
            a.len() == b.len()
                && within(a.as_slice(), b.as_slice())
                && within(b.as_slice(), a.as_slice())
        })
}

fn within(some: &[AttributeTypeAndValue], all: &[AttributeTypeAndValue]) -> bool {
    some.iter().all(|attribute| all.iter().any(|other| attributes_equal(attribute, other)))
}

fn attributes_equal(a: &AttributeTypeAndValue, b: &AttributeTypeAndValue) -> bool {
    a.oid == b.oid
        && (a.value == b.value
            || match (text(&a.value), text(&b.value)) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            })
}

/// A value of a character string type in the form in which it is compared.
fn text(value: &Any) -> Option<String> {
    let text = match value.tag() {
        Tag::PrintableString | Tag::Utf8String | Tag::Ia5String => {
            String::from_utf8(value.value().to_vec()).ok()?
        }
        Tag::BmpString => {
            let (units, []) = value.value().as_chunks::<2>() else { return None };
            String::from_utf16(
                &units.iter().map(|unit| u16::from_be_bytes(*unit)).collect::<Vec<_>>(),
            )
            .ok()?
        }
        _ => return None,
    };
    Some(text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
}
