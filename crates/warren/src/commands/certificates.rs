//! What `warren status` shows of peers' certificates.

use std::collections::BTreeMap;

use serde_json::Value;

use super::layout::{hanging, wrapped};
use super::status::seconds;
use crate::print::println;

/// Where peers do not all show and accept the same CAs, as in a rotation: how many show and accept which.
pub fn print_groups(peers: &[Value]) {
    for line in groups(peers) {
        hanging("  ", &line);
    }
}

fn groups(peers: &[Value]) -> Vec<String> {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for shown in peers.iter().map(|peer| &peer["certificate"]).filter(|shown| shown.is_object()) {
        *count.entry(cas(shown)).or_default() += 1;
    }
    if count.len() < 2 {
        return Vec::new();
    }
    let line = |(cas, n): (String, usize)| format!("{n} show a certificate {cas}");
    count.into_iter().map(line).collect()
}

fn cas(shown: &Value) -> String {
    let under = format!("under {}", authority(&shown["ca"]));
    match accepted(shown) {
        Some(names) => format!("{under}, accept {names}"),
        None => under,
    }
}

fn accepted(shown: &Value) -> Option<String> {
    let names: Vec<_> = shown["trusts"].as_array()?.iter().map(authority).collect();
    Some(names.join("; "))
}

/// What the peer showed when it was last authenticated.
pub fn print_one(shown: &Value) {
    if shown.is_null() {
        return;
    }
    let age = seconds(shown["age_s"].as_u64().unwrap_or(0));
    println!("  certificate, shown {age} ago");
    wrapped(
        4,
        &format!(
            "{} (serial {}), {}",
            text(&shown["subject"]),
            text(&shown["serial"]),
            ends(shown)
        ),
    );
    wrapped(4, &format!("issued under {}", authority(&shown["ca"])));
    if let Some(names) = accepted(shown) {
        wrapped(4, &format!("accepts {names}"));
    }
}

/// Its end, in words.
pub fn ends(certificate: &Value) -> String {
    let (days, end) = (certificate["days_left"].as_i64(), text(&certificate["not_after"]));
    match days {
        Some(days) if days >= 0 => format!("until {end}, {days} days left"),
        _ => format!("expired at {end}"),
    }
}

/// A CA by its name, where this host has it, else by its key.
fn authority(ca: &Value) -> String {
    match (ca["subject"].as_str(), ca["key_id"].as_str()) {
        (Some(subject), _) => subject.to_owned(),
        (None, Some(id)) => format!("an unknown CA (key {id})"),
        (None, None) => "an unknown CA".to_owned(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_fleet_that_is_not_of_one_mind_is_spoken_of() {
        let peer = |ca: &str, trusts: &[&str]| {
            let of = |name: &str| json!({"key_id": "ab", "subject": name});
            let trusts: Vec<_> = trusts.iter().map(|name| of(name)).collect();
            json!({"certificate": {"ca": of(ca), "trusts": trusts}})
        };
        let same = [peer("CN=a", &["CN=a"]), peer("CN=a", &["CN=a"]), json!({"certificate": null})];
        assert_eq!(groups(&same), Vec::<String>::new());
        let mixed = [same[0].clone(), same[1].clone(), peer("CN=b", &["CN=a", "CN=b"])];
        let lines = [
            "2 show a certificate under CN=a, accept CN=a",
            "1 show a certificate under CN=b, accept CN=a; CN=b",
        ];
        assert_eq!(groups(&mixed), lines);
    }
}
