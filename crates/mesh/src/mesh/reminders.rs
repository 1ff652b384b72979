//! What is said again and again: that certificates end, and that `optional` is on.

use std::collections::BTreeMap;
use std::time::Duration;

use ike::Now;
use ipsec::Instant;

use super::Mesh;
use crate::event::{Kind, Level};
use crate::loaded::CertificateFact;
use crate::status::CertificateLevel;
use crate::time::rfc3339;

/// Certificates are looked at so often; a level that stands is said again once a day.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(3600);
const SAY_AGAIN: u64 = 86_400;

/// When something is to be said, and what was said last.
pub(super) struct Reminders {
    pub(super) at: Instant,
    certificates_at: Instant,
    optional_at: Instant,
    /// Level and time of the last word, by subject and serial number.
    said: BTreeMap<(String, String), (CertificateLevel, u64)>,
}

impl Default for Reminders {
    fn default() -> Self {
        let never = Instant::NEVER;
        Self { at: never, certificates_at: never, optional_at: never, said: BTreeMap::new() }
    }
}

impl Reminders {
    /// A manifest came into force: everything is said now.
    pub(super) fn start(&mut self, now: Now) {
        (self.at, self.certificates_at, self.optional_at) = (now.at, now.at, now.at);
    }
}

impl Mesh {
    pub(super) fn remind(&mut self, now: Now) {
        if now.at < self.reminders.at {
            return;
        }
        if self.reminders.certificates_at <= now.at {
            self.speak_of_certificates(now);
            self.forget_cleartext(now);
            self.reminders.certificates_at = now.at + self.next_level_in(now);
        }
        if self.reminders.optional_at <= now.at {
            self.speak_of_optional(now);
        }
        self.reminders.at = self.reminders.certificates_at.min(self.reminders.optional_at);
    }

    /// Until a certificate reaches its next level, or the next look.
    fn next_level_in(&self, now: Now) -> Duration {
        let Some(fleet) = &self.fleet else { return CERTIFICATES_EVERY };
        let p = fleet.manifest().expiry;
        let periods = [p.info, p.warn, p.error, p.critical].map(|days| u64::from(days) * 86_400);
        let ends = fleet.loaded().certificates.iter().map(|fact| fact.not_after);
        let marks = ends.flat_map(|end| {
            let before = periods.into_iter().filter_map(move |period| end.checked_sub(period));
            before.chain(end.checked_add(1))
        });
        let next =
            marks.filter_map(|mark| mark.checked_sub(now.unix).filter(|left| *left > 0)).min();
        next.map_or(CERTIFICATES_EVERY, |left| CERTIFICATES_EVERY.min(Duration::from_secs(left)))
    }

    fn speak_of_optional(&mut self, now: Now) {
        let manifest = self.fleet.as_ref().map(crate::fleet::Fleet::manifest);
        let Some(every) = manifest.filter(|m| m.optional).map(|m| m.optional_warn_interval) else {
            self.reminders.optional_at = Instant::NEVER;
            return;
        };
        self.reminders.optional_at = now.at + every.max(Duration::from_secs(1));
        let text = "`optional: true`: traffic passes in the clear wherever there is no tunnel; \
                    take it out of the manifest to enforce encryption";
        self.report(now, Level::Warn, None, Kind::Optional, text);
    }

    fn speak_of_certificates(&mut self, now: Now) {
        let Some(fleet) = &self.fleet else { return };
        let periods = fleet.manifest().expiry;
        let facts = fleet.loaded().certificates.clone();
        self.reminders.said.retain(|key, _| facts.iter().any(|f| key_of(f) == *key));
        for fact in facts {
            let level = CertificateLevel::at(&periods, fact.not_after, now.unix);
            let before = self.reminders.said.get(&key_of(&fact)).copied();
            let again =
                before.is_none_or(|(l, at)| l != level || now.unix >= at.saturating_add(SAY_AGAIN));
            if level == CertificateLevel::Ok || !again {
                continue;
            }
            self.reminders.said.insert(key_of(&fact), (level, now.unix));
            let (loud, kind) = loudness(level);
            let verb = if level == CertificateLevel::Expired { "expired" } else { "expires" };
            let (subject, serial, end) = (&fact.subject, &fact.serial, rfc3339(fact.not_after));
            let text =
                format!("certificate `{subject}` (serial {serial}) {verb} at {end}; renew it");
            self.report(now, loud, None, kind, text);
        }
    }
}

fn key_of(fact: &CertificateFact) -> (String, String) {
    (fact.subject.clone(), fact.serial.clone())
}

fn loudness(level: CertificateLevel) -> (Level, Kind) {
    match level {
        CertificateLevel::Ok | CertificateLevel::Info => (Level::Info, Kind::CertExpires),
        CertificateLevel::Warn => (Level::Warn, Kind::CertExpires),
        CertificateLevel::Error => (Level::Error, Kind::CertExpires),
        CertificateLevel::Critical => (Level::Critical, Kind::CertExpires),
        CertificateLevel::Expired => (Level::Critical, Kind::CertExpired),
    }
}
