//! Certificates: reading, paths, names, and what is told to the operator.

use crypto::chain::{Certificate, ChainError, TrustStore, names_equal};
use crypto::credentials::{CredentialProblem, Credentials, LoadError};
use crypto::native::Native;
use crypto::provider::Provider;
use crypto::sign::Scheme;
use crypto::toy::{self, Toy};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use wire::identity::Identity;

/// 2026-06-01.
const NOW: u64 = 1_780_272_000;
const LONG_AGO: u64 = 946_684_800;
const FAR: u64 = 4_000_000_000;

struct Made {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
    certificate: Certificate,
}

/// Parameters valid from 2020 to 2040, named `CN=name`.
fn params(name: &str, serial: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&[serial]));
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    params
}

fn ca_params(name: &str, serial: u8) -> CertificateParams {
    let mut params = params(name, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn make(params: CertificateParams, issuer: Option<&Made>) -> Made {
    let key = KeyPair::generate().unwrap();
    let made = match issuer {
        Some(issuer) => {
            params.signed_by(&key, &Issuer::from_params(&issuer.params, &issuer.key)).unwrap()
        }
        None => params.self_signed(&key).unwrap(),
    };
    Made { certificate: Certificate::from_der(made.der()).unwrap(), pem: made.pem(), params, key }
}

fn trust(roots: &[&Made]) -> TrustStore {
    TrustStore::from_ca_items(
        &roots.iter().map(|root| vec![root.certificate.clone()]).collect::<Vec<_>>(),
    )
}

fn verify(leaf: &Made, sent: &[&Made], roots: &[&Made], now: u64) -> Result<(), ChainError> {
    let sent: Vec<_> = sent.iter().map(|made| made.certificate.der.as_slice()).collect();
    Native.verify_chain(&trust(roots), &leaf.certificate.der, &sent, now).map(|_| ())
}

#[test]
fn a_leaf_leads_to_its_root() {
    let root = make(ca_params("root", 1), None);
    let other = make(ca_params("other root", 2), None);
    let middle = make(ca_params("middle", 3), Some(&root));
    let (near, far) = (make(params("near", 4), Some(&root)), make(params("far", 5), Some(&middle)));
    verify(&near, &[], &[&root], NOW).unwrap();
    verify(&near, &[], &[&other, &root], NOW).unwrap();
    verify(&far, &[&middle], &[&root], NOW).unwrap();
    // Intermediates from the CA item do as well as those that the peer sends.
    let item =
        TrustStore::from_ca_items(&[vec![root.certificate.clone(), middle.certificate.clone()]]);
    assert_eq!((item.roots.len(), item.intermediates.len()), (1, 1));
    item.verify(&far.certificate, &[], NOW).unwrap();

    let UnknownIssuerOf(subject) = verify(&far, &[], &[&root], NOW).unwrap_err().into();
    assert_eq!(subject, "CN=far");
    let error = verify(&near, &[], &[&other], NOW).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`CN=near` was not issued by any of the trusted CAs (CN=other root)"
    );
    assert!(verify(&near, &[], &[], NOW).is_err());
}

struct UnknownIssuerOf(String);

impl From<ChainError> for UnknownIssuerOf {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::UnknownIssuer { subject, .. } => Self(subject),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn dates_count_for_every_certificate_of_the_path() {
    let root = make(ca_params("root", 1), None);
    let mut short = ca_params("short root", 2);
    short.not_after = date_time_ymd(2025, 1, 1);
    let short = make(short, None);
    let mut expired = params("expired", 3);
    expired.not_after = date_time_ymd(2026, 1, 1);
    let expired = make(expired, Some(&root));
    let mut early = params("early", 4);
    early.not_before = date_time_ymd(2027, 1, 1);
    let early = make(early, Some(&root));
    let of_short = make(params("of short", 5), Some(&short));

    assert_eq!(
        verify(&expired, &[], &[&root], NOW).unwrap_err(),
        ChainError::Expired {
            subject: "CN=expired".into(),
            not_after: "2026-01-01T00:00:00Z".into()
        }
    );
    assert_eq!(
        verify(&early, &[], &[&root], NOW).unwrap_err(),
        ChainError::NotYetValid {
            subject: "CN=early".into(),
            not_before: "2027-01-01T00:00:00Z".into()
        }
    );
    assert_eq!(
        verify(&of_short, &[], &[&short], NOW).unwrap_err(),
        ChainError::Expired {
            subject: "CN=short root".into(),
            not_after: "2025-01-01T00:00:00Z".into()
        }
    );
    let last = expired.certificate.not_after;
    verify(&expired, &[], &[&root], last).unwrap();
    assert!(verify(&expired, &[], &[&root], last + 1).is_err());
}

/// The old CA's certificate has expired, one of the same name and key has taken its place.
#[test]
fn a_renewed_root_stands_in_for_the_expired_one() {
    let root = make(ca_params("root", 1), None);
    let mut old = ca_params("root", 2);
    old.not_after = date_time_ymd(2025, 1, 1);
    let old = old.self_signed(&root.key).unwrap();
    let old = Certificate::from_der(old.der()).unwrap();
    let leaf = make(params("leaf", 3), Some(&root));
    let both = TrustStore::from_ca_items(&[vec![old], vec![root.certificate.clone()]]);
    both.verify(&leaf.certificate, &[], NOW).unwrap();
}

#[test]
fn usage_counts() {
    let root = make(ca_params("root", 1), None);
    let mut no_sign = ca_params("no sign", 2);
    no_sign.key_usages = vec![KeyUsagePurpose::CrlSign];
    let no_sign = make(no_sign, None);
    let no_ca = make(params("no ca", 3), None);
    let mut crl = params("encipher", 4);
    crl.key_usages = vec![KeyUsagePurpose::KeyEncipherment];

    let wrong = |leaf: &Made, root: &Made| match verify(leaf, &[], &[root], NOW) {
        Err(ChainError::WrongUsage { subject, what }) => format!("{subject}: {what}"),
        other => panic!("{other:?}"),
    };
    assert!(
        wrong(&make(params("a", 5), Some(&no_sign)), &no_sign)
            .starts_with("CN=no sign: its keyUsage lacks keyCertSign")
    );
    assert!(wrong(&make(params("b", 6), Some(&no_ca)), &no_ca).contains("not a CA"));
    assert!(wrong(&make(crl, Some(&root)), &root).contains("digitalSignature"));
    assert!(
        wrong(&make(ca_params("ca as leaf", 7), Some(&root)), &root)
            .contains("certificate of a CA")
    );

    let purposes = [
        (vec![], true),
        (vec![ExtendedKeyUsagePurpose::ServerAuth], true),
        (vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::CodeSigning], true),
        (vec![ExtendedKeyUsagePurpose::Any], true),
        (vec![ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17])], true),
        (vec![ExtendedKeyUsagePurpose::CodeSigning], false),
        (
            vec![ExtendedKeyUsagePurpose::EmailProtection, ExtendedKeyUsagePurpose::OcspSigning],
            false,
        ),
    ];
    for (purposes, good) in purposes {
        let mut leaf = params("leaf", 8);
        leaf.extended_key_usages = purposes.clone();
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = make(leaf, Some(&root));
        assert_eq!(verify(&leaf, &[], &[&root], NOW).is_ok(), good, "{purposes:?}");
        if !good {
            assert!(wrong(&leaf, &root).contains("extendedKeyUsage"));
        }
    }
}

