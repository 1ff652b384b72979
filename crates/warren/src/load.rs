//! A manifest from its file: read, what it refers to fetched, its certificates checked.

use std::cell::RefCell;
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crypto::chain::Certificate;
use crypto::credentials::{CredentialProblem, Credentials, LoadError};
use crypto::native::Native;
use crypto::{Provider, Secret};
use mesh::manifest::{self, Diagnostics, Manifest, Options, Ref, Resolver};
use mesh::plan::{Plan, PlanError};
use mesh::recording::Bundle;
use mesh::{CertificateFact, CertificateRole, Loaded};
use wire::registry::HashAlg;

/// Larger files are no manifests and no keys.
const MAX_FILE: u64 = 16 << 20;

/// A manifest that was accepted.
pub struct Accepted {
    /// Where it was read.
    pub path: PathBuf,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// What it says.
    pub manifest: Manifest,
    /// What is worth a word though it is no error, as shown.
    pub notes: Vec<String>,
    /// How this host proves itself.
    pub auth: ike::Auth,
    /// What it was read from, for a recording.
    pub bundle: Bundle,
}

/// A manifest that was refused: every finding, as shown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Rejected(pub String);

/// Whether a certificate may be past its end. A daemon without one that is valid still does what it can: policies hold,
/// tunnels that stand live on, and new ones are refused with the reason.
#[derive(Clone, Copy)]
pub enum Ended<'a> {
    /// No: somebody asks whether the manifest is good.
    Refused,
    /// Yes: a daemon starts, and its peers may still have tunnels with it.
    Accepted,
    /// Only this leaf, DER: the one that is in force.
    InForce(&'a [u8]),
}

impl Ended<'_> {
    fn excuses(self, problem: &CredentialProblem, leaf: &Certificate) -> bool {
        matches!(problem, CredentialProblem::Expired { .. })
            && match self {
                Self::Refused => false,
                Self::Accepted => true,
                Self::InForce(der) => leaf.der == der,
            }
    }
}

/// Reads and checks a manifest. Nothing is kept of one that is refused.
///
/// `rehearsal` is a folder with credentials (`instance.pem`, `instance.key`, `ca.pem`) that stand in
/// for the manifest's own, which are not looked at then.
pub fn load(
    path: &Path,
    provider: &dyn Provider,
    unix_now: u64,
    rehearsal: Option<&Path>,
) -> Result<Accepted, Rejected> {
    load_with(path, provider, unix_now, rehearsal, Ended::Refused)
}

/// The same for a daemon.
pub fn load_with(
    path: &Path,
    provider: &dyn Provider,
    unix_now: u64,
    rehearsal: Option<&Path>,
    ended: Ended<'_>,
) -> Result<Accepted, Rejected> {
    let text = read(path).map_err(|error| Rejected(format!("{}: {error}", path.display())))?;
    let noted = Noted::default();
    let accepted = load_text(path, &text, &noted, provider, unix_now, rehearsal, ended)?;
    let Noted { files, expanded } = noted;
    let (files, expanded) = (files.into_inner(), expanded.into_inner());
    let text = Secret::from(text.as_bytes());
    let bundle = Bundle { text, files, expanded, ..accepted.bundle };
    Ok(Accepted { bundle, ..accepted })
}

/// The same from a recording, which has all that a manifest was read from. It was accepted then, certificates that had
/// ended included.
pub fn load_bundle(
    bundle: &Bundle,
    provider: &dyn Provider,
    unix_now: u64,
) -> Result<Accepted, Rejected> {
    let text = std::str::from_utf8(bundle.text.expose())
        .map_err(|_| Rejected(format!("{}: this is no text", bundle.path)))?;
    let path = Path::new(&bundle.path);
    load_text(path, text, &Recorded(bundle), provider, unix_now, None, Ended::Accepted)
}

