//! Path validation (RFC 5280 6), and why it failed in words that help.

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::time::Duration;
use webpki::{
    EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

use super::{Certificate, ChainError, Crl, MAX_CERTIFICATES, TrustStore, names_equal, rfc3339};

/// anyExtendedKeyUsage, serverAuth, clientAuth, ipsecEndSystem, ipsecTunnel, ipsecUser (RFC 4945
/// 5.1.3.12 lets them be accepted), ipsecIKE (RFC 4945), and iKEIntermediate of an expired draft that
/// some CAs still set.
const PURPOSES: [&str; 8] = [
    "2.5.29.37.0",
    "1.3.6.1.5.5.7.3.1",
    "1.3.6.1.5.5.7.3.2",
    "1.3.6.1.5.5.7.3.5",
    "1.3.6.1.5.5.7.3.6",
    "1.3.6.1.5.5.7.3.7",
    "1.3.6.1.5.5.7.3.17",
    "1.3.6.1.5.5.8.2.2",
];

/// How far up the walk that explains a failure goes.
const MAX_DEPTH: usize = 8;

pub(super) fn verify(
    trust: &TrustStore,
    leaf: &Certificate,
    sent: &[Certificate],
    unix_now: u64,
) -> Result<(), ChainError> {
    check_leaf(leaf, unix_now)?;
    // What cannot be an issuer now is left out, so that another path, say to the new CA of a rotation, is found.
    let usable = |certificate: &&Certificate| check_issuer(certificate, unix_now).is_ok();
    let ders = |list: &[&Certificate]| {
        list.iter().map(|c| CertificateDer::from(c.der.clone())).collect::<Vec<_>>()
    };
    let roots: Vec<_> = trust.roots.iter().filter(usable).collect();
    let between: Vec<_> =
        trust.intermediates.iter().chain(sent.iter().take(MAX_CERTIFICATES)).collect();
    let usable_between: Vec<_> = between.iter().copied().filter(|c| usable(c)).collect();

    match build(trust, &leaf.der, &ders(&roots), &ders(&usable_between), unix_now) {
        Ok(()) => Ok(()),
        Err(error) => Err(explain(trust, leaf, &between, unix_now, &error)),
    }
}

/// Dates, and that it is an end entity's certificate that may sign.
pub(crate) fn check_leaf(leaf: &Certificate, unix_now: u64) -> Result<(), ChainError> {
    check_dates(leaf, unix_now)?;
    if leaf.is_ca {
        return Err(wrong_usage(
            leaf,
            "it is the certificate of a CA, where that of a host is wanted",
        ));
    }
    if leaf.key_usage.is_some_and(|usage| !usage.digital_signature) {
        return Err(wrong_usage(leaf, "its keyUsage lacks digitalSignature"));
    }
    check_purposes(leaf)
}

/// Dates, and that it may sign certificates.
pub(crate) fn check_issuer(issuer: &Certificate, unix_now: u64) -> Result<(), ChainError> {
    check_dates(issuer, unix_now)?;
    if !issuer.is_ca {
        return Err(wrong_usage(issuer, "it is not a CA (its basicConstraints lack CA:TRUE)"));
    }
    if issuer.key_usage.is_some_and(|usage| !usage.cert_sign) {
        return Err(wrong_usage(issuer, "its keyUsage lacks keyCertSign"));
    }
    Ok(())
}

fn check_dates(certificate: &Certificate, unix_now: u64) -> Result<(), ChainError> {
    let subject = certificate.subject_text.clone();
    if unix_now > certificate.not_after {
        return Err(ChainError::Expired { subject, not_after: rfc3339(certificate.not_after) });
    }
    if unix_now < certificate.not_before {
        return Err(ChainError::NotYetValid {
            subject,
            not_before: rfc3339(certificate.not_before),
        });
    }
    Ok(())
}

fn check_purposes(certificate: &Certificate) -> Result<(), ChainError> {
    let purposes = &certificate.ext_key_usage;
    if purposes.is_empty() || purposes.iter().any(|purpose| PURPOSES.contains(&purpose.as_str())) {
        return Ok(());
    }
    Err(wrong_usage(
        certificate,
        "its extendedKeyUsage has none of ipsecIKE, serverAuth, clientAuth, anyExtendedKeyUsage",
    ))
}

fn wrong_usage(certificate: &Certificate, what: &str) -> ChainError {
    ChainError::WrongUsage { subject: certificate.subject_text.clone(), what: what.into() }
}

fn build(
    trust: &TrustStore,
    leaf: &[u8],
    roots: &[CertificateDer<'_>],
    between: &[CertificateDer<'_>],
    unix_now: u64,
) -> Result<(), webpki::Error> {
    let leaf = CertificateDer::from(leaf);
    let leaf = EndEntityCert::try_from(&leaf)?;
    let anchors: Vec<TrustAnchor<'_>> =
        roots.iter().filter_map(|root| anchor_from_trusted_cert(root).ok()).collect();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(unix_now));
    let lists: Vec<_> = trust.crls.iter().map(Crl::list).collect();
    let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
        options
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Allow)
            .with_expiration_policy(ExpirationPolicy::Ignore)
            .build()
    });
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        between,
        now,
        IkePurposes,
        revocation,
        None,
    )
    .map(|_| ())
}

