//! Warren: IPsec for fleets. Arguments in, exit code out.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

mod args;
mod commands;
mod exit;
mod pki;

use args::{Cli, Command};
use exit::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Pki(pki) => commands::pki::run(&pki.command, cli.json),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "warren", &mut std::io::stdout());
            Ok(())
        }
        _ => Err(Failure::Usage("not built yet".into())),
    }
}