fn load_text(
    path: &Path,
    text: &str,
    resolver: &dyn Resolver,
    provider: &dyn Provider,
    unix_now: u64,
    rehearsal: Option<&Path>,
    ended: Ended<'_>,
) -> Result<Accepted, Rejected> {
    let name = path.display().to_string();
    let options = Options { ignore_credentials: rehearsal.is_some() };
    let (manifest, notes) =
        Manifest::parse_with(&name, text, resolver, options).map_err(|found| refused(&found))?;
    let mut found = manifest.diagnostics();
    for missing in manifest.unavailable() {
        found.push(missing.span, missing.message, missing.remedy);
    }
    let credentials = match rehearsal {
        None => credentials(&manifest, provider, unix_now, ended, &mut found),
        Some(folder) => Some(stand_ins(folder, provider)?),
    };
    if found.has_errors() {
        return Err(refused(&found));
    }
    let shown = notes
        .iter()
        .map(|note| manifest.sources().render(note))
        .chain(found.iter().map(|note| manifest.sources().render(note)));
    let notes = shown.collect();
    let auth = match (credentials, &*manifest.credentials) {
        (Some(credentials), _) => ike::Auth::Certificate(Arc::new(credentials)),
        (None, manifest::Credentials::Psk(psk)) => {
            ike::Auth::Psk(Secret::from(psk.expose()).into())
        }
        (None, _) => return Err(Rejected(format!("{name}: neither certificates nor a PSK"))),
    };
    Ok(Accepted {
        path: path.to_owned(),
        sha256: sha256(provider, text.as_bytes()),
        notes,
        auth,
        manifest,
        bundle: Bundle { path: name, ..Bundle::default() },
    })
}

/// Reads a manifest for what it says of packets alone: credentials are not looked at, they may not be there yet.
pub fn rules_only(path: &Path) -> Result<Manifest, Rejected> {
    let text = read(path).map_err(|error| Rejected(format!("{}: {error}", path.display())))?;
    let options = Options { ignore_credentials: true };
    let read = Manifest::parse_with(&path.display().to_string(), &text, &Files, options);
    read.map(|(manifest, _)| manifest).map_err(|found| refused(&found))
}

/// The properties of a manifest as plain values, see [`manifest::properties`].
pub fn properties(path: &Path) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    let text = read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    manifest::properties(&path.display().to_string(), &text, &Files)
        .map_err(|found| refused(&found).to_string())
}

impl Accepted {
    /// For the mesh of the host with this address; `own` are all addresses of the host.
    pub fn for_host(&self, me: IpAddr, own: &[IpAddr]) -> Result<Loaded, Rejected> {
        let plan =
            Plan::for_host_with(&self.manifest, me, own).map_err(|error| self.misplaced(&error))?;
        Ok(Loaded {
            path: self.path.display().to_string(),
            sha256: self.sha256.clone(),
            plan,
            auth: self.auth.clone(),
            prefer_encap: false,
            certificates: self.certificates(),
        })
    }

    /// The host's address in the mesh: the one that is asked for, or the one of its own that is protected.
    pub fn choose_address(
        &self,
        wanted: Option<IpAddr>,
        own: &[IpAddr],
    ) -> Result<IpAddr, Rejected> {
        let Some(wanted) = wanted else {
            return Plan::choose_address(&self.manifest, own)
                .map_err(|error| self.misplaced(&error));
        };
        match self.manifest.check_address(wanted) {
            Ok(_) => Ok(wanted),
            Err(diagnostic) => Err(Rejected(self.manifest.sources().render(&diagnostic))),
        }
    }

    fn misplaced(&self, error: &PlanError) -> Rejected {
        Rejected(self.manifest.sources().render(&error.diagnostic(&self.manifest)))
    }

    /// This host's own certificate, DER; empty if there is none.
    pub fn leaf(&self) -> &[u8] {
        match &self.auth {
            ike::Auth::Certificate(credentials) => &credentials.leaf.der,
            ike::Auth::Psk(_) | ike::Auth::Null => &[],
        }
    }