#[test]
fn another_key_under_the_same_name_is_no_issuer() {
    let (root, impostor) = (make(ca_params("root", 1), None), make(ca_params("root", 1), None));
    let leaf = make(params("leaf", 2), Some(&impostor));
    let error = verify(&leaf, &[], &[&root], NOW).unwrap_err();
    assert!(error.to_string().contains("was not made with the key of the CA"), "{error}");
    // With both, as in a rotation that kept the name, the right one is found.
    verify(&leaf, &[], &[&root, &impostor], NOW).unwrap();
    verify(&leaf, &[], &[&impostor, &root], NOW).unwrap();
}

#[test]
fn a_peer_can_send_nonsense() {
    let root = make(ca_params("root", 1), None);
    let leaf = make(params("leaf", 2), Some(&root));
    let der = &leaf.certificate.der;
    for len in 0..der.len() {
        assert!(Native.verify_chain(&trust(&[&root]), &der[..len], &[], NOW).is_err());
    }
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 0x41;
        // No panic; and no change goes unnoticed, as the signature covers everything but itself and its name.
        assert!(Native.verify_chain(&trust(&[&root]), &changed, &[], NOW).is_err(), "byte {at}");
    }
    // Intermediates that cannot be read are passed over.
    let sent: Vec<&[u8]> = vec![b"nonsense", &[], &der[..20]];
    Native.verify_chain(&trust(&[&root]), der, &sent, NOW).unwrap();
    // Many that fit by name do not keep us busy.
    let many: Vec<_> = (0..200).map(|n| make_der(&format!("CA {n}"), &root)).collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    Native.verify_chain(&trust(&[&root]), der, &many, NOW).unwrap();
}

