//! Printing that survives where it goes to: a pipe that nobody reads, a full disk.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

/// Why standard output could not be written, the first time that it could not.
static FAILURE: OnceLock<String> = OnceLock::new();

/// A line on standard output, coloured only on a terminal.
macro_rules! println {
    () => { $crate::print::line(format_args!("")) };
    ($($arg:tt)*) => { $crate::print::line(format_args!($($arg)*)) };
}
pub(crate) use println;

/// What [`println!`] does.
pub fn line(text: Arguments<'_>) {
    if let Err(error) = writeln!(anstream::stdout(), "{text}")
        // A reader that has seen enough is no failure.
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = FAILURE.set(error.to_string());
    }
}

/// A line on standard error; where that cannot be written there is nobody to tell.
pub fn complain(text: Arguments<'_>) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Why what was printed is not all there.
pub fn failure() -> Option<&'static str> {
    FAILURE.get().map(String::as_str)
}
