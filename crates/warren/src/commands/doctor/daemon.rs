//! The daemon: whether it answers, and what it says of itself.

use std::path::Path;

use serde_json::Value;

use super::finding::{Finding, Findings};
use crate::client;
use crate::exit::Failure;

/// Its status, if it answers. `judged_alone`: a manifest was named, so nobody expects a daemon.
pub fn check(control: &Path, judged_alone: bool, all: &mut Vec<Finding>) -> Option<Value> {
    let mut found = Findings::of("daemon", all);
    match client::get(control, "/v1/status") {
        Ok(status) => {
            says(&status["node"], &mut found);
            Some(status)
        }
        Err(Failure::Unreachable(reason)) if judged_alone => {
            found.skipped("answers", format!("{reason}; this host is judged as it would start"));
            None
        }
        Err(Failure::Unreachable(reason) | Failure::No(reason) | Failure::Usage(reason)) => {
            let remedy = "start it: `systemctl start warren`, or `warren run -m FILE`; \
                          its log says why it ended: `journalctl -u warren`";
            found.error("answers", reason, remedy);
            None
        }
        Err(Failure::Printed) => None,
    }
}

fn says(node: &Value, found: &mut Findings<'_>) {
    let text = |key: &str| node[key].as_str().unwrap_or_default();
    let since = text("started_at");
    let what =
        format!("version {}, {} data plane, since {since}", text("version"), text("data_plane"));
    found.ok("answers", what);
    if text("version") != env!("CARGO_PKG_VERSION") {
        let other = format!("it runs {}, this is {}", text("version"), env!("CARGO_PKG_VERSION"));
        found.warning("version", other, "`systemctl restart warren`: tunnels outlive it");
    }
    if node["optional"] == true {
        let clear = "`optional: true`: where there is no SA, traffic passes in the clear";
        found.warning("enforced", clear, "once all peers are up, set `optional: false`");
    }
    let count = |key: &str| node[key].as_u64().unwrap_or(0);
    match count("refusals") {
        0 => found.ok("refusals", "the data plane took every change"),
        n => found.warning(
            "refusals",
            format!("the data plane refused {n} changes since {since}"),
            "the log names each; a foreign policy in the way, or a full table",
        ),
    }
    match count("drift_repaired") {
        0 => found.ok("drift", "nobody else changed Warren's SAs and policies"),
        n => {
            let kinds = node["drift"].as_object().into_iter().flatten();
            let kinds: Vec<String> = kinds
                .filter(|(_, count)| count.as_u64().is_some_and(|count| count > 0))
                .map(|(kind, count)| format!("{kind} {count}"))
                .collect();
            found.warning(
                "drift",
                format!("{n} entries were put right since {since} ({})", kinds.join(", ")),
                "find what changes them: `ip xfrm monitor` names the process that asks",
            );
        }
    }
}
