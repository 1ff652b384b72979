//! Capture files of whole IP packets (LINKTYPE_RAW), with times in nanoseconds.

use std::fs::{File, OpenOptions};
use std::io::Result;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// A file that is new and its owner's alone, in place of what is there: neither a link nor a file that others may read
/// is written to. A pipe or a device that is there, and what this process has open, is opened as it is.
pub fn create(path: &Path) -> Result<File> {
    let open = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc/self/fd"];
    let special = std::fs::symlink_metadata(path).is_ok_and(|there| {
        let kind = there.file_type();
        kind.is_fifo() || kind.is_char_device()
    });
    if special || open.iter().any(|open| path.starts_with(open)) {
        return OpenOptions::new().write(true).truncate(true).open(path);
    }
    let _ = std::fs::remove_file(path);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// What a file begins with.
pub fn header() -> Vec<u8> {
    words(&[0xa1b2_3c4d, 0x0004_0002, 0, 0, 0xffff, 101])
}

/// One packet; `at` in nanoseconds since 1970.
pub fn record(at: u64, packet: &[u8]) -> Vec<u8> {
    let len = packet.len() as u32;
    let mut out = words(&[(at / 1_000_000_000) as u32, (at % 1_000_000_000) as u32, len, len]);
    out.extend(packet);
    out
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_capture_is_its_owners_and_goes_through_no_link_but_into_a_pipe() {
        let dir = std::env::temp_dir().join(format!("warren-pcap-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let [foreign, link, pipe] = ["foreign", "link", "pipe"].map(|name| dir.join(name));
        fs::write(&foreign, "theirs").unwrap();
        symlink(&foreign, &link).unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
        create(&link).unwrap().write_all(b"ours").unwrap();
        assert_eq!(fs::read(&foreign).unwrap(), b"theirs");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
        fs::set_permissions(&foreign, fs::Permissions::from_mode(0o666)).unwrap();
        create(&foreign).unwrap();
        assert_eq!((mode(&foreign), mode(&link)), (0o600, 0o600));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let both = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        create(&pipe).unwrap().write_all(b"ours").unwrap();
        let mut read = [0; 4];
        (&both).read_exact(&mut read).unwrap();
        assert_eq!(&read, b"ours");
        fs::remove_dir_all(&dir).unwrap();
    }
}