    /// The certificates in use, for `status`.
    pub fn certificates(&self) -> Vec<CertificateFact> {
        let ike::Auth::Certificate(credentials) = &self.auth else { return Vec::new() };
        let leaf = std::iter::once((CertificateRole::Leaf, &credentials.leaf));
        let cas = credentials
            .chain
            .iter()
            .chain(credentials.trust().all())
            .map(|ca| (CertificateRole::Ca, ca));
        let issuer = credentials.root(&Native, linux::clock::unix_now());
        leaf.chain(cas)
            .map(|(role, certificate)| CertificateFact {
                subject: certificate.subject_text.clone(),
                serial: certificate.serial_text(),
                not_after: certificate.not_after,
                key_id: key_id(certificate),
                ca: issuer.filter(|_| role == CertificateRole::Leaf).map(key_id),
                role,
            })
            .collect()
    }
}

/// What peers call a CA by, hexadecimal (RFC 7296 3.7).
pub fn key_id(certificate: &Certificate) -> String {
    hex(&certificate.key_id_sha1(&Native).unwrap_or_default())
}

fn refused(found: &Diagnostics) -> Rejected {
    Rejected(format!("the manifest is refused\n\n{}", found.render().trim_end()))
}

fn credentials(
    manifest: &Manifest,
    provider: &dyn Provider,
    unix_now: u64,
    ended: Ended<'_>,
    found: &mut Diagnostics,
) -> Option<Credentials> {
    let manifest::Credentials::Certificates(given) = &*manifest.credentials else { return None };
    let cas: Vec<&str> = given.ca_certificates.iter().map(|item| item.pem.as_str()).collect();
    let key = std::str::from_utf8(given.instance_private_key.expose()).unwrap_or_default();
    let crls: Vec<&str> = given.crls.iter().map(|item| item.pem.as_str()).collect();
    let loaded = Credentials::load(provider, &given.instance_certificate, key, &cas)
        .and_then(|credentials| credentials.with_crls(&crls));
    let credentials = match loaded {
        Ok(credentials) => credentials,
        Err(error) => {
            let span = match &error {
                LoadError::Certificate(_) => manifest.span("instance_certificate"),
                LoadError::Key(_) => manifest.span("instance_private_key"),
                LoadError::Ca { number, .. } => {
                    given.ca_certificates.get(number - 1).map(|item| item.span)
                }
                LoadError::Crl { number, .. } => given.crls.get(number - 1).map(|item| item.span),
            };
            found.push(
                span,
                error.to_string(),
                "`warren pki inspect FILE` shows what a PEM file holds",
            );
            return None;
        }
    };
    for problem in credentials.check(provider, unix_now) {
        let text = problem.to_string();
        let (message, remedy) =
            text.split_once("; ").unwrap_or((&text, "see `warren pki inspect`"));
        if problem.is_fatal() && !ended.excuses(&problem, &credentials.leaf) {
            found.push(manifest.span("instance_certificate"), message, remedy);
        } else {
            found.note(manifest.span("ca_certificates"), message, remedy);
        }
    }
    Some(credentials)
}

fn stand_ins(folder: &Path, provider: &dyn Provider) -> Result<Credentials, Rejected> {
    let text = |name: &str| {
        let path = folder.join(name);
        read(&path).map_err(|error| Rejected(format!("{}: {error}", path.display())))
    };
    let (certificate, key, ca) =
        (text("instance.pem")?, zeroize::Zeroizing::new(text("instance.key")?), text("ca.pem")?);
    Credentials::load(provider, &certificate, &key, &[&ca])
        .map_err(|error| Rejected(format!("{}: {error}", folder.display())))
}

/// The SHA-256 of a manifest's file, as [`Accepted::sha256`] has it.
pub fn digest(path: &Path) -> std::io::Result<String> {
    Ok(sha256(&Native, read(path)?.as_bytes()))
}

