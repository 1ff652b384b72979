//! Manifests as scenarios write them: a base, and what is laid over it.

use std::path::Path;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::load;

/// A manifest's properties. JSON is YAML, too.
#[derive(Clone, Debug)]
pub struct Recipe(Map<String, Value>);

impl Recipe {
    /// The defaults for one subnet, with the lab's credentials in this folder.
    pub fn own(credentials: &Path, subnet: IpNet) -> Self {
        Self(Map::new()).with("ipsec_subnets", json!([subnet])).certified(
            credentials,
            "instance",
            &["ca"],
        )
    }

    /// What the operator's file says. What a scenario lays over it takes its place.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn given(file: &Path) -> Result<Self, String> {
        load::properties(file).map(Self)
    }

    /// With this leaf and these CAs, files of that folder without their endings, in place of whatever it had.
    pub fn certified(self, folder: &Path, leaf: &str, cas: &[&str]) -> Self {
        let file = |name: &str, end: &str| {
            json!(format!("file:{}", folder.join(format!("{name}.{end}")).display()))
        };
        self.without("psk")
            .without("crls")
            .with("instance_certificate", file(leaf, "pem"))
            .with("instance_private_key", file(leaf, "key"))
            .with("ca_certificates", cas.iter().map(|ca| file(ca, "pem")).collect())
    }

    /// With this property, in place of what the recipe said of it.
    pub fn with(mut self, property: &str, value: Value) -> Self {
        self.0.insert(property.to_owned(), value);
        self
    }

    /// With this at the end of a list.
    pub fn also(mut self, property: &str, value: Value) -> Self {
        let list = self.0.entry(property).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(value);
        }
        self
    }

    /// Without this property.
    pub fn without(mut self, property: &str) -> Self {
        self.0.remove(property);
        self
    }

    /// The file's text.
    pub fn text(&self) -> String {
        format!("{:#}\n", Value::Object(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_over_replaces_and_goes() {
        let net = "10.99.0.0/24".parse().unwrap();
        let recipe = Recipe::own(Path::new("/lab"), net).with("optional", json!(true));
        let text = recipe.text();
        for part in ["10.99.0.0/24", "file:/lab/ca.pem", "\"optional\": true"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let enforced = recipe.clone().with("optional", json!(false)).text();
        assert!(enforced.contains("\"optional\": false") && !enforced.contains("true"));
        let more = recipe.clone().also("ipsec_subnets", json!("10.100.0.0/16")).text();
        assert!(more.contains("10.99.0.0/24") && more.contains("10.100.0.0/16"));
        assert!(!recipe.without("optional").text().contains("optional"));
    }

    #[test]
    fn the_operators_word_is_replaced_where_a_scenario_has_its_own() {
        let dir = std::env::temp_dir().join(format!("warren-recipe-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("own.yml");
        std::fs::write(&file, "ipsec:\n  optional: false\n  ipsec_subnets: [10.0.0.0/16]\n")
            .unwrap();
        let recipe = Recipe::given(&file).unwrap().with("optional", json!(true));
        std::fs::remove_dir_all(&dir).unwrap();
        let text = recipe.text();
        assert!(text.contains("\"optional\": true") && text.contains("10.0.0.0/16"), "{text}");
        assert!(!text.contains("false"), "{text}");
        assert!(Recipe::given(&file).is_err());
    }

    #[test]
    fn the_text_is_a_manifest() {
        let net = "10.99.0.0/24".parse().unwrap();
        let recipe = Recipe::own(Path::new("/lab"), net)
            .without("instance_certificate")
            .without("instance_private_key")
            .without("ca_certificates")
            .with("psk", json!("correct horse battery staple"))
            .with("policies", json!([{"action": "pass", "proto": "tcp", "remote_port": 22}]));
        let read =
            mesh::manifest::Manifest::parse("lab.yml", &recipe.text(), &mesh::manifest::NoFiles);
        assert!(read.is_ok());
    }
}
