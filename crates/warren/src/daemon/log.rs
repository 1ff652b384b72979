//! Events as log lines.

use mesh::Event;
use mesh::event::Level;

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
