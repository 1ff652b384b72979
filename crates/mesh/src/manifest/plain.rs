//! A manifest's properties as plain values: for who writes another manifest that differs in some.

use std::path::Path;

use serde_json::{Map, Value};

use super::read::Reader;
use super::yaml::{self, Node};
use super::{Diagnostics, Options, Resolver, shape};

/// The properties of a manifest in any of its shapes, what it includes among them, as JSON, which is YAML as well. Relative
/// `file:` references become those from the folder of the file in which they stand. Secrets are among it.
///
/// # Errors
/// If there is nothing to be had from the file. That there are findings about single properties is none.
pub fn properties(
    name: &str,
    text: &str,
    resolver: &dyn Resolver,
) -> Result<Map<String, Value>, Diagnostics> {
    let mut reader = Reader::new(resolver, Options { ignore_credentials: true });
    let Some(sections) = shape::sections(&mut reader, name, text) else {
        return Err(reader.found);
    };
    let file = |id: u32| reader.found.sources().name(id).to_owned();
    let entries = sections.main.entries.iter().filter(|entry| entry.key != "include");
    Ok(entries.map(|entry| (entry.key.clone(), plain(&entry.value, &file))).collect())
}

fn plain(node: &Node, file: &impl Fn(u32) -> String) -> Value {
    match &node.value {
        _ if node.is_null() => Value::Null,
        yaml::Value::List(items) => items.iter().map(|item| plain(item, file)).collect(),
        yaml::Value::Map(entries) => {
            let entries = entries.iter().map(|e| (e.key.clone(), plain(&e.value, file)));
            Value::Object(entries.collect())
        }
        yaml::Value::Scalar(scalar) => {
            let text: &str = &scalar.text;
            let number = || text.parse::<i64>().ok().filter(|number| number.to_string() == text);
            match (scalar.plain, text) {
                (true, "true") => Value::Bool(true),
                (true, "false") => Value::Bool(false),
                (plain, _) => match number().filter(|_| plain) {
                    Some(number) => number.into(),
                    None => Value::String(absolute(text, &file(node.span.file))),
                },
            }
        }
    }
}

fn absolute(text: &str, name: &str) -> String {
    let folder = Path::new(name).parent();
    match (text.strip_prefix("file:"), folder) {
        (Some(path), Some(folder)) => format!("file:{}", folder.join(path).display()),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Manifest, NoFiles};

    #[test]
    fn all_shapes_give_the_same_properties() {
        let flat = "ipsec_subnets: [10.0.0.0/16]\noptional: true\nstop_timeout: 30\ncluster: 'true'\nca_certificates:\n- file:ca.pem\n- file:/pki/old.pem\npolicies:\n- {action: pass, proto: tcp, port: 22}\n";
        let indented = flat.lines().map(|line| format!("  {line}\n")).collect::<String>();
        let nested = format!("ipsec:\n{indented}");
        let deeper = indented.lines().map(|line| format!("      {line}\n")).collect::<String>();
        let bosh = format!(
            "addons:\n- name: x\n  jobs:\n  - name: ipsec\n    properties:\n      ipsec:\n{deeper}"
        );
        for text in [flat, &nested, &bosh] {
            let Ok(found) = properties("/etc/warren/m.yml", text, &NoFiles) else {
                panic!("refused: {text}")
            };
            assert_eq!(found["optional"], true);
            assert_eq!(found["stop_timeout"], 30);
            assert_eq!(found["cluster"], "true", "quoted: a text");
            assert_eq!(found["ca_certificates"][0], "file:/etc/warren/ca.pem");
            assert_eq!(found["ca_certificates"][1], "file:/pki/old.pem");
            assert_eq!(found["policies"][0]["port"], 22);
        }
    }

    #[test]
    fn what_is_written_again_says_the_same() {
        let text = "psk: '12345678901234567890'\nipsec_subnets: ['10.0.0.0/16']\nike_lifetime: 4h\ndpddelay: 30\n";
        let Ok(found) = properties("m.yml", text, &NoFiles) else { panic!("refused") };
        let again = Value::Object(found).to_string();
        let read = |text: &str| match Manifest::parse("m.yml", text, &NoFiles) {
            Ok((manifest, _)) => manifest,
            Err(found) => panic!("{found}"),
        };
        let (first, second) = (read(text), read(&again));
        assert_eq!(first.ipsec_subnets, second.ipsec_subnets);
        assert_eq!(first.lifetimes, second.lifetimes);
        assert!(properties("m.yml", "- a list", &NoFiles).is_err());
    }
}
