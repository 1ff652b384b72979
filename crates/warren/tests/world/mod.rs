//! Hosts as network namespaces with the real program on each; all gone when the test ends, however it ends.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod daemon;
pub mod net;
pub mod pki;
pub mod shm;
pub mod streams;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Whether tests that need root can run; says so aloud if not, and fails where tests must run.
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root() && linux::sandbox::privileges().is_ok();
    assert!(root || std::env::var_os("CI").is_none(), "these tests need root (network namespaces)");
    if !root {
        eprintln!("SKIPPED: 1 test needs root (network namespaces)");
    }
    root
}

/// A name that nobody else has.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("wt-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A folder that goes with the value.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(unique());
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file, and says where.
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl std::ops::Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program.
pub fn warren() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("CREDENTIALS_DIRECTORY").env_remove("NOTIFY_SOCKET");
    command
}

/// What a run of the program came to.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None`: killed by a signal.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// # Panics
    /// If the program panicked: nothing that anybody types or sends may bring that about.
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let ended = Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        };
        ended.no_panic();
        ended
    }

    fn no_panic(&self) {
        assert!(!self.err.contains("panicked") && self.code != Some(101), "{self:#?}");
    }

    /// # Panics
    /// If the program did not end with 0.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.out
    }

    /// # Panics
    /// If it did not end with this code, or if a text is not in its message.
    pub fn fails(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for text in texts {
            assert!(self.err.contains(text), "no `{text}` in:\n{}", self.err);
        }
    }

    /// # Panics
    /// If it was not refused: 1 or 2, and each text in its message.
    pub fn refused(&self, texts: &[&str]) {
        assert!(matches!(self.code, Some(1 | 2)), "{self:#?}");
        self.fails(self.code.unwrap_or(-1), texts);
    }
}

/// Runs to the end, which must come soon.
pub fn finish(command: &mut Command) -> Ended {
    let child = command.spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || done.send(child.wait_with_output()));
        match ended.recv_timeout(PATIENCE) {
            Ok(output) => Ended::of(output.unwrap()),
            Err(_) => {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                let output = ended.recv().unwrap().unwrap();
                panic!("{command:?} does not end: {}", String::from_utf8_lossy(&output.stderr))
            }
        }
    })
}

/// Waits until `check` gives something.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// # Panics
/// If a line is wider than a terminal of 100 columns.
pub fn assert_narrow(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }
}
