//! `warren import FILE…`: the manifest to standard output, what has no counterpart to standard error.

use std::fs;
use std::path::{Path, PathBuf};

use mesh::import::{Format, Given, Source, import};
use serde_json::json;

use crate::args::{Import, ImportFormat};
use crate::exit::Failure;
use crate::load::read;
use crate::print::{complain, println};

/// Ends 1 where a file cannot be read, or nothing in it is to be protected.
pub fn run(args: &Import, json: bool) -> Result<(), Failure> {
    let format = args.format.map(format);
    let sources: Result<Vec<Source>, Failure> =
        args.files.iter().map(|path| source(path, format)).collect();
    let given = Given {
        certificate: args.certificate.clone(),
        key: args.key.clone(),
        ca: args.ca.clone(),
        psk: args.psk.clone(),
    };
    let imported = import(sources?, &included, given).map_err(Failure::no)?;
    if json {
        println!("{}", json!({ "manifest": imported.manifest, "notes": imported.notes }));
        return Ok(());
    }
    println!("{}", imported.manifest.trim_end());
    for note in &imported.notes {
        complain(format_args!("warren: {note}"));
    }
    Ok(())
}

fn source(path: &Path, format: Option<Format>) -> Result<Source, Failure> {
    let name = path.display().to_string();
    let text = read(path).map_err(|error| Failure::No(format!("{name}: {error}")))?;
    Ok(Source { name, text, format })
}

/// A file beside the one that names it; `*` in its last part is every file there that fits, in the order of names.
fn included(path: &str, from: &str) -> Result<Vec<Source>, String> {
    let whole = Path::new(from).parent().unwrap_or(Path::new("")).join(path);
    let paths = match whole.file_name().and_then(|name| name.to_str()) {
        Some(pattern) if pattern.contains('*') => matching(&whole, pattern)?,
        _ => vec![whole],
    };
    paths
        .iter()
        .map(|path| {
            source(path, None).map_err(|failure| match failure {
                Failure::No(error) => error,
                _ => "it cannot be read".to_owned(),
            })
        })
        .collect()
}

fn matching(whole: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let folder = whole.parent().unwrap_or(Path::new("."));
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| crate::load::matches(pattern, name))
        })
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    Ok(paths)
}

fn format(format: ImportFormat) -> Format {
    match format {
        ImportFormat::Openbsd => Format::OpenBsd,
        ImportFormat::IpsecTools => Format::Setkey,
        ImportFormat::Racoon => Format::Racoon,
        ImportFormat::RacoonPsk => Format::RacoonKeys,
        ImportFormat::Swanctl => Format::Swanctl,
    }
}
