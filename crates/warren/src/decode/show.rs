//! What passed, as a ladder for people and as one object for programs.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};
use wire::{pretty, rungs};

use super::conversation::{Entry, Ike, Inside, What};

/// The sums below a ladder.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sums {
    /// IKE messages and fragments that could be read.
    pub messages: u64,
    /// Of these, encrypted without a known key.
    pub closed: u64,
    /// Of these, encrypted under a known key and not to be opened with it.
    pub bad: u64,
    /// What should be IKE or ESP and is not.
    pub malformed: u64,
    /// ESP packets.
    pub esp: u64,
}

/// Counts.
pub fn sums(entries: &[Entry]) -> Sums {
    let mut sums = Sums::default();
    for entry in entries {
        match &entry.what {
            What::Ike(ike) => {
                sums.messages += 1;
                sums.closed += u64::from(matches!(ike.inside, Inside::Closed));
                sums.bad += u64::from(matches!(ike.inside, Inside::Bad(_)));
            }
            What::Malformed(_) => sums.malformed += 1,
            What::Esp { packets, .. } => sums.esp += packets,
            What::Keepalive => {}
        }
    }
    sums
}

/// One ladder for each pair of hosts; `detail` shows what is in the payloads.
pub fn ladders(entries: &[Entry], detail: bool) -> String {
    let mut pairs: BTreeMap<(IpAddr, IpAddr), Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        let (src, dst) = (entry.src.ip(), entry.dst.ip());
        pairs.entry((src.min(dst), src.max(dst))).or_default().push(entry);
    }
    let begin = entries.first().map_or(0, |entry| entry.at);
    let drawn = pairs.values().map(|entries| ladder(entries, begin, detail));
    drawn.collect::<Vec<_>>().join("\n")
}

/// The host that spoke first stands on the left.
fn ladder(entries: &[&Entry], begin: u64, detail: bool) -> String {
    let Some(first) = entries.first() else { return String::new() };
    let (left, right) = (first.src.ip(), first.dst.ip());
    let mut out = rungs::head(&left.to_string(), &right.to_string());
    for entry in entries {
        let rightward = entry.src.ip() == left;
        let at = seconds(entry.at, begin);
        let ends = if rightward { [&*at, ""] } else { ["", &*at] };
        out += &rungs::arrow(rightward, ends, &line(entry));
        if let (true, What::Ike(ike)) = (detail, &entry.what) {
            details(ike).lines().skip(1).for_each(|line| out += &format!("{:13}{line}\n", ""));
        }
    }
    out
}

/// Since the first packet of the capture.
fn seconds(at: u64, begin: u64) -> String {
    let since = at.saturating_sub(begin);
    format!("{}.{:06}", since / 1_000_000_000, since % 1_000_000_000 / 1_000)
}

fn line(entry: &Entry) -> String {
    match &entry.what {
        What::Ike(ike) => format!("{}{}", message(ike), ports(entry)),
        What::Malformed(text) => format!("malformed: {text}{}", ports(entry)),
        What::Esp { spi, packets: 1, bytes } => format!("ESP {spi}, {bytes} bytes"),
        What::Esp { spi, packets, bytes } => format!("ESP {spi}, {packets} packets, {bytes} bytes"),
        What::Keepalive => "keepalive".into(),
    }
}

/// Unless it is the everyday one.
fn ports(entry: &Entry) -> String {
    let (src, dst) = (entry.src.port(), entry.dst.port());
    if (src, dst) == (500, 500) { String::new() } else { format!(" {src}>{dst}") }
}

fn message(ike: &Ike) -> String {
    let frame = ike.fragment.map(|(number, total)| format!("EF({number}/{total})"));
    let inside = match &ike.inside {
        Inside::Nothing => None,
        Inside::Open(payloads) => Some(names(payloads).join(" ")),
        Inside::Piece => Some("…".into()),
        Inside::Closed => Some("closed".into()),
        Inside::Bad(error) => Some(format!("not to be opened: {error}")),
    };
    let start = pretty::line(&ike.header, &ike.payloads);
    let start = start.trim_end_matches(" ]");
    [Some(start.to_owned()), frame, inside, Some("]".into())]
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn details(ike: &Ike) -> String {
    match &ike.inside {
        Inside::Open(payloads) => pretty::detail(&ike.header, payloads),
        _ => pretty::detail(&ike.header, &ike.payloads),
    }
}

fn names(payloads: &[wire::payload::Payload]) -> Vec<String> {
    payloads.iter().map(pretty::short).collect()
}

/// One thing that passed, on one line, and what is in it on more of them.
pub fn one(entry: &Entry) -> (String, Vec<String>) {
    let inside = match &entry.what {
        What::Ike(ike) => details(ike).lines().skip(1).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    (line(entry), inside)
}

/// For programs.
pub fn json(entries: &[Entry]) -> Value {
    let begin = entries.first().map_or(0, |entry| entry.at);
    let shown: Vec<_> = entries.iter().map(|entry| object(entry, begin)).collect();
    json!({ "begin": begin as f64 / 1e9, "entries": shown, "sums": sums(entries) })
}

fn object(entry: &Entry, begin: u64) -> Value {
    let mut object = json!({
        "at_s": entry.at.saturating_sub(begin) as f64 / 1e9,
        "src": address(entry.src),
        "dst": address(entry.dst),
    });
    let what = match &entry.what {
        What::Ike(ike) => ike_object(ike),
        What::Malformed(text) => json!({ "kind": "malformed", "error": text }),
        What::Esp { spi, packets, bytes } => {
            json!({ "kind": "esp", "spi": spi.to_string(), "packets": packets, "bytes": bytes })
        }
        What::Keepalive => json!({ "kind": "keepalive" }),
    };
    if let (Value::Object(object), Value::Object(what)) = (&mut object, what) {
        object.extend(what);
    }
    object
}

/// Without the port that ESP does not have.
fn address(address: SocketAddr) -> String {
    if address.port() == 0 { address.ip().to_string() } else { address.to_string() }
}

fn ike_object(ike: &Ike) -> Value {
    let header = &ike.header;
    let (state, inside, error) = match &ike.inside {
        Inside::Nothing => ("plain", None, None),
        Inside::Open(payloads) => ("open", Some(names(payloads)), None),
        Inside::Piece => ("piece", None, None),
        Inside::Closed => ("closed", None, None),
        Inside::Bad(error) => ("bad", None, Some(error)),
    };
    json!({
        "kind": "ike",
        "spi_i": header.spi_i.to_string(),
        "spi_r": header.spi_r.to_string(),
        "exchange": header.exchange.to_string(),
        "response": header.flags.response,
        "message_id": header.message_id,
        "length": header.length,
        "fragment": ike.fragment,
        "payloads": names(&ike.payloads),
        "encrypted": state,
        "inside": inside,
        "error": error,
    })
}
