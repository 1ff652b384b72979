//! Identities as text, as bytes, and in comparison.

mod support;

use proptest::prelude::*;
use support::messages::hex;
use support::strategies::identity;
use wire::dn;
use wire::identity::Identity;
use wire::registry::IdType;

/// Subject of a certificate that OpenSSL 3.0 made with
/// `-utf8 -subj '/C=CH/O=Example, Inc./OU=A+OU=B/CN=hôst-1/emailAddress=a@example.com/DC=org/serialNumber=42'`.
const OPENSSL_NAME: &str = "
    30818d310b300906035504061302434831163014060355040a0c0d4578616d706c652c20496e632e
    31143008060355040b0c01413008060355040b0c01423110300e06035504030c0768c3b473742d31
    311c301a06092a864886f70d010901160d61406578616d706c652e636f6d31133011060a09922689
    93f22c64011916036f7267310b3009060355040513023432";
const OPENSSL_TEXT: &str = "C=CH, O=Example\\, Inc., OU=A+OU=B, CN=hôst-1, emailAddress=a@example.com, DC=org, serialNumber=42";

#[test]
fn name_of_openssl() {
    let der = hex(OPENSSL_NAME);
    assert_eq!(dn::to_text(&der).as_deref(), Some(OPENSSL_TEXT));
    assert_eq!(dn::from_text(OPENSSL_TEXT).unwrap(), der);
    let id = Identity::from_text(OPENSSL_TEXT).unwrap();
    assert_eq!(id, Identity::DerDn(der));
    assert_eq!(id.to_string(), OPENSSL_TEXT);
}

/// RFC 4514 4, in the order of the text.
#[test]
fn escapes_of_the_rfc() {
    let escaped = "CN=James \\\"Jim\\\" Smith\\, III, DC=example, DC=net";
    assert_eq!(dn::to_text(&dn::from_text(escaped).unwrap()).unwrap(), escaped);
    let carriage_return = dn::from_text("CN=Before\\0dAfter").unwrap();
    assert_eq!(carriage_return, hex("3017 3115 3013 0603550403 0c0c 4265666f72650d4166746572"));
    assert_eq!(dn::to_text(&carriage_return).unwrap(), "CN=Before\\0dAfter");
    let octets = dn::from_text("1.3.6.1.4.1.1466.0=#04024869").unwrap();
    assert_eq!(octets, hex("3012 3110 300e 0608 2b060104018b3a00 0402 4869"));
    assert_eq!(dn::to_text(&octets).unwrap(), "1.3.6.1.4.1.1466.0=#04024869");
    let serbian = dn::from_text("SN=Lu\\C4\\8Di\\C4\\87").unwrap();
    assert_eq!(dn::to_text(&serbian).unwrap(), "SN=Lučić");
    let edges = dn::from_text("CN=\\ a \\ , O=\\#1").unwrap();
    assert_eq!(dn::to_text(&edges).unwrap(), "CN=\\ a \\20, O=\\#1");
    let last = Identity::from_text("CN=a\\20").unwrap();
    assert_eq!(Identity::from_text(&last.to_string()), Ok(last));
}

