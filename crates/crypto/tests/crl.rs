//! Revocation lists: who is revoked, who is not, and lists that are not what they should be.

use crypto::chain::{Certificate, ChainError, Crl, TrustStore};
use crypto::credentials::{CredentialProblem, Credentials, LoadError};
use crypto::native::Native;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// 2026-06-01.
const NOW: u64 = 1_780_272_000;

struct Made {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
    certificate: Certificate,
}

fn make(name: &str, serial: &[u8], ca: bool, issuer: Option<&Made>) -> Made {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(serial));
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    }
    let key = KeyPair::generate().unwrap();
    let made = match issuer {
        Some(ca) => params.signed_by(&key, &Issuer::from_params(&ca.params, &ca.key)).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    Made { certificate: Certificate::from_der(made.der()).unwrap(), pem: made.pem(), params, key }
}

/// A list of `ca`, made in `year`, to be replaced a year later.
fn list(ca: &Made, year: i32, serials: &[&[u8]]) -> String {
    let revoked = |serial: &&[u8]| RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time: date_time_ymd(2026, 2, 3),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(year, 1, 1),
        next_update: date_time_ymd(year + 1, 1, 1),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&Issuer::from_params(&ca.params, &ca.key)).unwrap().pem().unwrap()
}

fn verify(leaf: &Made, sent: &[&Made], root: &Made, lists: &[String]) -> Result<(), ChainError> {
    let mut trust = TrustStore::from_ca_items(&[vec![root.certificate.clone()]]);
    for pem in lists {
        trust.add_crls(Crl::from_pem_all(pem).unwrap());
    }
    let sent: Vec<_> = sent.iter().map(|made| made.certificate.clone()).collect();
    trust.verify(&leaf.certificate, &sent, NOW)
}

#[test]
fn a_revoked_leaf_and_a_revoked_intermediate() {
    let root = make("root", &[1], true, None);
    let middle = make("middle", &[0x80, 2], true, Some(&root));
    let (good, bad) =
        (make("good", &[3], false, Some(&root)), make("bad", &[0xf0, 4], false, Some(&root)));
    let far = make("far", &[5], false, Some(&middle));
    let lists = [list(&root, 2026, &[&[0xf0, 4], &[99]])];
    verify(&good, &[], &root, &lists).unwrap();
    let error = verify(&bad, &[], &root, &lists).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`CN=bad` was revoked at 2026-02-03T00:00:00Z by `CN=root` (its revocation list says so)"
    );
    verify(&bad, &[], &root, &[]).unwrap();
    verify(&far, &[&middle], &root, &lists).unwrap();
    let error = verify(&far, &[&middle], &root, &[list(&root, 2026, &[&[0x80, 2]])]).unwrap_err();
    assert!(
        matches!(&error, ChainError::Revoked { subject, .. } if subject == "CN=middle"),
        "{error}"
    );
    // The list of the CA below counts for what that CA issued.
    let error = verify(&far, &[&middle], &root, &[list(&middle, 2026, &[&[5]])]).unwrap_err();
    assert!(matches!(&error, ChainError::Revoked { issuer, .. } if issuer == "CN=middle"));
    // The same serial number of another CA is another certificate.
    verify(&far, &[&middle], &root, &[list(&root, 2026, &[&[5]])]).unwrap();
}

#[test]
fn the_newest_list_counts_and_an_old_one_rather_than_none() {
    let root = make("root", &[1], true, None);
    let leaf = make("leaf", &[2], false, Some(&root));
    let (old, new) = (list(&root, 2024, &[]), list(&root, 2026, &[&[2]]));
    for lists in [[old.clone(), new.clone()], [new.clone(), old.clone()]] {
        assert!(matches!(verify(&leaf, &[], &root, &lists), Err(ChainError::Revoked { .. })));
    }
    let stale = list(&root, 2022, &[&[2]]);
    assert!(matches!(verify(&leaf, &[], &root, &[stale]), Err(ChainError::Revoked { .. })));
    verify(&leaf, &[], &root, &[old]).unwrap();
}

/// Somebody else's list under the CA's name revokes nothing, and is not passed over in silence either.
#[test]
fn a_forged_list() {
    let (root, forger) = (make("root", &[1], true, None), make("root", &[7], true, None));
    let leaf = make("leaf", &[2], false, Some(&root));
    let error = verify(&leaf, &[], &root, &[list(&forger, 2026, &[&[2]])]).unwrap_err();
    assert!(error.to_string().contains("was not signed with that CA's key"), "{error}");
}

#[test]
fn what_is_told_at_load() {
    let root = make("root", &[1], true, None);
    let other = make("other", &[9], true, None);
    let leaf = make("leaf", &[2], false, Some(&root));
    let key = leaf.key.serialize_pem();
    let load = |lists: &[&str]| {
        Credentials::load(&Native, &leaf.pem, &key, &[&root.pem])?.with_crls(lists)
    };
    let problems = |lists: &[&str]| load(lists).unwrap().check(&Native, NOW);
    assert!(problems(&[&list(&root, 2026, &[&[3]])]).is_empty());
    let stale = problems(&[&list(&root, 2024, &[])]);
    assert!(matches!(&stale[..], [CredentialProblem::StaleCrl { .. }]), "{stale:?}");
    assert!(!stale[0].is_fatal());
    let foreign = problems(&[&list(&other, 2026, &[])]);
    assert!(matches!(&foreign[..], [CredentialProblem::ForeignCrl { .. }]), "{foreign:?}");
    let own = problems(&[&list(&root, 2026, &[&[2]])]);
    assert!(own[0].is_fatal() && own[0].to_string().contains("was revoked"), "{own:?}");
    for bad in ["", "-----BEGIN X509 CRL-----\nMAAA\n-----END X509 CRL-----\n", &leaf.pem] {
        let error = load(&[bad]).unwrap_err();
        assert!(matches!(error, LoadError::Crl { number: 1, .. }), "{error}");
    }
}
