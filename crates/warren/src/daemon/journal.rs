//! The journal on disk, which is none: IKE SAs with their keys, for the next process of this host.
//!
//! It is written only where files are in memory (tmpfs, ramfs), so that no key reaches a disk but by
//! swapping; it is of one boot. Files are root's alone. The log is sealed under a key in a file of its own
//! beside it: that protects a log that is copied alone, into a backup or a bundle for support, and not
//! from whoever can read both files; root can read the kernel's keys as well.
//!
//! A log that cannot be written is worse than none, since old message ids would be gone on with: it is
//! taken away, and SAs end with this process.

mod sealed;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crypto::{Provider, Secret};
use mesh::journal::Key;
use rustix::fs::{OFlags, statfs};
use sealed::{BOOT_LEN, KEY_LEN, Sealer, Unreadable};

const LOG: &str = "journal";
const NEXT: &str = "journal.new";
const KEY: &str = "journal.key";

/// `statfs(2)`: TMPFS_MAGIC and RAMFS_MAGIC.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// A log is written anew once it is so many times as long as it was then …
const GROWTH: u64 = 4;
/// … and by so many bytes longer.
const SLACK: u64 = 1 << 18;

/// No more of a log is read.
const MAX_LOG: u64 = 1 << 30;

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Keys would reach a disk.
    #[error(
        "{0} is not in memory (tmpfs); keys are not written to a disk. Name a --state-dir in /run"
    )]
    NotInMemory(PathBuf),
    /// A file cannot be made, read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could have read or written it.
    #[error("{0} is not root's alone")]
    Exposed(PathBuf),
    /// No randomness.
    #[error("{0}")]
    Random(#[from] linux::random::Error),
    /// No cipher, no boot id.
    #[error("{0}")]
    Other(String),
}

/// The journal of one state directory.
pub struct Journal {
    dir: PathBuf,
    provider: Arc<dyn Provider>,
    key: Secret,
    boot: [u8; BOOT_LEN],
    /// `None`: it failed, and is gone.
    log: Option<Log>,
}

struct Log {
    file: File,
    sealer: Sealer,
    len: u64,
    rewritten_at: u64,
}

/// Whether files there are in memory: only then is there a journal.
pub fn in_memory(dir: &Path) -> io::Result<bool> {
    Ok(IN_MEMORY.contains(&(statfs(dir)?.f_type as u64 & 0xffff_ffff)))
}

impl Journal {
    /// Opens the directory's journal and begins a new log with what the last one ended with, which is
    /// given as well.
    pub fn open(
        dir: &Path,
        provider: Arc<dyn Provider>,
    ) -> Result<(Self, Vec<(Key, Secret)>), JournalError> {
        if !in_memory(dir).map_err(at(dir))? {
            return Err(JournalError::NotInMemory(dir.to_owned()));
        }
        let boot = boot_id()?;
        let (key, fresh) = host_key(&dir.join(KEY))?;
        let mut journal = Self { dir: dir.to_owned(), provider, key, boot, log: None };
        let found = match read_private(&dir.join(LOG), MAX_LOG) {
            Ok(Some(_)) if fresh => Err("its key is gone".to_owned()),
            Ok(Some(file)) => journal.read(&file).map_err(|e| e.to_string()),
            Ok(None) => Ok(Vec::new()),
            Err(error) => Err(error.to_string()),
        };
        let found = found.unwrap_or_else(|reason| {
            tracing::warn!("the journal of the last process is not used: {reason}; its tunnels are negotiated anew");
            Vec::new()
        });
        journal.begin(&found)?;
        Ok((journal, found))
    }

    /// Keeps a record, or forgets it, before it returns.
    pub fn put(&mut self, key: Key, record: Option<&Secret>) {
        let Some(log) = &mut self.log else { return };
        let written = match log.sealer.frame(key, record) {
            Some(frame) => {
                log.len += frame.len() as u64;
                log.file.write_all(&frame)
            }
            None => Err(io::Error::from(io::ErrorKind::FileTooLarge)),
        };
        if let Err(error) = written {
            self.give_up(&error.to_string());
        }
    }

    /// Whether the next process will find something.
    pub fn is_kept(&self) -> bool {
        self.log.is_some()
    }

    /// Whether the log is long for what it says.
    pub fn is_long(&self) -> bool {
        self.log.as_ref().is_some_and(|l| l.len > l.rewritten_at * GROWTH + SLACK)
    }

    /// Begins the log anew with these records alone.
    pub fn rewrite(&mut self, records: &[(Key, Secret)]) {
        if self.log.is_some()
            && let Err(error) = self.begin(records)
        {
            self.give_up(&error.to_string());
        }
    }

    /// Nothing is to be found by the next process.
    pub fn forget(mut self) {
        self.log = None;
        for name in [LOG, NEXT, KEY] {
            let _ = fs::remove_file(self.dir.join(name));
        }
    }

    fn read(&self, file: &[u8]) -> Result<Vec<(Key, Secret)>, Unreadable> {
        Ok(sealed::read(&*self.provider, &self.key, &self.boot, file)?.into_iter().collect())
    }

    /// The old log is there until the new one is whole.
    fn begin(&mut self, records: &[(Key, Secret)]) -> Result<(), JournalError> {
        let (path, failed) = (self.dir.join(NEXT), at(&self.dir.join(NEXT)));
        remove(&path)?;
        let salt = linux::random::os_seed()?;
        let (mut sealer, mut bytes) = Sealer::new(&*self.provider, &self.key, &self.boot, salt)
            .map_err(|e| JournalError::Other(e.to_string()))?;
        for (key, record) in records {
            bytes.extend(sealer.frame(*key, Some(record)).unwrap_or_default());
        }
        let mut file = create_private(&path)?;
        file.write_all(&bytes).map_err(&failed)?;
        fs::rename(&path, self.dir.join(LOG)).map_err(&failed)?;
        let len = bytes.len() as u64;
        self.log = Some(Log { file, sealer, len, rewritten_at: len });
        Ok(())
    }

