//! A draft as YAML.

use std::fmt::{Display, Write};

use super::draft::{Draft, Exception, Peer};

pub(super) fn yaml(draft: &Draft) -> String {
    let mut out = String::new();
    list(&mut out, "ipsec_subnets", &draft.protected);
    if !draft.clear.is_empty() {
        list(&mut out, "no_ipsec_subnets", &draft.clear);
    }
    credentials(&mut out, draft);
    if let Some(mode) = draft.mode {
        line(&mut out, "mode", mode);
    }
    for (name, suites) in [("ike_proposals", &draft.ike), ("esp_proposals", &draft.esp)] {
        if !suites.is_empty() {
            list(&mut out, name, suites);
        }
    }
    for (name, value) in &draft.plain {
        line(&mut out, name, value);
    }
    if !draft.exceptions.is_empty() {
        out += "policies:\n";
        draft.exceptions.iter().for_each(|exception| except(&mut out, exception));
    }
    if !draft.peers.is_empty() {
        out += "peers:\n";
        for (address, peer) in &draft.peers {
            describe(&mut out, address, peer);
        }
    }
    out
}

fn credentials(out: &mut String, draft: &Draft) {
    let given = &draft.given;
    if let Some(psk) =
        given.psk.as_ref().or(draft.psk.as_ref().filter(|_| given.certificate.is_none()))
    {
        return line(out, "psk", &quoted(psk));
    }
    let property = |name: &str, value: &Option<String>, example: &str| match value {
        Some(value) => format!("{name}: {}\n", quoted(value)),
        None => format!("#{name}: {example}\n"),
    };
    *out += &property("instance_certificate", &given.certificate, "file:warren-instance.pem");
    *out += &property("instance_private_key", &given.key, "file:warren-instance.key");
    match &given.ca {
        Some(ca) => list(out, "ca_certificates", &[quoted(ca)]),
        None => *out += "#ca_certificates: ['file:ca.pem']\n",
    }
}

fn line(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "{name}: {value}");
}

fn list(out: &mut String, name: &str, values: &[impl Display]) {
    if values.is_empty() {
        let _ = writeln!(out, "{name}: []");
        return;
    }
    let _ = writeln!(out, "{name}:");
    for value in values {
        // `::` at the end of a plain word would be a key.
        let value = value.to_string();
        let value =
            if value.contains(':') && !value.starts_with('"') { quoted(&value) } else { value };
        let _ = writeln!(out, "- {value}");
    }
}

fn except(out: &mut String, exception: &Exception) {
    let mut fields = vec![format!("action: {}", exception.action)];
    let mut field = |name: &str, value: Option<String>| {
        fields.extend(value.map(|value| format!("{name}: {value}")));
    };
    field("proto", exception.proto.clone());
    field("local_port", exception.local_port.clone());
    field("remote_port", exception.remote_port.clone());
    field("remote", exception.remote.map(|net| quoted(&net.to_string())));
    field("direction", Some(exception.direction.to_owned()).filter(|d| d != "both"));
    field("name", exception.name.as_deref().map(quoted));
    let _ = writeln!(out, "- {{{}}}", fields.join(", "));
}

fn describe(out: &mut String, address: &std::net::IpAddr, peer: &Peer) {
    let _ = writeln!(out, "- address: {}", quoted(&address.to_string()));
    let texts = [("name", &peer.name), ("id", &peer.id), ("psk", &peer.psk)];
    for (name, value) in texts {
        if let Some(value) = value {
            let _ = writeln!(out, "  {name}: {}", quoted(value));
        }
    }
    for (name, suites) in [("ike_proposals", &peer.ike), ("esp_proposals", &peer.esp)] {
        if !suites.is_empty() {
            let _ = writeln!(out, "  {name}: [{}]", suites.join(", "));
        }
    }
    if peer.eager {
        *out += "  start: eager\n";
    }
}

/// A double-quoted scalar of YAML 1.2: what JSON escapes is escaped the same way.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() || c == '\u{feff}' || c == '\u{2028}' || c == '\u{2029}' => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}
