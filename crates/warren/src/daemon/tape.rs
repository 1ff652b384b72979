//! `warren run --record FILE`: everything that goes into the mesh, for `warren replay`.
//!
//! The file holds the host's credentials and the seed of its keys. It is the owner's alone, off unless asked for, and
//! bounded.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crypto::Provider;
use crypto::native::Native;
use ike::Now;
use mesh::recording::{Begin, Bundle, Given, Step};
use mesh::{Input, Output};
use wire::registry::HashAlg;

/// Longer recordings end.
const MOST: u64 = 1 << 30;

/// A recording that is being written.
pub struct Tape {
    file: Option<BufWriter<File>>,
    written: u64,
    outputs: Outputs,
    /// Numbers of the batches of which some was refused, in the order in which that will be handed in.
    refused: VecDeque<u64>,
}

impl Tape {
    /// An empty one. The last one, which may show why a daemon ended, becomes `FILE.1`.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        if std::fs::symlink_metadata(path).is_ok_and(|there| there.is_file()) {
            let mut last = path.as_os_str().to_owned();
            last.push(".1");
            std::fs::rename(path, last)?;
        }
        // What else is there, such as a link, is not written to.
        let _ = std::fs::remove_file(path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self {
            file: Some(BufWriter::new(file)),
            written: 0,
            outputs: Outputs::default(),
            refused: VecDeque::new(),
        })
    }

    /// What it begins with.
    pub fn begin(&mut self, begin: &Begin) {
        if let Err(error) = self.put(begin.encode().expose()) {
            self.end(&error.to_string());
        }
    }

    /// This goes into the mesh now.
    pub fn input(&mut self, now: Now, input: &Input, bundle: Option<Bundle>) {
        let batch = match input {
            Input::Applied(..) => self.refused.pop_front().unwrap_or(0),
            _ => 0,
        };
        match Given::of(input, batch, bundle) {
            Some(given) => self.step(now, given),
            None => self.end("a manifest came without its files"),
        }
    }

    /// One thing that goes in.
    pub fn step(&mut self, now: Now, given: Given) {
        let step = Step { now, outputs: self.outputs.take(), given };
        let encoded = step.encode();
        if let Err(error) = self.put(encoded.expose()) {
            self.end(&error.to_string());
        }
    }

    /// This came out.
    pub fn output(&mut self, output: &Output) {
        self.outputs.add(output);
    }

    /// Some of the batch that came out last was refused.
    pub fn refused(&mut self) {
        self.refused.push_back(self.outputs.batches.saturating_sub(1));
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.written += 4 + bytes.len() as u64;
        if self.written > MOST {
            return Err(std::io::Error::other("the recording is as long as it may get"));
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let len = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
        file.write_all(&len.to_be_bytes())?;
        file.write_all(bytes)?;
        // A daemon that is killed has recorded what it was killed by.
        file.flush()
    }

    /// The daemon goes on without.
    fn end(&mut self, reason: &str) {
        if self.file.take().is_some() {
            tracing::warn!("the recording ends here: {reason}");
        }
    }
}

/// A hash of what came out since the last input.
#[derive(Default)]
pub struct Outputs {
    text: Vec<u8>,
    /// Batches for the data plane so far.
    pub batches: u64,
}

impl Outputs {
    /// One more output. Secrets are not among what is hashed: batches and jobs show none.
    pub fn add(&mut self, output: &Output) {
        let text = &mut self.text;
        // Writing to memory does not fail.
        let _ = match output {
            Output::Apply(batch) => {
                self.batches += 1;
                write!(text, "apply {batch:?}")
            }
            Output::Journal(key, record) => write!(text, "journal {key:?} {}", record.is_some()),
            Output::Transmit(datagram) => write!(text, "transmit {datagram:?}"),
            Output::Job(job) => write!(text, "job {:?}", job.id),
            Output::Inspect => write!(text, "inspect"),
            Output::Report(event) => write!(text, "report {event:?}"),
            // Said as often as somebody asks.
            Output::Sleep(..) => return,
        };
        text.push(b'\n');
    }

    /// The hash; from here on it begins anew.
    pub fn take(&mut self) -> [u8; 16] {
        let digest = Native.hash(HashAlg::SHA2_256, &[&self.text]).unwrap_or_default();
        self.text.clear();
        digest.first_chunk().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_last_recording_is_kept() {
        let dir = std::env::temp_dir().join(format!("warren-tape-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let [path, last, other] = ["tape", "tape.1", "other"].map(|name| dir.join(name));
        for content in [&b"first"[..], b"second", b"third"] {
            Tape::create(&path).unwrap().put(content).unwrap();
        }
        assert!(fs::read(&path).unwrap().ends_with(b"third"));
        assert!(fs::read(&last).unwrap().ends_with(b"second"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&last)), (0o600, 0o600));
        // What a link leads to is neither moved nor written to.
        fs::write(&other, "other").unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&other, &path).unwrap();
        Tape::create(&path).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"other");
        assert!(fs::read(&last).unwrap().ends_with(b"second"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
