//! `warren decode`: a capture as a ladder, decrypted where keys are known.

pub mod conversation;
mod file;
pub mod keyring;
pub mod show;

use crate::args::Decode;
use crate::exit::Failure;
use crate::print::println;
use conversation::Listener;
use keyring::Keyring;

/// Runs it; ends 1 where the file cannot be read to its end.
pub fn run(decode: &Decode, json: bool) -> Result<(), Failure> {
    let keys = match &decode.keys {
        Some(path) => Keyring::read(path).map_err(Failure::no)?,
        None => Keyring::default(),
    };
    let mut listener = Listener::new(keys, decode.peer);
    let read = file::read(&decode.file, |at, packet| listener.packet(at, packet));
    let entries = listener.entries;
    if json {
        println!("{}", show::json(&entries));
    } else {
        println!("{}", show::ladders(&entries, decode.detail).trim_end());
        summary(&show::sums(&entries), decode.keys.is_some());
    }
    let packets =
        read.map_err(|error| Failure::No(format!("{}: {error}", decode.file.display())))?;
    if entries.is_empty() && !json {
        println!("no IKE and no ESP among {packets} packets");
    }
    Ok(())
}

fn summary(sums: &show::Sums, with_keys: bool) {
    if *sums == show::Sums::default() {
        return;
    }
    println!(
        "\n{} IKE messages, {} ESP packets, {} malformed",
        sums.messages, sums.esp, sums.malformed
    );
    if sums.bad > 0 {
        println!("{} messages cannot be opened with the key of their IKE SA", sums.bad);
    }
    if sums.closed > 0 {
        let why = if with_keys {
            "no key is known"
        } else {
            "--keys DIR opens them, with what `warren keys export --wireshark DIR` wrote"
        };
        println!("{} messages are closed: {why}", sums.closed);
    }
}
