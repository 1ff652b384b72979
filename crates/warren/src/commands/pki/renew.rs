//! `warren pki renew`: the same certificate again, with a new key and a new end.

use std::path::PathBuf;

use crypto::Provider;
use crypto::chain::{Certificate, TrustStore};
use crypto::native::Native;
use crypto::sign::KeyKind;
use wire::identity::Identity;

use super::fleet::{Fleet, Host};
use super::folder::Folder;
use crate::args::{KeyType, PkiRenew};
use crate::exit::Failure;
use crate::load;
use crate::pki::{self, DAY, Issued, Request};
use crate::print::println;

/// Makes it, checks it, and puts it in the place of the present one.
pub fn run(control: &std::path::Path, args: &PkiRenew, json: bool) -> Result<(), Failure> {
    let folder = Folder::open(&args.dir, &args.name)?;
    if folder.next.is_some() {
        let text = "a rotation of the CA is under way; `warren pki rotate` says what comes next";
        return Err(Failure::No(text.into()));
    }
    let asked = !args.status.is_empty() || crate::client::is_up(control);
    let fleet = if asked { Fleet::gather(control, &args.status)? } else { Fleet::default() };
    let (leaf, note) = make(&folder, args.days, args.key)?;
    let hosts = fleet.hosts().filter(|host| host.trusts.is_some()).collect::<Vec<_>>();
    refuse(&rejected(&folder, &hosts), args.force)?;
    let paths = folder.replace_leaf(&leaf)?;
    let checked = hosts.len();
    if json {
        println!(
            "{}",
            serde_json::json!({ "certificate": paths[0], "key": paths[1], "accepted_by": checked, "note": note })
        );
        return Ok(());
    }
    print_made(&paths, note.as_deref());
    match asked {
        true => println!("{checked} hosts are known to accept it"),
        false => println!("no daemon and no --status was asked whether hosts accept it"),
    }
    println!("bring both to the hosts, one after the other, and there: warren reload --reauth");
    Ok(())
}

/// Which files there are now, and what is to be known of them.
pub fn print_made(paths: &[PathBuf], note: Option<&str>) {
    paths.iter().for_each(|path| println!("{}", path.display()));
    if let Some(note) = note {
        println!("{note}");
    }
}

/// Hosts that do not accept what the folder's CA issues.
pub fn rejected(folder: &Folder, hosts: &[&Host]) -> Vec<String> {
    let ca = load::key_id(folder.issuer().1);
    let accepts = |host: &Host| host.trusts.as_ref().is_some_and(|trusts| trusts.contains(&ca));
    hosts.iter().filter(|host| !accepts(host)).map(|host| host.label()).collect()
}

/// Not where hosts would refuse it.
pub fn refuse(rejected: &[String], force: bool) -> Result<(), Failure> {
    if rejected.is_empty() || force {
        return Ok(());
    }
    const SHOWN: usize = 10;
    let more = rejected.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = rejected[..rejected.len().min(SHOWN)].join(", ");
    Err(Failure::No(format!(
        "a new certificate would be refused by {names}{more}: they do not accept its CA, or nobody knows; \
         bring ca.pem there first, and run `warren reload --reauth` there"
    )))
}

/// A certificate with the names of the present one under the folder's CA; and what is worth a word.
pub fn make(
    folder: &Folder,
    days: Option<u32>,
    key: Option<KeyType>,
) -> Result<(Issued, Option<String>), Failure> {
    let (old, unix_now) = (&folder.leaf, linux::clock::unix_now());
    let (file, issuer) = folder.issuer();
    let before = days_of(old);
    let wanted = days.map_or(before, pki::days);
    let left = issuer.not_after.saturating_sub(unix_now);
    if left == 0 {
        let (subject, end) = (&issuer.subject_text, crypto::chain::rfc3339(issuer.not_after));
        return Err(Failure::No(format!(
            "the CA `{subject}` expired at {end}: nothing that it issues is accepted; see docs/certificates.md"
        )));
    }
    let note = (left < wanted)
        .then(|| format!("it ends with its CA, in {} days: rotate the CA before that", left / DAY));
    let sans = names(old)?;
    let request = Request {
        name: &common_name(old)?,
        key: key.map_or_else(|| kind(folder), Ok)?,
        seconds: wanted.min(left),
        sans: &sans,
        unix_now,
    };
    let ca = pki::load(&folder.dir, file).map_err(Failure::no)?;
    let leaf = pki::make_leaf(&ca, &request).map_err(Failure::no)?;
    check(folder, &leaf, unix_now)?;
    Ok((leaf, note))
}

/// Whole days, as they were asked for; at least one.
fn days_of(old: &Certificate) -> u64 {
    let days = old.not_after.saturating_sub(old.not_before).div_ceil(DAY).max(1);
    pki::days(u32::try_from(days).unwrap_or(u32::MAX))
}

/// Hosts with the folder's `ca.pem` accept it.
fn check(folder: &Folder, leaf: &Issued, unix_now: u64) -> Result<(), Failure> {
    let made = Certificate::from_pem_all(&leaf.certificate).map_err(Failure::no)?;
    let trust = TrustStore::from_ca_items(std::slice::from_ref(&folder.cas));
    trust.verify(&made[0], &[], unix_now).map_err(|error| {
        Failure::No(format!(
            "ca.pem does not accept what was made: {error}; do ca.key and ca.pem belong together?"
        ))
    })
}

/// A subject of more than a common name was made elsewhere.
fn common_name(old: &Certificate) -> Result<String, Failure> {
    let name = old.subject_text.strip_prefix("CN=");
    let plain = name.filter(|name| !name.contains([',', '+', '\\', '=', '"']));
    plain.map(str::to_owned).ok_or_else(|| elsewhere(&old.subject_text))
}

fn names(old: &Certificate) -> Result<Vec<String>, Failure> {
    let text = |name: &Identity| match name {
        Identity::Fqdn(name) | Identity::Email(name) => Ok(name.clone()),
        Identity::Ipv4(address) => Ok(address.to_string()),
        Identity::Ipv6(address) => Ok(address.to_string()),
        _ => Err(elsewhere(&old.subject_text)),
    };
    old.alt_names.iter().map(text).collect()
}

fn elsewhere(subject: &str) -> Failure {
    Failure::No(format!(
        "`{subject}` has names that this command cannot repeat; have it issued anew where it was made"
    ))
}

fn kind(folder: &Folder) -> Result<KeyType, Failure> {
    let present = pki::load(&folder.dir, &folder.name).map_err(Failure::no)?;
    let key = crypto::sign::load_pem(&present.key).map_err(Failure::no)?;
    let key = Native.signing_key(key.expose()).map_err(Failure::no)?;
    match key.kind() {
        KeyKind::Rsa(bits) if bits > 3072 => Ok(KeyType::Rsa4096),
        KeyKind::Rsa(_) => Ok(KeyType::Rsa3072),
        KeyKind::Ec(256) => Ok(KeyType::P256),
        KeyKind::Ec(384) => Ok(KeyType::P384),
        KeyKind::Ed25519 => Ok(KeyType::Ed25519),
        other => Err(Failure::No(format!(
            "keys of the kind {other:?} are not made here; `--key` chooses another kind"
        ))),
    }
}