/// Accepts a certificate without extendedKeyUsage, or with one of [`PURPOSES`]; used for issuers too.
struct IkePurposes;

impl ExtendedKeyUsageValidator for IkePurposes {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut none = true;
        for purpose in purposes {
            none = false;
            let dotted = purpose?
                .to_decoded_oid()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(".");
            if PURPOSES.contains(&dotted.as_str()) {
                return Ok(());
            }
        }
        if none { Ok(()) } else { Err(webpki::Error::ExtensionValueInvalid) }
    }
}

/// Walks up from the leaf by names until something is wrong; what webpki said is the last resort.
fn explain(
    trust: &TrustStore,
    leaf: &Certificate,
    between: &[&Certificate],
    unix_now: u64,
    error: &webpki::Error,
) -> ChainError {
    let mut current = leaf;
    if matches!(error, webpki::Error::CertRevoked)
        && let Some(revoked) = revoked(trust, leaf, between)
    {
        return revoked;
    }
    for _ in 0..MAX_DEPTH {
        let root = trust.roots.iter().find(|root| names_equal(&root.subject, &current.issuer));
        let issuer = root
            .or_else(|| between.iter().copied().find(|c| names_equal(&c.subject, &current.issuer)));
        let Some(issuer) = issuer else {
            return unknown_issuer(trust, current);
        };
        let checked = check_issuer(issuer, unix_now).and_then(|()| check_purposes(issuer));
        if let Err(problem) = checked {
            return problem;
        }
        if root.is_some() || issuer == current {
            break;
        }
        current = issuer;
    }
    ChainError::Other { subject: current.subject_text.clone(), what: describe(error) }
}

/// Which one it is, and since when.
fn revoked(trust: &TrustStore, leaf: &Certificate, between: &[&Certificate]) -> Option<ChainError> {
    let mut all = std::iter::once(leaf).chain(between.iter().copied());
    all.find_map(|certificate| {
        trust.crls.iter().find_map(|crl| {
            Some(ChainError::Revoked {
                subject: certificate.subject_text.clone(),
                at: rfc3339(crl.revoked_at(certificate)?),
                issuer: crl.issuer_text.clone(),
            })
        })
    })
}

pub(crate) fn unknown_issuer(trust: &TrustStore, certificate: &Certificate) -> ChainError {
    const SHOWN: usize = 5;
    let mut cas: Vec<_> =
        trust.roots.iter().take(SHOWN).map(|root| root.subject_text.as_str()).collect();
    if trust.roots.len() > SHOWN {
        cas.push("…");
    }
    ChainError::UnknownIssuer { subject: certificate.subject_text.clone(), cas: cas.join("; ") }
}

fn describe(error: &webpki::Error) -> String {
    use webpki::Error;
    match error {
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => {
            "its signature was not made with the key of the CA that it names (was the CA made anew under the same name?); put the present certificate of that CA into ca_certificates, or have this one issued anew".into()
        }
        Error::UnsupportedSignatureAlgorithmContext(_) => {
            "it is signed with an algorithm that is not accepted, such as SHA-1; have it issued anew with SHA-256".into()
        }
        Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "its signature algorithm does not go with the key of its issuer".into()
        }
        Error::UnsupportedCertVersion => "it is of X.509 version 1; have it issued anew as version 3".into(),
        Error::UnsupportedCriticalExtension => "it has a critical extension that is not known".into(),
        Error::PathLenConstraintViolated => "its chain is longer than a CA's pathLenConstraint allows".into(),
        Error::NameConstraintViolation => "one of its names is outside the name constraints of a CA".into(),
        Error::CertRevoked => "it, or a CA above it, was revoked".into(),
        Error::IssuerNotCrlSigner => "there is a revocation list of its issuer, whose keyUsage lacks cRLSign; have that CA's certificate issued anew, or leave the list out".into(),
        Error::InvalidCrlSignatureForPublicKey => "the revocation list of its issuer was not signed with that CA's key; fetch it anew".into(),
        other => format!("path validation failed: {other}"),
    }
}
