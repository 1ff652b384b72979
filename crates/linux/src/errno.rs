//! Error numbers with their names and with what to do about them.

pub use nix::errno::Errno;

/// The error number of a rustix call.
pub(crate) fn of(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// The error number of a standard library call; `EIO` if it has none.
pub(crate) fn of_io(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Name, meaning, and the remedy where there is one that always holds.
pub fn explain(errno: Errno) -> String {
    let remedy = match errno {
        Errno::EPERM | Errno::EACCES => {
            "; it needs CAP_NET_ADMIN and CAP_NET_RAW: run as root or grant both"
        }
        Errno::EADDRINUSE => {
            "; another process has it: stop that one, or another daemon is running here"
        }
        Errno::ENOBUFS | Errno::ENOMEM => "; the kernel is short of memory",
        Errno::EMFILE | Errno::ENFILE => "; raise the limit of open files",
        Errno::EAFNOSUPPORT => "; this address family is switched off on this machine",
        _ => "",
    };
    format!("{errno:?} ({}){remedy}", errno.desc())
}