fn sha256(provider: &dyn Provider, bytes: &[u8]) -> String {
    hex(&provider.hash(HashAlg::SHA2_256, &[bytes]).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fetches what manifests refer to: files beside them, and credentials of the service manager.
struct Files;

impl Resolver for Files {
    fn read(&self, reference: &Ref) -> Result<String, String> {
        let path = match reference {
            Ref::File { path, from } | Ref::Include { path, from } => beside(path, from),
            Ref::Credential { name } => credential(name)?,
        };
        read(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// `*` in the last part of a path means every file there that it matches, in the order of their names.
    fn expand(&self, path: &str, from: &str) -> Result<Vec<String>, String> {
        let whole = beside(path, from);
        let Some(pattern) =
            whole.file_name().and_then(|name| name.to_str()).filter(|name| name.contains('*'))
        else {
            return Ok(vec![path.to_owned()]);
        };
        let folder = whole.parent().unwrap_or(Path::new("."));
        let entries =
            fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut found: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| matches(pattern, name)))
            .map(|entry| entry.path().display().to_string())
            .collect();
        found.sort();
        Ok(found)
    }
}

/// The same, and notes what was fetched.
#[derive(Default)]
struct Noted {
    files: RefCell<Vec<(String, Secret)>>,
    expanded: RefCell<Vec<(String, Vec<String>)>>,
}

impl Resolver for Noted {
    fn read(&self, reference: &Ref) -> Result<String, String> {
        let text = Files.read(reference)?;
        self.files.borrow_mut().push((named(reference), Secret::from(text.as_bytes())));
        Ok(text)
    }

    fn expand(&self, path: &str, from: &str) -> Result<Vec<String>, String> {
        let paths = Files.expand(path, from)?;
        self.expanded.borrow_mut().push((pattern(path, from), paths.clone()));
        Ok(paths)
    }
}

/// Gives what was noted.
struct Recorded<'a>(&'a Bundle);

impl Resolver for Recorded<'_> {
    fn read(&self, reference: &Ref) -> Result<String, String> {
        let name = named(reference);
        let file = self.0.files.iter().find(|(known, _)| *known == name);
        let (_, content) = file.ok_or_else(|| format!("{name} is not in the recording"))?;
        String::from_utf8(content.expose().to_vec()).map_err(|_| format!("{name} is no text"))
    }

    fn expand(&self, path: &str, from: &str) -> Result<Vec<String>, String> {
        let name = pattern(path, from);
        let found = self.0.expanded.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, paths)| paths.clone())
            .ok_or_else(|| format!("{path} is not in the recording"))
    }
}

fn named(reference: &Ref) -> String {
    match reference {
        Ref::File { path, from } | Ref::Include { path, from } => pattern(path, from),
        Ref::Credential { name } => format!("credential:{name}"),
    }
}

fn pattern(path: &str, from: &str) -> String {
    format!("{path} of {from}")
}

fn beside(path: &str, from: &str) -> PathBuf {
    Path::new(from).parent().unwrap_or(Path::new("")).join(path)
}

/// systemd's LoadCredential= puts them into a folder that it names (systemd.exec(5)).
fn credential(name: &str) -> Result<PathBuf, String> {
    if name.is_empty() || name.contains('/') || name == ".." {
        return Err(format!("`{name}` is not the name of a credential"));
    }
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
        .ok_or("CREDENTIALS_DIRECTORY is not set: credentials come from a systemd unit with LoadCredential=")?;
    Ok(Path::new(&folder).join(name))
}

/// A whole text file, if it is not too large for a manifest, a certificate or a key.
pub fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    // Neither the size of a file nor its kind says how much there is to read.
    fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        let limit = MAX_FILE >> 20;
        return Err(std::io::Error::other(format!(
            "larger than {limit} MiB: this is no manifest and no key"
        )));
    }
    Ok(text)
}

/// Whether `name` fits `pattern`, in which `*` is any number of characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    let mut rest = rest;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        assert!(
            matches("*.yml", "a.yml")
                && matches("a*c*e", "abcde")
                && matches("same", "same")
                && matches("*", "")
        );
        assert!(
            !matches("*.yml", "a.yaml") && !matches("ab*ba", "aba") && !matches("same", "samey")
        );
    }
}