fn make_der(name: &str, issuer: &Made) -> Vec<u8> {
    ca_params(name, 9)
        .signed_by(&issuer.key, &Issuer::from_params(&issuer.params, &issuer.key))
        .unwrap()
        .der()
        .to_vec()
}

#[test]
fn fields_and_identities() {
    let root = make(ca_params("root", 1), None);
    let mut leaf = params("leaf", 0x7f);
    leaf.distinguished_name.push(DnType::OrganizationName, "An Organisation");
    leaf.subject_alt_names = vec![
        SanType::DnsName("host.example".try_into().unwrap()),
        SanType::Rfc822Name("user@example.org".try_into().unwrap()),
        SanType::IpAddress("192.0.2.7".parse().unwrap()),
        SanType::IpAddress("2001:db8::7".parse().unwrap()),
    ];
    let leaf = make(leaf, Some(&root)).certificate;
    assert_eq!(leaf.subject_text, "O=An Organisation,CN=leaf");
    assert_eq!((leaf.serial.as_slice(), leaf.serial_text().as_str()), (&[0x7f][..], "7f"));
    assert_eq!((leaf.not_before, leaf.not_after), (1_577_836_800, 2_208_988_800));
    assert!(!leaf.is_ca && root.certificate.is_ca && root.certificate.is_self_issued());
    assert_eq!(leaf.issuer, root.certificate.subject);

    let dns = |name: &str| Identity::Fqdn(name.into());
    let mail = |name: &str| Identity::Email(name.into());
    for (identity, carried) in [
        (Identity::DerDn(leaf.subject.clone()), true),
        (Identity::DerDn(leaf.issuer.clone()), false),
        (Identity::DerDn(vec![]), false),
        (dns("host.example"), true),
        (dns("HOST.Example"), true),
        (dns("other.example"), false),
        (dns("user@example.org"), false),
        (mail("user@example.org"), true),
        (mail("user@EXAMPLE.org"), true),
        (mail("User@example.org"), false),
        (mail("example.org"), false),
        (Identity::Ipv4("192.0.2.7".parse().unwrap()), true),
        (Identity::Ipv4("192.0.2.8".parse().unwrap()), false),
        (Identity::Ipv6("2001:db8::7".parse().unwrap()), true),
        (Identity::KeyId(b"host.example".to_vec()), false),
    ] {
        assert_eq!(leaf.carries(&identity), carried, "{identity:?}");
    }
    let key_id = leaf.key_id_sha1(&Native).unwrap();
    assert_eq!(key_id.len(), 20);
}

/// RFC 5280 7.1.
#[test]
fn names_compare_without_regard_to_case_spaces_and_string_type() {
    let name = |build: &dyn Fn(&mut rcgen::DistinguishedName)| {
        let mut params = params("x", 1);
        params.distinguished_name = rcgen::DistinguishedName::new();
        build(&mut params.distinguished_name);
        make(params, None).certificate.subject
    };
    let printable = |text: &str| DnValue::PrintableString(text.try_into().unwrap());
    let utf8 = |text: &str| DnValue::Utf8String(text.into());
    let of = |organisation: DnValue, common: &str| {
        name(&|dn| {
            dn.push(DnType::OrganizationName, organisation.clone());
            dn.push(DnType::CommonName, utf8(common));
        })
    };
    let base = of(printable("Some Company"), "host");
    assert!(names_equal(&base, &base));
    assert!(names_equal(&base, &of(utf8("Some Company"), "host")));
    assert!(names_equal(&base, &of(utf8("  some   COMPANY "), "HOST")));
    assert!(!names_equal(&base, &of(utf8("SomeCompany"), "host")));
    assert!(!names_equal(&base, &of(utf8("Some Company"), "host2")));
    let swapped = name(&|dn| {
        dn.push(DnType::CommonName, utf8("host"));
        dn.push(DnType::OrganizationName, printable("Some Company"));
    });
    assert!(!names_equal(&base, &swapped), "the order of a DN counts");
    let shorter = name(&|dn| dn.push(DnType::CommonName, utf8("host")));
    assert!(!names_equal(&base, &shorter));
    assert!(!names_equal(&base, &[]) && !names_equal(&base[..base.len() - 1], &base));
}

