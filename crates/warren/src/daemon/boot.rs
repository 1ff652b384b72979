//! From arguments to a running loop: every way to fail is named before anything is changed.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crypto::native::Native;
use crypto::{Provider, Secret};
use linux::lock::Lock;
use mesh::recording::{Begin, Bundle};
use mesh::{Identity, Input, Mesh};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::carrier::{Carrier, CarrierError, Close};
use super::control;
use super::driver::{Driver, Ended, now};
use super::jobs::Jobs;
use super::journal::Journal;
use super::orders::Orders;
use super::site::Site;
use super::tape::Tape;
use crate::args::Run;
use crate::exit::Failure;
use crate::load::Rejected;

/// Calls of the control socket that may wait at once.
const CALLS: usize = 64;
/// Events that a slow `monitor` may lag behind.
const EVENTS: usize = 1024;
/// Clients of the control socket have so long to take their last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Not root, or without the capabilities.
    #[error("{0}")]
    Privileges(#[from] linux::sandbox::Missing),
    /// The state directory cannot be used.
    #[error("the state directory {dir}: {source}; it must be writable by root and have room")]
    StateDir {
        /// Which.
        dir: String,
        /// Why.
        source: std::io::Error,
    },
    /// Another daemon runs with it.
    #[error("{0}")]
    Lock(#[from] linux::lock::Error),
    /// The manifest.
    #[error("{0}")]
    Manifest(#[from] Rejected),
    /// The control socket.
    #[error("the control socket {path}: {source}; `--control` names another place")]
    Control {
        /// Where.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The recording.
    #[error("the recording {path}: {source}")]
    Record {
        /// Where.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Sockets, devices, routes.
    #[error("{0}")]
    Carrier(#[from] CarrierError),
    /// It ran, and cannot any more; a service manager starts it anew.
    #[error(
        "{0}; ending, so that a new start can put it right. Until then protected traffic is blocked"
    )]
    Broken(String),
    /// No randomness.
    #[error("{0}")]
    Random(#[from] linux::random::Error),
    /// Threads, signals, the loop itself.
    #[error("starting the daemon: {0}")]
    Loop(#[from] std::io::Error),
}

/// Runs the daemon until it is stopped.
pub fn run(args: &Run, socket: &Path) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::no)?;
    runtime.block_on(start(args, socket)).map_err(Failure::no)
}

async fn start(args: &Run, socket: &Path) -> Result<(), BootError> {
    linux::sandbox::privileges()?;
    linux::sandbox::keep_secrets()?;
    let provider: Arc<dyn Provider> = Arc::new(Native);
    let (mut site, mut loaded, notes) = Site::open(
        &args.manifest,
        args.rehearsal_credentials.as_deref(),
        provider.clone(),
        args.address,
        now().unix,
    )?;
    super::log::start(site.current().manifest().log_level);
    if let Err(reason) = linux::sandbox::lock_memory() {
        tracing::info!("keys may be swapped out ({reason}): encrypt the swap, or have none");
    }
    notes.iter().for_each(|note| tracing::info!("{note}"));
    let _lock = state_dir(&args.state_dir)?;
    let (listener, _file) = control::listen(socket)
        .map_err(|source| BootError::Control { path: socket.display().to_string(), source })?;
    let (seed, (done_sender, done)) = (linux::random::os_seed()?, mpsc::unbounded_channel());
    let jobs = Jobs::start(provider.clone(), done_sender)?;
    let mut tape = args.record.as_deref().map(record).transpose()?;
    // Nothing can fail any more once routes and policies are there.
    let carrier = Carrier::open(&site, provider.clone(), args.data_plane, &args.state_dir)?;
    loaded.prefer_encap = carrier.prefers_encap();
    let identity = Identity {
        address: site.address(),
        name: loaded.plan.name().map_or_else(host_name, str::to_owned),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data_plane: carrier.kind(),
    };
    let began = now();
    if let Some(tape) = &mut tape {
        let (identity, seed) = (identity.clone(), Secret::from(&seed[..]));
        tape.begin(&Begin { identity, seed, now: began });
    }
    let bundle = site.take_bundle().map(|b| Bundle { prefer_encap: loaded.prefer_encap, ..b });
    let mesh = Mesh::new(identity, provider, seed, began);
    let (calls_sender, calls) = mpsc::channel(CALLS);
    let (events, _) = broadcast::channel(EVENTS);
    let (stopping, stopped) = oneshot::channel();
    let server = control::serve(listener, calls_sender, events.downgrade(), stopped);
    let server = tokio::spawn(server);
    let mut driver = Driver {
        mesh,
        carrier,
        jobs,
        done,
        calls,
        events,
        site,
        journal: None,
        orders: Orders::open(&args.state_dir),
        rehearsal: args.rehearsal,
        leaving: None,
        again: Default::default(),
        traces: Default::default(),
        thrift: Default::default(),
        look_around: false,
        seen: None,
        tape,
    };
    find_journal(&mut driver, &args.state_dir);
    driver.give(Input::Orders(driver.orders.get().clone()), None);
    driver.carry_out();
    driver.give(Input::Manifest(Box::new(loaded)), bundle);
    driver.carry_out();
    if driver.site.current().optional() {
        driver.carrier.follow(driver.site.current());
    }
    driver.carrier.take_over();
    // Only a service manager listens; without one this is nothing.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let ended = driver.run().await?;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let broken = driver.carrier.broken();
    let kept = driver.journal.as_ref().is_some_and(Journal::is_kept);
    let close = match ended {
        Ended::Flushed => Close::Flush,
        // SAs without their IKE SAs would be of no use to anybody.
        Ended::Stopped if kept => Close::HandOver(&args.state_dir),
        Ended::Stopped | Ended::Broken => Close::Leave,
    };
    if close == Close::Flush {
        driver.journal.into_iter().for_each(Journal::forget);
        driver.orders.forget();
    }
    driver.carrier.close(close);
    // Whoever asked for the end hears of it now that it has come.
    drop((driver.events, driver.calls, stopping));
    let _ = tokio::time::timeout(LAST_ANSWERS, server).await;
    match broken {
        Some(why) if ended == Ended::Broken => Err(BootError::Broken(why)),
        _ => Ok(()),
    }
}

/// The recording that was asked for.
fn record(path: &Path) -> Result<Tape, BootError> {
    let shown = path.display().to_string();
    let tape = Tape::create(path).map_err(|source| BootError::Record { path: shown, source })?;
    tracing::warn!(
        "everything is recorded in {}, credentials and the seed of all keys included: whoever has it can read what \
         this host sends; delete it when it has served",
        path.display()
    );
    Ok(tape)
}

/// What the last process left, and where this one leaves its own.
fn find_journal(driver: &mut Driver, dir: &Path) {
    match Journal::open(dir, Arc::new(Native)) {
        Ok((journal, found)) => {
            driver.journal = Some(journal);
            driver.give(Input::Journal(found), None);
            driver.carry_out();
        }
        Err(reason) => tracing::warn!("SAs will end with this process: {reason}"),
    }
}

/// Makes the directory, proves that it can be written to, and takes its lock.
fn state_dir(dir: &Path) -> Result<Lock, BootError> {
    let failed = |source| BootError::StateDir { dir: dir.display().to_string(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let probe = dir.join("probe");
    fs::write(&probe, [0; 4096]).map_err(failed)?;
    fs::remove_file(&probe).map_err(failed)?;
    Ok(Lock::take(&dir.join("lock"))?)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
