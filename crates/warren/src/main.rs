//! Warren: IPsec for fleets. Arguments in, exit code out.
// The program is where clocks, files and sockets are allowed.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

mod args;
mod bench;
mod client;
mod commands;
mod daemon;
mod decode;
mod exit;
mod lab;
mod load;
mod pcap;
mod pki;
mod print;
mod when;
mod wireshark;

use args::{Cli, Command, KeysCommand};
use daemon::control::Action;
use exit::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => printed(),
        Err(failure) => failure.report(),
    }
}

/// Half an answer is none.
fn printed() -> ExitCode {
    match print::failure() {
        None => ExitCode::SUCCESS,
        Some(error) => Failure::No(format!("standard output: {error}")).report(),
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let (control, json) = (cli.control.as_path(), cli.json);
    match &cli.command {
        Command::Run(run) => daemon::boot::run(run, control),
        Command::Hold(hold) => daemon::holder::run(hold),
        Command::Check(check) => commands::check::run(check, json),
        Command::Status(status) => commands::status::run(control, status, json),
        Command::Up(target) => commands::tunnel::command(control, Action::Up, &target.peer, json),
        Command::Down(target) => {
            commands::tunnel::command(control, Action::Down, &target.peer, json)
        }
        Command::Restart(target) => {
            commands::tunnel::command(control, Action::Restart, &target.peer, json)
        }
        Command::Rekey(args) => {
            let action = if args.reauth { Action::Reauth } else { Action::Rekey };
            commands::tunnel::command(control, action, &args.peer, json)
        }
        Command::Wait(wait) => commands::wait::run(control, wait, json),
        Command::Reload(args) => commands::tunnel::reload(control, args.reauth, json),
        Command::Stop(stop) => commands::tunnel::stop(control, stop.flush, json),
        Command::Monitor => commands::tunnel::monitor(control, json),
        Command::Explain(explain) => commands::explain::run(control, explain, json),
        Command::Doctor(args) => commands::doctor::run(control, args, json),
        Command::Trace(args) => commands::trace::run(control, args, json),
        Command::Mtu(args) => commands::mtu::run(control, args, json),
        Command::Plan(plan) => commands::plan::run(control, plan, json),
        Command::Import(args) => commands::import::run(args, json),
        Command::Guard(guard) => commands::guard::run(control, &guard.command, json),
        Command::Keys(keys) => match &keys.command {
            KeysCommand::Export { wireshark } => commands::keys::export(control, wireshark, json),
        },
        Command::Capture(args) => commands::capture::run(control, args, json),
        Command::Replay(args) => commands::replay::run(args, json),
        Command::Decode(args) => decode::run(args, json),
        Command::Pki(pki) => commands::pki::run(control, &pki.command, json),
        Command::Lab(lab) => lab::run(&lab.command, json),
        Command::Bench(bench) => bench::run(&bench.command, json),
        Command::Sim(sim) => commands::sim::run(sim, json),
        Command::Man { dir } => commands::man::run(dir.as_deref()),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "warren", &mut std::io::stdout());
            Ok(())
        }
    }
}