#[test]
fn texts_that_are_no_names() {
    for (text, part) in [
        ("CN=a, b", "TYPE=VALUE"),
        ("CN=a,", "TYPE=VALUE"),
        ("", "TYPE=VALUE"),
        ("XY=a", "unknown attribute type `XY`"),
        ("3.1=a", "unknown attribute type"),
        ("1.40=a", "unknown attribute type"),
        ("CN=", "bad value"),
        ("CN=a\\", "bad value"),
        ("CN=a\\zz", "bad value"),
        ("CN=\\ff", "bad value"),
        ("CN=#", "bad value"),
        ("CN=#0403aa", "bad value"),
        ("CN=#04", "bad value"),
    ] {
        let error = dn::from_text(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let many = vec!["CN=a"; dn::MAX_RDNS + 1].join(",");
    assert_eq!(dn::from_text(&many), Err(dn::DnError::TooMany));
    let many = vec!["CN=a"; dn::MAX_ATTRIBUTES + 1].join("+");
    assert_eq!(dn::from_text(&many), Err(dn::DnError::TooMany));
}

#[test]
fn bytes_that_are_no_names() {
    for text in [
        "",
        "30",
        "3001",
        "300100",
        "3000 00",
        "3002 3100",
        "3004 3102 3000",
        "3080 0000",
        "3084 00000000",
        "300c 310a 3008 0603550403 0c0161 00",
        "3100",
        "300a 3108 3006 0600 0c0161 00",
        "3009 3107 3005 0600 0c0161",
    ] {
        assert_eq!(dn::to_text(&hex(text)), None, "{text}");
    }
    assert_eq!(dn::to_text(&hex("3000")).as_deref(), Some(""), "the empty name is one");
    let shown = Identity::DerDn(hex("3001")).to_string();
    assert_eq!(shown, "type-9:3001");
    assert_eq!(Identity::from_text(&shown), Ok(Identity::DerDn(hex("3001"))));
    assert_eq!(Identity::DerDn(hex("3000")).to_string(), "type-9:3000");
    assert_eq!(Identity::KeyId(Vec::new()).to_string(), "type-11:");
}

#[test]
fn names_match_across_string_types_and_case() {
    let utf8 = dn::from_text("C=CH, O=Example  Inc, CN=Host").unwrap();
    let printable =
        hex("3036 310b 3009 0603550406 13024348 3114 3012 060355040a 130b 6578616d706c6520496e63
         3111 300f 0603550403 1e08 0068006f00730074");
    assert_eq!(dn::to_text(&printable).as_deref(), Some("C=CH, O=example Inc, CN=host"));
    let (a, b) = (Identity::DerDn(utf8), Identity::DerDn(printable));
    assert!(a.matches(&b) && b.matches(&a));
    assert_ne!(a, b);
    let id = |text| Identity::from_text(text).unwrap();
    assert!(!id("CN=a").matches(&id("CN=b")));
    assert!(!id("CN=a, O=b").matches(&id("O=b, CN=a")));
    assert!(!id("CN=a").matches(&id("O=a")));
    assert!(!id("CN=a").matches(&id("CN=a, CN=a")));
    assert!(id("CN=a+O=b").matches(&id("O=B+CN=A")));
    assert!(!Identity::DerDn(vec![1]).matches(&Identity::DerDn(vec![2])), "neither is a name");
}

#[test]
fn texts() {
    let id = |text| Identity::from_text(text).unwrap();
    assert_eq!(id("10.0.0.1"), Identity::Ipv4([10, 0, 0, 1].into()));
    assert_eq!(id(" 2001:db8::1 "), Identity::Ipv6("2001:db8::1".parse().unwrap()));
    assert_eq!(id("host.example.com"), Identity::Fqdn("host.example.com".into()));
    assert_eq!(id("@host"), Identity::Fqdn("host".into()));
    assert_eq!(id("fqdn:10.0.0.1"), Identity::Fqdn("10.0.0.1".into()));
    assert_eq!(id("me@example.com"), Identity::Email("me@example.com".into()));
    assert_eq!(id("email:me"), Identity::Email("me".into()));
    assert_eq!(id("keyid:00ff"), Identity::KeyId(vec![0, 255]));
    assert_eq!(id("keyid:blue"), Identity::KeyId(b"blue".to_vec()));
    assert_eq!(id("type-200:0102"), Identity::Other(200, vec![1, 2]));
    assert_eq!(id("ipv4:10.0.0.1"), id("10.0.0.1"));
    assert_eq!(id("dn:CN=a"), id("CN=a"));
    for bad in [
        "",
        "  ",
        "@",
        "two words",
        "fqdn:",
        "email:",
        "keyid:",
        "ipv4:::1",
        "ipv6:1.2.3.4",
        "bücher.example",
        "a b@c",
        "type-x:00",
        "type-300:00",
        "type-9:0",
        "type-1:00",
    ] {
        assert!(Identity::from_text(bad).is_err(), "{bad}");
    }
}

/// A peer chooses its bytes, but not how they are read.
#[test]
fn a_disguise_shows() {
    let fqdn = |text: &str| Identity::decode(IdType::FQDN, text.as_bytes()).unwrap();
    assert_eq!(fqdn("CN=ca,O=x").to_string(), "fqdn:CN=ca,O=x");
    assert_eq!(fqdn("10.0.0.1").to_string(), "fqdn:10.0.0.1");
    assert_eq!(fqdn("a@b").to_string(), "fqdn:a@b");
    assert_eq!(fqdn("keyid:00").to_string(), "fqdn:keyid:00");
    assert_eq!(fqdn("a\nb"), Identity::Other(2, b"a\nb".to_vec()));
    assert_eq!(fqdn(""), Identity::Other(2, vec![]));
    assert_eq!(fqdn("a\u{202e}b").to_string(), "type-2:61e280ae62");
    let email = |text: &str| Identity::decode(IdType::RFC822_ADDR, text.as_bytes()).unwrap();
    assert_eq!(email("a").to_string(), "email:a");
    assert_eq!(email("a b@c"), Identity::Other(3, b"a b@c".to_vec()));
    let der = dn::from_text("CN=a\\0a\\e2\\80\\aeb").unwrap();
    assert_eq!(Identity::DerDn(der).to_string(), "CN=a\\0a\\e2\\80\\aeb");
}

#[test]
fn equality() {
    let fqdn = |s: &str| Identity::Fqdn(s.into());
    assert_eq!(fqdn("A.Example"), fqdn("a.example"));
    let set =
        std::collections::BTreeSet::from([fqdn("A"), fqdn("a"), Identity::Other(2, b"a".to_vec())]);
    assert_eq!(set.len(), 2);
    assert_ne!(fqdn("a"), Identity::Other(2, b"a".to_vec()));
    assert_eq!(fqdn("A").encode(), (IdType::FQDN, b"A".to_vec()), "bytes stay as they came");
}

proptest! {
    #[test]
    fn bytes_read_back(id in identity()) {
        let (kind, data) = id.encode();
        let back = Identity::decode(kind, &data).unwrap();
        prop_assert_eq!(&back, &id);
        prop_assert_eq!(back.encode(), (kind, data));
        prop_assert_eq!(Identity::from_body(&id.to_body()), Ok(id));
    }

    #[test]
    fn text_reads_back(id in identity()) {
        let text = id.to_string();
        let back = Identity::from_text(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        prop_assert_eq!(back.encode(), id.encode(), "{}", text);
        prop_assert_eq!(back, id, "{}", text);
    }

    #[test]
    fn order_and_hash_agree_with_equality(a in identity(), b in identity()) {
        prop_assert_eq!(a == b, a.cmp(&b).is_eq());
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
    }

    #[test]
    fn names_read_back(parts in proptest::collection::vec(("CN|O|DC|1\\.2\\.3|2\\.999\\.1|emailAddress|C", "\\PC{1,12}"), 1..5)) {
        let value = |s: &str| s.chars().map(|c| match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' | '#' | ' ' => format!("\\{c}"),
            c => c.to_string(),
        }).collect::<String>();
        let text = parts.iter().map(|(k, v)| format!("{k}={}", value(v))).collect::<Vec<_>>().join(",");
        let der = dn::from_text(&text).unwrap();
        let shown = dn::to_text(&der).unwrap();
        prop_assert_eq!(dn::from_text(&shown).unwrap(), der, "{}", shown);
    }

    #[test]
    fn hostile_names(bytes in support::strategies::bytes(200)) {
        let _ = dn::to_text(&bytes);
        let mut framed = vec![0x30, 0x81, bytes.len() as u8];
        framed.extend(&bytes);
        if let Some(text) = dn::to_text(&framed) {
            prop_assert!(dn::same(&framed, &framed));
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
