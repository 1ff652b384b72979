//! Certificates as `status` and the metrics show them: this host's own, and what peers have shown of theirs.

use ike::Now;
use ike::event::KeyId;

use super::Mesh;
use crate::metrics::{Sample, gauge};
use crate::peer::Peer;
use crate::status::{AuthorityStatus, CertificateLevel, CertificateStatus, ShownStatus};
use crate::time::rfc3339;

impl Mesh {
    pub(super) fn certificates_shown(&self, now: Now) -> Vec<CertificateStatus> {
        let Some(fleet) = &self.fleet else { return Vec::new() };
        let periods = fleet.manifest().expiry;
        let shown = fleet.loaded().certificates.iter().map(|fact| CertificateStatus {
            subject: fact.subject.clone(),
            serial: fact.serial.clone(),
            not_after: rfc3339(fact.not_after),
            days_left: days_left(fact.not_after, now),
            role: fact.role,
            level: CertificateLevel::at(&periods, fact.not_after, now.unix),
            key_id: fact.key_id.clone(),
            ca: fact.ca.clone(),
        });
        shown.collect()
    }

    pub(super) fn proof_shown(&self, now: Now, peer: &Peer) -> Option<ShownStatus> {
        let fleet = self.fleet.as_ref()?;
        let (proof, at) = peer.proof.as_ref()?;
        let named = |id: &KeyId| {
            let key_id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            let known = fleet.loaded().certificates.iter().find(|fact| fact.key_id == key_id);
            AuthorityStatus { subject: known.map(|fact| fact.subject.clone()), key_id }
        };
        Some(ShownStatus {
            subject: proof.subject.clone(),
            serial: proof.serial.clone(),
            not_after: rfc3339(proof.not_after),
            days_left: days_left(proof.not_after, now),
            level: CertificateLevel::at(&fleet.manifest().expiry, proof.not_after, now.unix),
            ca: proof.ca.as_ref().map(named),
            trusts: proof.trusts.as_ref().map(|all| all.iter().map(named).collect()),
            age_s: now.at.since(*at).as_secs(),
        })
    }
}

fn days_left(not_after: u64, now: Now) -> i64 {
    (i128::from(not_after) - i128::from(now.unix)).div_euclid(86_400) as i64
}

/// Both of a certificate; the level as a number, so that alerts can compare it.
pub(super) fn expiry_samples(certificate: CertificateStatus) -> [Sample; 2] {
    let level = match certificate.level {
        CertificateLevel::Ok => 0.0,
        CertificateLevel::Info => 1.0,
        CertificateLevel::Warn => 2.0,
        CertificateLevel::Error => 3.0,
        CertificateLevel::Critical => 4.0,
        CertificateLevel::Expired => 5.0,
    };
    let labels = vec![("subject", certificate.subject), ("serial", certificate.serial)];
    let days = certificate.days_left as f64;
    [
        gauge(
            "warren_certificate_days_left",
            "days until a certificate ends",
            labels.clone(),
            days,
        ),
        gauge(
            "warren_certificate_level",
            "by the manifest's periods: 0 ok, 1 info, 2 warn, 3 error, 4 critical, 5 expired",
            labels,
            level,
        ),
    ]
}
