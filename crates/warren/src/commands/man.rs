//! `warren man`: the manual pages, from the same list as `--help`.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;

use crate::args::Cli;
use crate::exit::Failure;

/// The page of all of it on standard output, or a page of each command in a folder.
pub fn run(dir: Option<&Path>) -> Result<(), Failure> {
    let written = match dir {
        Some(dir) => std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), dir)),
        None => page().and_then(|page| match std::io::stdout().write_all(&page) {
            // A reader that has seen enough is no failure.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }),
    };
    written.map_err(|error| match dir {
        Some(dir) => Failure::No(format!("{}: {error}", dir.display())),
        None => Failure::No(format!("standard output: {error}")),
    })
}

fn page() -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    Ok(page)
}
