//! Events as log lines.

use mesh::Event;
use mesh::event::Level;
use mesh::manifest::LogLevel;

/// Logs an event at its level. `[CRITICAL]` is an error that says so.
pub fn event(event: &Event) {
    let peer = event.peer.map(|peer| format!("{peer}: ")).unwrap_or_default();
    match event.level {
        Level::Debug => tracing::debug!("{peer}{}", event.text),
        Level::Info => tracing::info!("{peer}{}", event.text),
        Level::Warn => tracing::warn!("{peer}{}", event.text),
        Level::Error => tracing::error!("{peer}{}", event.text),
        Level::Critical => tracing::error!("[CRITICAL] {peer}{}", event.text),
    }
}

/// Sends log lines to standard error, without a time of their own where a journal adds it.
pub fn start(level: LogLevel) {
    use tracing::level_filters::LevelFilter;
    // strongSwan's levels: -1 silent, 0 audit, 1 control flow, 2 detail, 3 and 4 dumps.
    let filter = match level.0 {
        ..=-1 => LevelFilter::ERROR,
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let logger = tracing_subscriber::fmt()
        .with_max_level(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        // A log that cannot be written (a full disk, a reader that is gone) must not end the daemon.
        .log_internal_errors(false)
        .with_ansi(false);
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    // Fails only if there is a logger already, which then does the work.
    let _ = if journal {
        logger.without_time().try_init()
    } else {
        logger.with_timer(Clock).try_init()
    };
}

/// UTC, in seconds.
struct Clock;

impl tracing_subscriber::fmt::time::FormatTime for Clock {
    fn format_time(
        &self,
        out: &mut tracing_subscriber::fmt::format::Writer<'_>,
    ) -> std::fmt::Result {
        out.write_str(&mesh::time::rfc3339(linux::clock::unix_now()))
    }
}
