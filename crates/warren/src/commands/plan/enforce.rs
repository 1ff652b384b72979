//! `warren plan --enforce`: whether `optional: true` can go.

use std::path::Path;

use serde_json::Value;

use crate::args;
use crate::client;
use crate::exit::Failure;
use crate::print::println;

/// Asks the daemon; ends 1 where something would be cut off.
pub fn run(control: &Path, args: &args::Plan, json: bool) -> Result<(), Failure> {
    let seconds = args.seconds.unwrap_or(args.minutes.saturating_mul(60));
    let answer = client::get(control, &format!("/v1/enforce?seconds={seconds}"))?;
    if json {
        println!("{answer}");
    } else {
        print(&answer);
    }
    if answer["ready"] == true { Ok(()) } else { Err(Failure::Printed) }
}

fn print(answer: &Value) {
    let pairs = answer["pairs"].as_array().map_or(&[][..], Vec::as_slice);
    let unready = pairs.iter().filter(|pair| pair["ready"] != true);
    for pair in unready {
        let text = |name: &str| pair[name].as_str().unwrap_or_default();
        let who = match text("name") {
            "" => text("address").to_owned(),
            name => format!("{name} ({})", text("address")),
        };
        println!("{who:<32} {}", text("missing"));
    }
    let word = if answer["ready"] == true { "ready" } else { "not ready" };
    println!("{word}: {}", answer["reason"].as_str().unwrap_or_default());
    println!(
        "Hosts that nobody has talked with, and that `peers` does not list, are not known here."
    );
}