#[test]
fn pem_texts() {
    let root = make(ca_params("root", 1), None);
    let middle = make(ca_params("middle", 2), Some(&root));
    let bundle =
        format!("some text\n{}\nmore text\n{}", root.pem, middle.pem.replace('\n', "\r\n"));
    let all = Certificate::from_pem_all(&bundle).unwrap();
    assert_eq!(all, [root.certificate.clone(), middle.certificate.clone()]);
    let error = |pem: &str| Certificate::from_pem_all(pem).unwrap_err().to_string();
    assert!(error("").contains("BEGIN CERTIFICATE"));
    assert!(error(&root.key.serialize_pem()).contains("BEGIN CERTIFICATE"));
    assert!(error(&root.pem.replace("-----END", "-----FIN")).contains("damaged"));
    assert!(error(&root.pem.repeat(65)).contains("more than 64"));
}

fn credentials(leaf: &Made, key: &Made, items: &[&str]) -> Credentials {
    Credentials::load(&Native, &leaf.pem, &key.key.serialize_pem(), items).unwrap()
}

#[test]
fn good_credentials_have_no_problem() {
    let root = make(ca_params("root", 1), None);
    let middle = make(ca_params("middle", 2), Some(&root));
    let leaf = make(params("leaf", 3), Some(&middle));
    let good = credentials(&leaf, &leaf, &[&format!("{}{}", root.pem, middle.pem)]);
    assert_eq!(good.check(&Native, NOW), []);
    let sent: Vec<_> = good.chain_to_send().iter().map(|c| c.subject_text.clone()).collect();
    assert_eq!(sent, ["CN=leaf", "CN=middle"]);
    assert_eq!(good.identity(), Identity::DerDn(leaf.certificate.subject.clone()));
    assert!(!format!("{good:?}").contains("key"));
    // The same with the intermediate after the leaf instead of after the root.
    let pem = format!("{}{}", leaf.pem, middle.pem);
    let good = Credentials::load(&Native, &pem, &leaf.key.serialize_pem(), &[&root.pem]).unwrap();
    assert_eq!(good.check(&Native, NOW), []);
    assert_eq!(good.chain_to_send().len(), 2);
}

/// Two CAs of one name and different keys in a rotation: neither is a duplicate in a chain of the other.
#[test]
fn a_rotation_has_no_problem() {
    let (old, new) = (make(ca_params("root", 1), None), make(ca_params("root", 2), None));
    let leaf = make(params("leaf", 3), Some(&old));
    assert_eq!(credentials(&leaf, &leaf, &[&old.pem, &new.pem]).check(&Native, NOW), []);
    assert_eq!(credentials(&leaf, &leaf, &[&new.pem, &old.pem]).check(&Native, NOW), []);
}

#[test]
fn each_problem_is_told_with_its_remedy() {
    use CredentialProblem as P;
    let root = make(ca_params("root", 1), None);
    let other = make(ca_params("other", 2), None);
    let leaf = make(params("leaf", 3), Some(&root));
    let problems = |c: &Credentials| c.check(&Native, NOW);

    let mismatch = problems(&credentials(&leaf, &other, &[&root.pem]));
    assert_eq!(mismatch, [P::KeyMismatch { subject: "CN=leaf".into() }]);
    assert!(mismatch[0].to_string().contains("put the key that"));

    let no_path = problems(&credentials(&leaf, &leaf, &[&other.pem]));
    assert!(matches!(no_path[..], [P::NoPath(_)]), "{no_path:?}");
    assert!(no_path[0].to_string().contains("ca_certificates"));

    let serial = make(params("same serial", 1), Some(&root));
    let found = problems(&credentials(&serial, &serial, &[&root.pem]));
    assert_eq!(
        found,
        [P::SerialOfCa {
            ca: "CN=root".into(),
            subject: "CN=same serial".into(),
            serial: "01".into()
        }]
    );

    let subject = make(params("root", 4), Some(&root));
    let found = problems(&credentials(&subject, &subject, &[&root.pem]));
    assert!(found.contains(&P::SubjectOfCa { subject: "CN=root".into() }), "{found:?}");

    let twin = make(ca_params("twin", 1), Some(&root));
    let under = make(params("under", 5), Some(&twin));
    let found = problems(&credentials(&under, &under, &[&format!("{}{}", root.pem, twin.pem)]));
    let twins = P::DuplicateSerial {
        first: "CN=twin".into(),
        second: "CN=root".into(),
        serial: "01".into(),
    };
    assert_eq!(found, [twins]);

    let namesake = make(ca_params("root", 6), Some(&root));
    let below = make(params("below", 7), Some(&namesake));
    let found = problems(&credentials(&below, &below, &[&format!("{}{}", root.pem, namesake.pem)]));
    assert!(found.contains(&P::DuplicateSubject { subject: "CN=root".into() }), "{found:?}");

    let mut usage = params("usage", 8);
    usage.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    let usage = make(usage, Some(&root));
    let found = problems(&credentials(&usage, &usage, &[&root.pem]));
    assert!(matches!(found[..], [P::WrongUsage(_)]), "{found:?}");
}

