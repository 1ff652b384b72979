//! Kernel settings of this network namespace, and its counters.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};

/// A setting that is put back when this value goes.
///
/// The file is kept open: it stays that of the namespace in which it was opened, whichever thread puts the value back.
#[derive(Debug)]
pub(crate) struct Setting {
    file: File,
    before: String,
}

impl Setting {
    /// Sets it; `None` if this kernel has no such setting, or does not let us, both of which only cost comfort.
    pub(crate) fn set(name: &str, value: &str) -> Option<Self> {
        let path = format!("/proc/sys/net/core/{name}");
        let mut file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        let mut before = String::new();
        file.read_to_string(&mut before).ok()?;
        write(&mut file, value).ok()?;
        Some(Self { file, before })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let before = std::mem::take(&mut self.before);
        let _ = write(&mut self.file, before.trim());
    }
}

fn write(file: &mut File, value: &str) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(value.as_bytes())
}

/// `/proc/net/xfrm_stat` of this namespace; needs CONFIG_XFRM_STATISTICS.
#[derive(Debug)]
pub(crate) struct Counters {
    file: Option<File>,
}

impl Counters {
    pub(crate) fn open() -> Self {
        Self { file: File::open("/proc/thread-self/net/xfrm_stat").ok() }
    }

    /// The drops by the kernel's names for them. They are of the whole namespace, other programs' SAs included.
    pub(crate) fn read(&mut self) -> Vec<(&'static str, u64)> {
        let mut text = String::new();
        if let Some(file) = &mut self.file {
            let _ = file.seek(SeekFrom::Start(0));
            let _ = file.take(1 << 16).read_to_string(&mut text);
        }
        text.lines().filter_map(counter).collect()
    }
}

fn counter(line: &str) -> Option<(&'static str, u64)> {
    let (name, value) = line.split_once(char::is_whitespace)?;
    let name = NAMES.iter().find(|known| **known == name)?;
    Some((name, value.trim().parse().ok()?))
}

/// Of the kernel's `net/xfrm/xfrm_proc.c`.
const NAMES: [&str; 32] = [
    "XfrmInError",
    "XfrmInBufferError",
    "XfrmInHdrError",
    "XfrmInNoStates",
    "XfrmInStateProtoError",
    "XfrmInStateModeError",
    "XfrmInStateSeqError",
    "XfrmInStateExpired",
    "XfrmInStateMismatch",
    "XfrmInStateInvalid",
    "XfrmInTmplMismatch",
    "XfrmInNoPols",
    "XfrmInPolBlock",
    "XfrmInPolError",
    "XfrmOutError",
    "XfrmOutBundleGenError",
    "XfrmOutBundleCheckError",
    "XfrmOutNoStates",
    "XfrmOutStateProtoError",
    "XfrmOutStateModeError",
    "XfrmOutStateSeqError",
    "XfrmOutStateExpired",
    "XfrmOutPolBlock",
    "XfrmOutPolDead",
    "XfrmOutPolError",
    "XfrmFwdHdrError",
    "XfrmOutStateInvalid",
    "XfrmAcquireError",
    "XfrmOutStateDirError",
    "XfrmInStateDirError",
    "XfrmInIptfsError",
    "XfrmOutNoQueueSpace",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_name() {
        assert_eq!(counter("XfrmInNoStates          \t17"), Some(("XfrmInNoStates", 17)));
        assert_eq!(counter("XfrmSomethingNew 1"), None);
        assert_eq!(counter("XfrmInError x"), None);
        assert_eq!(counter(""), None);
    }
}
