//! What the tests of the manifest share.
#![allow(dead_code)]

use mesh::manifest::{Diagnostics, Manifest, NoFiles, Note, Ref, Resolver};

pub const PSK: &str = "correct horse battery staple";

/// Credentials of the right form, and what may be put in front of a test's own lines.
pub const CERTIFICATES: &str = "\
instance_certificate: |
  -----BEGIN CERTIFICATE-----
  MIIEMDCCAhigAwIBAgIRAIvrBY2TttULeRhO+V1t0YwDQYJKoZIhvcNAQELBQAwA
  MIIEMDCCAhigAwIBAgIRAIvrBY2TttULeRhO+V1t0YwDQYJKoZIhvcNAQELBQAwA
  -----END CERTIFICATE-----
instance_private_key: |
  -----BEGIN RSA PRIVATE KEY-----
  MIIEogIBAAKCAQEAtAkBjzr5x9g0aWgyDEmLd7m9u/ZzpK7UScfANLaN7JiNz3c0
  -----END RSA PRIVATE KEY-----
ca_certificates:
- |
  -----BEGIN CERTIFICATE-----
  MIIFCTCCAvGgAwIBAgIBATANBgkqhkiG9w0BAQsFADAUMRIwEAYDVQQDEwl0ZXN0
  -----END CERTIFICATE-----
";

/// A resolver that knows a few texts by path or name.
pub struct Texts(pub Vec<(&'static str, String)>);

impl Resolver for Texts {
    fn read(&self, reference: &Ref) -> Result<String, String> {
        let name = match reference {
            Ref::File { path, .. } | Ref::Include { path, .. } => path,
            Ref::Credential { name } => name,
        };
        let found = self.0.iter().find(|(known, _)| known == name);
        found
            .map(|(_, text)| text.clone())
            .ok_or_else(|| format!("{name}: No such file or directory"))
    }
}

pub fn ok(text: &str) -> (Manifest, Vec<Note>) {
    ok_with(text, &NoFiles)
}

pub fn ok_with(text: &str, resolver: &dyn Resolver) -> (Manifest, Vec<Note>) {
    match Manifest::parse("ipsec.yml", text, resolver) {
        Ok(good) => good,
        Err(found) => panic!("refused:\n{found}"),
    }
}

pub fn bad(text: &str) -> Diagnostics {
    bad_with(text, &NoFiles)
}

pub fn bad_with(text: &str, resolver: &dyn Resolver) -> Diagnostics {
    match Manifest::parse("ipsec.yml", text, resolver) {
        Ok(_) => panic!("taken:\n{text}"),
        Err(found) => {
            for line in found.render().lines() {
                assert!(line.chars().count() <= 100, "too wide: {line}");
            }
            found
        }
    }
}

/// A manifest that is good but for `lines`.
pub fn with(lines: &str) -> String {
    format!("ipsec_subnets: [10.0.0.0/16]\npsk: {PSK}\n{lines}\n")
}

/// The one finding of a text: line, column, message, remedy.
pub fn only(found: &Diagnostics) -> (u32, u32, String, String) {
    let reports = found.reports();
    assert_eq!(reports.len(), 1, "{found}");
    let one = &reports[0];
    (one.line.unwrap_or(0), one.column.unwrap_or(0), one.message.clone(), one.remedy.clone())
}

/// Asserts that the only finding stands at this place and speaks of this.
#[track_caller]
pub fn says(text: &str, at: (u32, u32), message: &str, remedy: &str) {
    let found = bad(text);
    let (line, column, said, help) = only(&found);
    assert_eq!((line, column), at, "{found}");
    assert!(said.contains(message), "message without {message:?}:\n{found}");
    assert!(help.contains(remedy), "remedy without {remedy:?}:\n{found}");
}

/// The manifest of the PCF guide, Linux and Windows part, with credentials of the right form.
pub const GUIDE: &str = "\
releases:
- name: ipsec
  version: 1.8.12
addons:
- name: ipsec-addon
  jobs:
  - name: ipsec
    release: ipsec
  include:
    stemcell:
    - os: ubuntu-trusty
  properties:
    ipsec:
      optional: false
      ipsec_subnets:
      - 10.0.1.1/20
      no_ipsec_subnets:
      - 10.0.1.10/32 # bosh director
      - 10.0.1.4/32 # ops manager
      instance_certificate: |
        -----BEGIN CERTIFICATE-----
        MIIEMDCCAhigAwIBAgIRAIvrBY2TttULeRhO+V1t0YwDQYJKoZIhvcNAQELBQAwA
        -----END CERTIFICATE-----
      instance_private_key: |
        -----BEGIN RSA PRIVATE KEY-----
        MIIEogIBAAKCAQEAtAkBjzr5x9g0aWgyDEmLd7m9u/ZzpK7UScfANLaN7JiNz3c0
        -----END RSA PRIVATE KEY-----
      ca_certificates:
        - |
          -----BEGIN CERTIFICATE-----
          MIIFCTCCAvGgAwIBAgIBATANBgkqhkiG9w0BAQsFADAUMRIwEAYDVQQDEwl0ZXN0
          -----END CERTIFICATE-----
        - |
          -----BEGIN CERTIFICATE-----
          MIIFCTCCAvGgAwIBAgIBATAAYDVQQDEwl0ZXN0NBgkqhkiG9w0BAQsFADAUMRIwE
          -----END CERTIFICATE-----
      prestart_timeout: 30
      esp_proposals: aes128gcm16!
      ike_proposals: aes128-sha256-modp2048!
      log_level: 1
      ike_version: ike
      optional_warn_interval: 1
      force_udp_encapsulation: false
      instance_certificate_info_period: 30
      instance_certificate_warn_period: 14
      instance_certificate_error_period: 7
      instance_certificate_critical_period: 3
";
