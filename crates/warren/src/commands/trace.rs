//! `warren trace PEER`: what passes between this host and one peer, and what comes of it.

use std::io::Write;
use std::path::Path;

use serde_json::Value;

use super::layout::{hung, short};
use super::status::encode;
use crate::args;
use crate::client;
use crate::exit::Failure;
use crate::pcap;
use crate::print::{complain, println};

/// Live until Ctrl-C or the daemon's end; or what was recorded.
pub fn run(control: &Path, args: &args::Trace, json: bool) -> Result<(), Failure> {
    let peer = encode(&args.peer);
    if args.recorded {
        return recorded(control, &peer, args, json);
    }
    client::follow(control, &format!("/v1/trace?peer={peer}"), |line| {
        let lines = if json { vec![line.to_owned()] } else { readable(line, args.detail) };
        lines.iter().all(|line| writeln!(std::io::stdout(), "{line}").is_ok())
    })
}

fn recorded(control: &Path, peer: &str, args: &args::Trace, json: bool) -> Result<(), Failure> {
    let mut answer = client::get(control, &format!("/v1/trace/recorded?peer={peer}"))?;
    let entries = answer["entries"].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(path) = &args.write {
        let packets: Vec<(u64, Vec<u8>)> = entries.iter().filter_map(packet).collect();
        write(path, &capture(&packets))
            .map_err(|error| Failure::No(format!("{}: {error}", path.display())))?;
        complain(format_args!("{}: {} messages", path.display(), packets.len()));
    }
    if json {
        for entry in answer["entries"].as_array_mut().into_iter().flatten() {
            entry.as_object_mut().and_then(|entry| entry.remove("packet"));
        }
        println!("{answer}");
    } else {
        entries
            .iter()
            .flat_map(|entry| shown(entry, args.detail))
            .for_each(|line| println!("{line}"));
        if entries.is_empty() {
            println!("nothing is remembered of {}", args.peer);
        }
    }
    Ok(())
}

fn readable(line: &str, detail: bool) -> Vec<String> {
    match serde_json::from_str(line) {
        Ok(value) => shown(&value, detail),
        Err(_) => vec![line.to_owned()],
    }
}

/// Lines for people.
pub fn shown(entry: &Value, detail: bool) -> Vec<String> {
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    if let Some(peer) = entry["peer"].as_str() {
        let name = entry["name"].as_str().map(|name| format!(" ({name})")).unwrap_or_default();
        let head = format!("{peer}{name} is {}: {}; Ctrl-C ends", text("state"), text("reason"));
        return hung("", &head);
    }
    let mut lines = Vec::new();
    if let Some(missed) = entry["missed"].as_u64() {
        lines.push(format!("({missed} lines were missed)"));
    }
    let at = clock(entry["at"].as_u64().unwrap_or(0));
    if entry["kind"] == "event" {
        lines.extend(hung(&format!("{at}  .  {:<8} ", text("event")), text("text")));
        return lines;
    }
    let ends = format!("{at} {} -> {} ", text("src"), text("dst"));
    lines.extend(hung(&ends, text("text")));
    if detail {
        let inside = entry["inside"].as_array().into_iter().flatten().filter_map(Value::as_str);
        lines.extend(inside.map(|line| short(&format!("{:19}{line}", ""), super::layout::COLUMNS)));
    }
    lines
}

/// `12:03:04.123456`, UTC.
pub fn clock(nanos: u64) -> String {
    let time = mesh::time::rfc3339(nanos / 1_000_000_000);
    let time = time.get(11..19).unwrap_or_default();
    format!("{time}.{:06}", nanos % 1_000_000_000 / 1_000)
}

fn packet(entry: &Value) -> Option<(u64, Vec<u8>)> {
    let digits = entry["packet"].as_str()?;
    let bytes = digits.as_bytes().chunks(2).map(|pair| {
        std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
    });
    Some((entry["at"].as_u64()?, bytes.collect::<Option<_>>()?))
}

fn capture(packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let records = packets.iter().flat_map(|(at, packet)| pcap::record(*at, packet));
    pcap::header().into_iter().chain(records).collect()
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    pcap::create(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::{clock, packet, shown};
    use serde_json::json;

    #[test]
    fn lines_for_people() {
        let event = json!({ "at": 1_700_000_000_000_001_000u64, "kind": "event", "event": "ike-up", "text": "IKE SA" });
        assert_eq!(shown(&event, false), ["22:13:20.000001  .  ike-up   IKE SA"]);
        let message = json!({ "at": 0, "kind": "message", "src": "10.0.0.1:500", "dst": "10.0.0.2:500", "text": "IKE_SA_INIT request 0 [ SA ]", "inside": ["  SA"], "missed": 2 });
        assert_eq!(
            shown(&message, true),
            [
                "(2 lines were missed)",
                "00:00:00.000000 10.0.0.1:500 -> 10.0.0.2:500 IKE_SA_INIT request 0 [ SA ]",
                "                     SA"
            ]
        );
        assert_eq!(clock(999), "00:00:00.000000");
    }

    #[test]
    fn packets_in_hexadecimal() {
        assert_eq!(packet(&json!({ "at": 5, "packet": "0aff" })), Some((5, vec![10, 255])));
        assert_eq!(packet(&json!({ "at": 5, "packet": "0ag0" })), None);
        assert_eq!(packet(&json!({ "at": 5 })), None);
    }
}
