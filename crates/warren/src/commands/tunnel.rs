//! `warren up|down|restart|rekey PEER`, `reload`, `stop`, `monitor`: what is asked of a running daemon.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client;
use crate::daemon::control::{Action, CommandBody};
use crate::exit::Failure;
use crate::print::println;

/// One tunnel.
pub fn command(control: &Path, action: Action, peer: &str, json: bool) -> Result<(), Failure> {
    let body = CommandBody { action, peer: peer.to_owned() };
    let reply = client::post(control, "/v1/command", &json!(body))?;
    say(&reply, json, reply["text"].as_str().unwrap_or_default());
    Ok(())
}

/// Reads the manifest again; with `reauth` every tunnel is then made anew.
pub fn reload(control: &Path, reauth: bool, json: bool) -> Result<(), Failure> {
    let reply = client::post(control, "/v1/reload", &json!({ "reauth": reauth }))?;
    if let (false, Some(notes)) = (json, reply["notes"].as_array()) {
        notes.iter().filter_map(Value::as_str).for_each(|note| println!("{note}"));
    }
    say(&reply, json, &format!("reloaded {}", reply["reloaded"].as_str().unwrap_or_default()));
    Ok(())
}

/// Stops the daemon, and waits until it is gone.
pub fn stop(control: &Path, flush: bool, json: bool) -> Result<(), Failure> {
    let reply = client::post(control, "/v1/stop", &json!({ "flush": flush }))?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while client::is_up(control) {
        if Instant::now() > deadline {
            return Err(Failure::No(
                "the daemon took the request, but still runs after 30 s".into(),
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    say(
        &reply,
        json,
        if flush {
            "stopped; SAs, policies and routes are gone"
        } else {
            "stopped; the policies stay, nothing passes in the clear"
        },
    );
    Ok(())
}

/// Prints events until the daemon ends or nobody reads any more.
pub fn monitor(control: &Path, json: bool) -> Result<(), Failure> {
    client::follow(control, "/v1/events", |line| {
        let shown = if json { line.to_owned() } else { readable(line) };
        use std::io::Write;
        writeln!(std::io::stdout(), "{shown}").is_ok()
    })
}

fn readable(line: &str) -> String {
    let Ok(event) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    if let Some(missed) = event["missed"].as_u64() {
        return format!("({missed} events were missed)");
    }
    let time = mesh::time::rfc3339(event["time"].as_u64().unwrap_or(0));
    let field = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    format!(
        "{time} {:<8} {:<20} {:<16} {}",
        field("level"),
        field("event"),
        field("peer"),
        field("text")
    )
}

fn say(reply: &Value, json: bool, text: &str) {
    if json { println!("{reply}") } else { println!("{text}") }
}