    fn give_up(&mut self, reason: &str) {
        self.log = None;
        for name in [LOG, NEXT] {
            let _ = fs::remove_file(self.dir.join(name));
        }
        tracing::error!(
            "the journal in {} cannot be written: {reason}; SAs will end with this process",
            self.dir.display()
        );
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |source| JournalError::File { path: path.clone(), source }
}

/// Takes a file away; that there is none is success.
pub(super) fn remove(path: &Path) -> Result<(), JournalError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// The kernel's name for this boot: SAs and boot-time clocks do not outlive it.
fn boot_id() -> Result<[u8; BOOT_LEN], JournalError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(at(path))?;
    let no_id = || JournalError::Other(format!("{}: no boot id", path.display()));
    text.trim().as_bytes().try_into().map_err(|_| no_id())
}

/// The key, and whether it was made just now.
fn host_key(path: &Path) -> Result<(Secret, bool), JournalError> {
    match read_private(path, KEY_LEN as u64 + 1)? {
        Some(key) if key.len() == KEY_LEN => Ok((Secret::from(&key[..]), false)),
        there => {
            if there.is_some() {
                remove(path)?;
            }
            let key = Secret::new(linux::random::os_seed()?.to_vec());
            create_private(path)?.write_all(key.expose()).map_err(at(path))?;
            Ok((key, true))
        }
    }
}

/// A file's content, `limit` bytes at most; `None` if it is not there.
fn read_private(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, JournalError> {
    let options = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path);
    let file = match options {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path)(error)),
    };
    let meta = file.metadata().map_err(at(path))?;
    let ours = meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0;
    if !meta.is_file() || !ours {
        return Err(JournalError::Exposed(path.to_owned()));
    }
    let mut content = Vec::with_capacity(usize::try_from(meta.len().min(limit)).unwrap_or(0));
    file.take(limit).read_to_end(&mut content).map_err(at(path))?;
    Ok(Some(content))
}

/// A new file that only its owner can read.
pub(super) fn create_private(path: &Path) -> Result<File, JournalError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use crypto::native::Native;

    use super::*;

    /// A folder in memory that goes with the value; `None` where there is no such file system.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Option<Self> {
            let path =
                Path::new("/dev/shm").join(format!("wt-journal-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).ok()?;
            let folder = Self(path);
            let in_memory = statfs(&folder.0).is_ok_and(|s| IN_MEMORY.contains(&(s.f_type as u64)));
            in_memory.then_some(folder)
        }

        fn open(&self) -> (Journal, Vec<(Key, Secret)>) {
            Journal::open(&self.0, Arc::new(Native)).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn record(n: u8) -> Secret {
        Secret::new(vec![n; 100])
    }

    #[test]
    fn what_was_put_is_found_by_the_next_and_by_the_one_after() {
        let Some(folder) = Folder::new("next") else { return };
        let (mut journal, found) = folder.open();
        assert!(found.is_empty());
        journal.put(Key(1), Some(&record(1)));
        journal.put(Key(2), Some(&record(2)));
        journal.put(Key(1), Some(&record(3)));
        journal.put(Key(2), None);
        for _ in 0..3 {
            assert_eq!(folder.open().1, [(Key(1), record(3))]);
        }
        for name in [LOG, KEY] {
            let mode = fs::metadata(folder.0.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let (journal, _) = folder.open();
        journal.forget();
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
        assert!(folder.open().1.is_empty());
    }

    #[test]
    fn a_long_log_is_rewritten_and_no_shorter_in_meaning() {
        let Some(folder) = Folder::new("long") else { return };
        let (mut journal, _) = folder.open();
        let mut puts = 0_u64;
        while !journal.is_long() {
            puts += 1;
            journal.put(Key(puts % 3), Some(&record(puts as u8)));
        }
        let records = folder.open().1;
        assert_eq!(records.len(), 3);
        let (mut journal, _) = folder.open();
        let before = fs::metadata(folder.0.join(LOG)).unwrap().len();
        journal.rewrite(&records[..2]);
        assert!(fs::metadata(folder.0.join(LOG)).unwrap().len() < before);
        journal.put(Key(7), Some(&record(7)));
        let mut wanted = records[..2].to_vec();
        wanted.push((Key(7), record(7)));
        assert_eq!(folder.open().1, wanted);
    }

    #[test]
    fn without_its_key_spoilt_or_exposed_it_is_not_used() {
        let Some(folder) = Folder::new("bad") else { return };
        let fill = || {
            let (mut journal, _) = folder.open();
            journal.put(Key(1), Some(&record(1)));
        };
        fill();
        fs::remove_file(folder.0.join(KEY)).unwrap();
        assert!(folder.open().1.is_empty());
        fill();
        let mut bytes = fs::read(folder.0.join(LOG)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(folder.0.join(LOG), bytes).unwrap();
        assert!(folder.open().1.is_empty());
        fill();
        fs::set_permissions(folder.0.join(LOG), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(folder.open().1.is_empty());
        fill();
        assert_eq!(folder.open().1.len(), 1);
    }

    #[test]
    fn a_disk_is_refused() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let refused = Journal::open(dir, Arc::new(Native)).map(drop);
        assert!(matches!(refused, Err(JournalError::NotInMemory(_))), "{refused:?}");
        assert!(!dir.join(KEY).exists());
    }
}
