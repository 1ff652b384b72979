//! Kernel settings of this network namespace, and its counters.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A setting that is put back when this value goes.
///
/// The file is kept open: it stays that of the namespace in which it was opened, whichever thread puts the value back.
#[derive(Debug)]
pub(crate) struct Setting {
    file: File,
    before: String,
    /// Where `before` is written down for as long as it is not put back.
    memo: Option<PathBuf>,
}

impl Setting {
    /// Sets it; `None` if this kernel has no such setting, or does not let us, both of which only cost comfort.
    ///
    /// A process that is killed cannot put it back. The next one finds in `dir` what it was before the first.
    pub(crate) fn set(name: &str, value: &str, dir: Option<&Path>) -> Option<Self> {
        let path = format!("/proc/sys/net/core/{name}");
        let mut file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        let mut before = String::new();
        file.read_to_string(&mut before).ok()?;
        let memo = dir.map(|dir| dir.join(format!("{name}.before")));
        if let Some(memo) = &memo {
            match remembered(memo) {
                Some(earlier) => before = earlier,
                None => std::fs::write(memo, &before).ok()?,
            }
        }
        let mut setting = Self { file, before, memo };
        // If it cannot be written it need not be put back either.
        write(&mut setting.file, value).ok()?;
        Some(setting)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let before = std::mem::take(&mut self.before);
        let put_back = write(&mut self.file, before.trim()).is_ok();
        if let Some(memo) = self.memo.take().filter(|_| put_back) {
            let _ = std::fs::remove_file(memo);
        }
    }
}

/// A number of seconds as an earlier process left it. Anything else is no value of a setting.
fn remembered(memo: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(memo).ok()?.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse::<u32>().ok().map(|value| value.to_string())
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
