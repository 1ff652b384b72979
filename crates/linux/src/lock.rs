//! One daemon a state directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Held for as long as this value lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody holds it.
    #[error(
        "{path} is held by process {holder}: a daemon is already running with this state directory; stop it or name another directory"
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The process id that stands in it, `?` if none does.
        holder: String,
    },
    /// The file cannot be made or written.
    #[error("{path}: {source}; the state directory must exist, be writable and have space")]
    File {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Lock {
    /// Takes the lock file at `path`, which is made if it is not there, and writes this process's id into it.
    pub fn take(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Held { path: path.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_taker_is_told_who_holds_it() {
        let path = std::env::temp_dir().join(format!("wt-lock-{}", std::process::id()));
        let lock = Lock::take(&path).unwrap();
        match Lock::take(&path) {
            Err(Error::Held { holder, .. }) => assert_eq!(holder, std::process::id().to_string()),
            other => panic!("{other:?}"),
        }
        drop(lock);
        Lock::take(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn missing_directory_is_named() {
        let error = Lock::take(Path::new("/nonexistent-dir/lock")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent-dir/lock"), "{error}");
    }
}
