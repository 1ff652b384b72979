//! `warren keys export --wireshark DIR`: the live SAs' keys as Wireshark reads them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::Value;

use crate::client;
use crate::exit::Failure;
use crate::print::println;

/// Wireshark's names of the two tables in a profile's folder.
const TABLES: [(&str, &str); 2] = [("ike", "ikev2_decryption_table"), ("esp", "esp_sa")];

/// Writes both tables, and says so.
pub fn export(control: &Path, dir: &Path, json: bool) -> Result<(), Failure> {
    let keys = save(control, dir)?;
    let count = |key: &str| keys[key].as_array().map_or(0, Vec::len);
    if json {
        println!(
            "{}",
            serde_json::json!({ "dir": dir, "ike_sas": count("ike"), "esp_sas": count("esp"), "left_out": keys["left_out"] })
        );
    } else {
        println!(
            "{}: keys of {} IKE SAs and {} ESP SAs; they decrypt captured traffic, guard them",
            dir.display(),
            count("ike"),
            count("esp")
        );
        if keys["left_out"].as_u64().is_some_and(|count| count > 0) {
            println!(
                "{} SAs have no line: Wireshark does not know their algorithms",
                keys["left_out"]
            );
        }
    }
    Ok(())
}

/// Writes both tables, readable by their owner only.
pub fn save(control: &Path, dir: &Path) -> Result<Value, Failure> {
    let keys = client::get(control, "/v1/keys")?;
    fs::create_dir_all(dir).map_err(|error| Failure::No(format!("{}: {error}", dir.display())))?;
    for (key, file) in TABLES {
        let path = dir.join(file);
        write(&path, &keys[key])
            .map_err(|error| Failure::No(format!("{}: {error}", path.display())))?;
    }
    Ok(keys)
}

fn write(path: &Path, lines: &Value) -> std::io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    for line in lines.as_array().into_iter().flatten().filter_map(Value::as_str) {
        writeln!(file, "{line}")?;
    }
    Ok(())
}
