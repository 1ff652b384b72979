//! Man pages and completions: of every command, and installed where they belong.
#![allow(clippy::disallowed_methods, reason = "tests of the program use files, clocks and threads")]

#[path = "world/mod.rs"]
mod world;

use std::fs;
use std::process::Command;

use world::{Folder, finish, warren};

/// Commands that `--help` lists.
fn commands() -> Vec<String> {
    let help = finish(warren().arg("--help")).ok();
    let listed = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let listed = listed.take_while(|line| line.starts_with("  "));
    // Two blanks in front; more than that is the rest of a description.
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|l| !l.starts_with(' ')));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_page_names_every_command_and_the_exit_codes() {
    let page = finish(warren().arg("man")).ok();
    let all = commands();
    assert!(all.len() > 20 && all.contains(&"doctor".to_owned()), "{all:?}");
    for command in all.iter().filter(|command| *command != "help") {
        assert!(page.contains(&format!("warren\\-{}", command.replace('-', "\\-"))), "{command}");
    }
    assert!(page.starts_with(".ie") || page.starts_with(".TH"), "{}", &page[..80]);
    assert!(page.contains("the daemon cannot be reached") && !page.contains("hold"), "{page}");
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let text = finish(warren().args(["completions", shell])).ok();
        for command in commands() {
            assert!(text.contains(&command), "{shell}: {command}");
        }
        let folder = Folder::new();
        let path = folder.put("completions", &text);
        if let Ok(read) = Command::new(shell).arg("-n").arg(&path).status() {
            assert!(read.success(), "{shell} cannot read its completions");
        }
    }
}

#[test]
fn everything_is_installed_where_it_belongs() {
    let folder = Folder::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/install.sh");
    let mut command = Command::new("sh");
    command.arg(script).arg(env!("CARGO_BIN_EXE_warren")).arg(&*folder);
    finish(command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped())).ok();
    for path in [
        "usr/bin/warren",
        "usr/share/man/man1/warren.1",
        "usr/share/man/man1/warren-doctor.1",
        "usr/share/man/man1/warren-lab-scenario.1",
        "usr/share/bash-completion/completions/warren",
        "usr/lib/systemd/system/warren.service",
        "usr/share/doc/warren/guard.md",
    ] {
        let size = fs::metadata(folder.join(path)).map(|there| there.len());
        assert!(size.as_ref().is_ok_and(|size| *size > 200), "{path}: {size:?}");
    }
    finish(warren().arg("man").arg("/proc/nowhere")).fails(1, &["/proc/nowhere"]);
}
