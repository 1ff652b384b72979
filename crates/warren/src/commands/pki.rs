//! `warren pki init|issue|inspect`; renewal and rotation have files of their own.

mod fleet;
mod folder;
mod phase;
mod renew;
mod rotate;

use std::path::{Path, PathBuf};

use crypto::chain::Certificate;
use mesh::manifest::ExpiryPeriods;
use mesh::status::CertificateLevel;
use serde::Serialize;

use super::layout::{hanging, wrapped};
use crate::args::{PkiCommand, PkiInit, PkiIssue};
use crate::exit::Failure;
use crate::pki::{self, Request};
use crate::print::println;

/// Runs it.
pub fn run(control: &Path, command: &PkiCommand, json: bool) -> Result<(), Failure> {
    match command {
        PkiCommand::Init(args) => init(args, json),
        PkiCommand::Issue(args) => issue(args, json),
        PkiCommand::Inspect { files, as_of } => inspect(files, *as_of, json),
        PkiCommand::Renew(args) => renew::run(control, args, json),
        PkiCommand::Rotate(args) => rotate::run(control, args, json),
    }
}

fn init(args: &PkiInit, json: bool) -> Result<(), Failure> {
    let request = Request {
        name: &args.name,
        key: args.key,
        seconds: pki::days(args.days),
        sans: &[],
        unix_now: linux::clock::unix_now(),
    };
    let ca = pki::make_ca(&request).map_err(Failure::no)?;
    print_written(&pki::store(&args.dir, "ca", &ca, args.force).map_err(Failure::no)?, json);
    Ok(())
}

fn issue(args: &PkiIssue, json: bool) -> Result<(), Failure> {
    if args.name.contains('/') || args.name.is_empty() || args.name == "ca" {
        return Err(Failure::Usage(format!("`{}` cannot name a certificate's files", args.name)));
    }
    let ca = pki::load(&args.dir, "ca")
        .map_err(|error| Failure::No(format!("{error}; `warren pki init` makes a CA")))?;
    if Certificate::from_pem_all(&ca.certificate)
        .is_ok_and(|found| found.iter().any(|ca| ca.subject_text == format!("CN={}", args.name)))
    {
        return Err(Failure::No(format!(
            "`{}` is the CA's own name, and a certificate with the same subject is refused; take another name",
            args.name
        )));
    }
    let request = Request {
        name: &args.name,
        key: args.key,
        seconds: pki::days(args.days),
        sans: &args.sans,
        unix_now: linux::clock::unix_now(),
    };
    let leaf = pki::make_leaf(&ca, &request).map_err(Failure::no)?;
    print_written(
        &pki::store(&args.dir, &args.name, &leaf, args.force).map_err(Failure::no)?,
        json,
    );
    Ok(())
}

fn print_written(paths: &[PathBuf; 2], json: bool) {
    if json {
        println!("{}", serde_json::json!({ "certificate": paths[0], "key": paths[1] }));
    } else {
        println!("{}\n{}", paths[0].display(), paths[1].display());
    }
}

/// One certificate, as shown.
#[derive(Serialize)]
struct Row {
    file: PathBuf,
    role: &'static str,
    subject: String,
    serial: String,
    key_id: String,
    not_before: String,
    not_after: String,
    days_left: i64,
    level: CertificateLevel,
}

/// Levels are by the periods of the manifest, where a file is one, else by the usual ones.
fn inspect(files: &[PathBuf], as_of: Option<u64>, json: bool) -> Result<(), Failure> {
    let now = as_of.unwrap_or_else(linux::clock::unix_now);
    let mut rows = Vec::new();
    for file in files {
        let text = crate::load::read(file)
            .map_err(|error| Failure::No(format!("{}: {error}", file.display())))?;
        let found = Certificate::from_pem_all(&unindent(&text))
            .map_err(|error| Failure::No(format!("{}: {error}", file.display())))?;
        if found.is_empty() {
            return Err(Failure::No(format!("{}: no certificate in it", file.display())));
        }
        let manifest = crate::load::rules_only(file).ok();
        let periods = manifest.map_or_else(ExpiryPeriods::default, |manifest| manifest.expiry);
        rows.extend(found.iter().map(|certificate| row(file, certificate, &periods, now)));
    }
    if json {
        println!("{}", serde_json::json!({ "certificates": rows }));
    } else {
        print_rows(&rows);
    }
    Ok(())
}

/// In a manifest PEM blocks are indented: take that off, and whatever stands outside of them.
fn unindent(text: &str) -> String {
    let mut inside = false;
    let mut out = String::new();
    for line in text.lines().map(str::trim) {
        inside |= line == "-----BEGIN CERTIFICATE-----";
        if inside {
            out.push_str(line);
            out.push('\n');
        }
        inside &= line != "-----END CERTIFICATE-----";
    }
    out
}

fn row(file: &Path, certificate: &Certificate, periods: &ExpiryPeriods, now: u64) -> Row {
    let days_left = (i128::from(certificate.not_after) - i128::from(now)).div_euclid(86_400);
    Row {
        file: file.to_owned(),
        role: if certificate.is_ca { "ca" } else { "leaf" },
        subject: certificate.subject_text.clone(),
        serial: certificate.serial.iter().map(|byte| format!("{byte:02x}")).collect(),
        key_id: crate::load::key_id(certificate),
        not_before: crypto::chain::rfc3339(certificate.not_before),
        not_after: crypto::chain::rfc3339(certificate.not_after),
        days_left: i64::try_from(days_left).unwrap_or(i64::MAX),
        level: CertificateLevel::at(periods, certificate.not_after, now),
    }
}

fn print_rows(rows: &[Row]) {
    for row in rows {
        hanging(&format!("{:<4}  ", row.role), &row.subject);
        wrapped(
            6,
            &format!(
                "until {}, {} days left ({}), from {}",
                row.not_after, row.days_left, row.level, row.not_before
            ),
        );
        wrapped(6, &format!("serial {}, in {}", row.serial, row.file.display()));
    }
}