#[test]
fn dates_of_leaf_and_cas_are_problems() {
    use CredentialProblem as P;
    let root = make(ca_params("root", 1), None);
    let mut old = ca_params("old root", 2);
    old.not_after = date_time_ymd(2025, 1, 1);
    let old = make(old, None);
    let leaf = make(params("leaf", 3), Some(&root));
    let both = credentials(&leaf, &leaf, &[&old.pem, &root.pem]);
    let expired = P::Expired {
        subject: "CN=old root".into(),
        not_after: "2025-01-01T00:00:00Z".into(),
        is_ca: true,
    };
    assert_eq!(both.check(&Native, NOW), std::slice::from_ref(&expired));
    assert!(!expired.is_fatal(), "the other CA carries on");

    let late = both.check(&Native, FAR);
    let leaf_expired =
        |p: &&P| matches!(p, P::Expired { subject, is_ca: false, .. } if subject == "CN=leaf");
    assert_eq!(late.iter().filter(leaf_expired).count(), 1);
    assert!(late.iter().any(P::is_fatal));
    let early = both.check(&Native, LONG_AGO);
    assert!(early.iter().any(|p| matches!(p, P::NotYetValid { is_ca: false, .. }) && p.is_fatal()));
    assert!(
        early
            .iter()
            .all(|p| p.to_string().contains("clock") || p.to_string().contains("2020-01-01"))
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let root = make(ca_params("root", 1), None);
    let leaf = make(params("leaf", 2), Some(&root));
    let key = leaf.key.serialize_pem();
    let load = |certificate: &str, key: &str, ca: &str| {
        Credentials::load(&Native, certificate, key, &[&root.pem, ca])
    };
    assert!(matches!(load("x", &key, &root.pem), Err(LoadError::Certificate(_))));
    assert!(matches!(load(&leaf.pem, "x", &root.pem), Err(LoadError::Key(_))));
    let error = load(&leaf.pem, &key, "x").unwrap_err();
    assert!(matches!(error, LoadError::Ca { number: 2, .. }), "{error}");
    assert!(error.to_string().starts_with("CA certificate 2: "));
}

/// 2027-06-01, within the validity of the certificates made with OpenSSL.
const OPENSSL_NOW: u64 = 1_811_808_000;

#[test]
fn certificates_of_openssl() {
    let read = |pem: &str| Certificate::from_pem_all(pem).unwrap().remove(0);
    let root = read(include_str!("certs/v1-root.pem"));
    let leaf = read(include_str!("certs/leaf.pem"));
    assert_eq!(root.serial_text(), "0102030405060708090a0b0c0d0e0f101112131415");
    assert!(root.is_ca && root.key_usage.is_none());
    let text = r#"EMAIL=a@b.example,CN=host \"one\"\, München,O=Old Company"#;
    assert_eq!(leaf.subject_text, text);
    assert_eq!(leaf.serial_text(), "c0ffee");
    assert_eq!(leaf.ext_key_usage, ["1.3.6.1.5.5.7.3.17"]);
    assert_eq!(leaf.alt_names.len(), 2, "a URI is no identity of IKE");
    assert!(leaf.carries(&Identity::Ipv6("2001:db8::1".parse().unwrap())));
    // Of `openssl x509 -pubkey | openssl pkey -pubin -outform DER | sha1sum`.
    let key_id = leaf.key_id_sha1(&Native).unwrap();
    let key_id: String = key_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(key_id, "992c9348b5cce93ce6503bc8754e46b77670ff38");

    let trust = TrustStore::from_ca_items(&[vec![root]]);
    trust.verify(&leaf, &[], OPENSSL_NOW).unwrap();
    trust.verify(&read(include_str!("certs/leaf-pss.pem")), &[], OPENSSL_NOW).unwrap();
    let refused = |pem| trust.verify(&read(pem), &[], OPENSSL_NOW).unwrap_err().to_string();
    assert!(refused(include_str!("certs/leaf-sha1.pem")).contains("SHA-1"));
    assert!(refused(include_str!("certs/leaf-v1.pem")).contains("version 1"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..300), text in ".*") {
        let _ = Certificate::from_der(&bytes);
        let _ = Certificate::from_pem_all(&text);
        let _ = crypto::sign::load_pem(&text);
        let _ = Scheme::from_algorithm_identifier(&bytes);
        let _ = Native.signing_key(&bytes);
        prop_assert!(Toy.verify_chain(&TrustStore::default(), &bytes, &[&bytes], NOW).is_err());
        prop_assert!(names_equal(&bytes, &bytes));
        prop_assert!(Native.verify(Scheme::Ed25519, &bytes, &bytes, &bytes).is_err());
    }

    /// Real certificates with some bytes changed, which reach further than random ones.
    #[test]
    fn damaged_certificates_are_read_without_panic(
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
    ) {
        let good = Certificate::from_pem_all(include_str!("certs/leaf.pem")).unwrap().remove(0);
        let mut der = good.der;
        for (index, value) in changes {
            let index = index.index(der.len());
            der[index] = value;
        }
        if let Ok(damaged) = Certificate::from_der(&der) {
            let _ = names_equal(&damaged.subject, &damaged.issuer);
            let trust = TrustStore::from_ca_items(&[vec![damaged.clone()]]);
            let _ = trust.verify(&damaged, std::slice::from_ref(&damaged), OPENSSL_NOW);
        }
    }
}

#[test]
fn toy_certificates_behave_like_real_ones() {
    let (host, stranger) = (toy::credentials("host"), toy::Authority::new("stranger"));
    assert_eq!(host.check(&Toy, NOW), []);
    assert_eq!(host.leaf.subject_text, "CN=host");
    let verified = Toy.verify_chain(host.trust(), &host.leaf.der, &[], NOW).unwrap();
    assert!(verified == host.leaf && verified.carries(&host.identity()));

    let (foreign, _) = stranger.issue("host", &[], (0, u64::MAX));
    assert!(matches!(
        Toy.verify_chain(host.trust(), &foreign.der, &[], NOW),
        Err(ChainError::UnknownIssuer { .. })
    ));
    let middle = stranger.intermediate("middle");
    let (below, _) =
        middle.issue("below", &[Identity::Fqdn("below.example".into())], (LONG_AGO, NOW));
    let trust = TrustStore::from_ca_items(&[vec![stranger.certificate.clone()]]);
    let sent: [&[u8]; 1] = [&middle.certificate.der];
    let leaf = Toy.verify_chain(&trust, &below.der, &sent, NOW).unwrap();
    assert!(leaf.carries(&Identity::Fqdn("BELOW.example".into())));
    assert!(Toy.verify_chain(&trust, &below.der, &[], NOW).is_err());
    assert!(matches!(
        Toy.verify_chain(&trust, &below.der, &sent, NOW + 1),
        Err(ChainError::Expired { .. })
    ));
    for len in 0..below.der.len() {
        assert!(Toy.verify_chain(&trust, &below.der[..len], &sent, NOW).is_err());
    }
    for at in 0..below.der.len() {
        let mut changed = below.der.clone();
        changed[at] ^= 1;
        assert!(Toy.verify_chain(&trust, &changed, &sent, NOW).is_err(), "byte {at}");
    }
}

#[test]
fn names_outside_the_constraints_of_a_ca() {
    let mut limited = ca_params("limited", 1);
    limited.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("example.org".into())],
        excluded_subtrees: vec![rcgen::GeneralSubtree::DnsName("secret.example.org".into())],
    });
    let root = make(limited, None);
    let named = |serial: u8, name: &str| {
        let mut params = params("host", serial);
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        make(params, Some(&root))
    };
    verify(&named(2, "host.example.org"), &[], &[&root], NOW).unwrap();
    for (serial, name) in [(3, "host.example.com"), (4, "a.secret.example.org")] {
        let error = verify(&named(serial, name), &[], &[&root], NOW).unwrap_err();
        assert!(error.to_string().contains("outside the name constraints"), "{name}: {error}");
    }
}
