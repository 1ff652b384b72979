//! The control plane's goals, from what `bench ike|mesh|manifest --json` print.

use serde_json::Value;

use super::goal::{Beside, Goal};

/// Most CPU time of a handshake and side, of the bare cryptography's.
const HANDSHAKE: [(&str, f64); 2] = [("modp2048-rsa3072", 1.25), ("x25519-p256", 1.6)];
/// From so many tunnels on the cost of one does not hang on what a host costs by itself.
const MANY: u64 = 1000;

/// All that have figures.
pub fn goals(figures: &Value) -> Vec<Goal> {
    let rows = |name: &str| figures[name].as_array().cloned().unwrap_or_default();
    let mut goals: Vec<_> = rows("handshakes").iter().filter_map(handshake).collect();
    let mesh = rows("mesh");
    goals.extend(mesh.iter().filter(|row| row["peers"].as_u64() >= Some(MANY)).flat_map(tunnels));
    goals.extend(packet(&mesh));
    goals.extend(rows("manifest").last().into_iter().flat_map(manifest));
    goals
}

fn handshake(row: &Value) -> Option<Goal> {
    let (suite, wanted) = HANDSHAKE.into_iter().find(|(suite, _)| row["suite"] == *suite)?;
    let ours = (figure(&row["initiator_ms"]) + figure(&row["responder_ms"])) / 2.0;
    Some(Goal {
        what: format!("handshake and side, {suite}, {} peers, ms", row["peers"]),
        ours,
        beside: Beside::Bare(figure(&row["bare_ms"])),
        wanted,
        at_least: false,
    })
}

fn tunnels(row: &Value) -> Vec<Goal> {
    let peers = row["peers"].as_u64().unwrap_or(0);
    let mut goals = vec![at_most(
        format!("heap of a tunnel, {peers} peers, bytes"),
        &row["tunnel_bytes"],
        4096.0,
    )];
    if peers == MANY {
        goals.push(at_most(
            format!("{peers} idle tunnels, % of a core"),
            &row["idle_percent"],
            0.4,
        ));
        goals.push(at_most(format!("status --json, {peers} peers, ms"), &row["status_ms"], 50.0));
        goals.push(at_most(
            format!("reload that adds 1 of {peers} peers: SAs touched"),
            &row["touched"],
            0.0,
        ));
    }
    goals
}

/// The cost of an event with the most peers to that with the fewest.
fn packet(mesh: &[Value]) -> Option<Goal> {
    let (few, many) = (mesh.first()?, mesh.last()?);
    let grown = figure(&many["packet_us"]) / figure(&few["packet_us"]);
    (mesh.len() > 1).then(|| Goal {
        what: format!("a packet that comes in, {} peers to {}", many["peers"], few["peers"]),
        ours: grown,
        beside: Beside::Itself,
        wanted: 1.2,
        at_least: false,
    })
}

fn manifest(row: &Value) -> Vec<Goal> {
    let entries = &row["entries"];
    let read = Value::from(figure(&row["read_ms"]) + figure(&row["plan_ms"]));
    vec![
        at_most(format!("manifest of {entries} entries read and planned, ms"), &read, 100.0),
        at_most(format!("one entry more of {entries} found, ms"), &row["diff_ms"], 20.0),
    ]
}

fn at_most(what: String, ours: &Value, wanted: f64) -> Goal {
    Goal { what, ours: figure(ours), beside: Beside::Itself, wanted, at_least: false }
}

/// What is missing is not a number.
fn figure(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_figure_with_a_goal_is_judged_and_a_missing_one_is_missed() {
        let figures = json!({
            "handshakes": [
                {"suite": "modp2048-rsa3072", "peers": 10, "bare_ms": 1.0, "initiator_ms": 1.2, "responder_ms": 1.3},
                {"suite": "x25519-p256", "peers": 10, "bare_ms": 1.0, "initiator_ms": 1.8, "responder_ms": 1.6},
                {"suite": "x25519-psk", "peers": 10, "bare_ms": 1.0, "initiator_ms": 9.0, "responder_ms": 9.0},
            ],
            "mesh": [
                {"peers": 10, "tunnel_bytes": 9999, "packet_us": 1.0},
                {"peers": 1000, "tunnel_bytes": null, "idle_percent": 0.3, "status_ms": 51.0, "touched": 0, "packet_us": 1.2},
                {"peers": 10000, "tunnel_bytes": 4096, "packet_us": 1.3},
            ],
            "manifest": [
                {"entries": 5, "read_ms": 900.0, "plan_ms": 900.0, "diff_ms": 900.0},
                {"entries": 5000, "read_ms": 60.0, "plan_ms": 40.0, "diff_ms": 21.0},
            ],
        });
        let met: Vec<_> = goals(&figures).iter().map(Goal::met).collect();
        assert_eq!(met, [true, false, false, true, false, true, true, false, true, false]);
        assert!(goals(&json!({})).is_empty());
    }
}
