//! Named network namespaces, the same as those of `ip netns`.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::errno::{Errno, explain, of, of_io};
use crate::route::{self, Rtnl};

/// Why a namespace could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is one of this name.
    #[error(
        "network namespace {0} exists already: delete it (`ip netns del {0}`) or choose another name"
    )]
    Exists(String),
    /// There is none of this name.
    #[error("no network namespace {0}")]
    Missing(String),
    /// Names are file names.
    #[error("{0:?} cannot be the name of a namespace: it must be a file name of at most 200 bytes")]
    Name(String),
    /// A system call failed.
    #[error("network namespace {name}, {call}: {}", explain(*.errno))]
    Call {
        /// Which namespace.
        name: String,
        /// Which call.
        call: &'static str,
        /// Its error number.
        errno: Errno,
    },
    /// Its loopback interface could not be switched on.
    #[error("network namespace {name}: {source}")]
    Route {
        /// Which namespace.
        name: String,
        /// Why.
        source: route::Error,
    },
    /// A kernel setting was refused.
    #[error("{path}: {source}")]
    Sysctl {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where the names are.
pub const DIRECTORY: &str = "/run/netns";

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Makes a namespace; its loopback interface is up. It stays until [`Netns::delete`], also after this process.
    pub fn create(name: &str) -> Result<Self, Error> {
        check_name(name)?;
        let path = prepare(name)?;
        // Unsharing changes the thread for good: one of its own, which ends at once.
        let mounted = std::thread::scope(|scope| scope.spawn(|| unshare_and_mount(&path)).join());
        match mounted {
            Ok(Ok(())) => {}
            Ok(Err((call, errno))) => {
                let _ = std::fs::remove_file(&path);
                return Err(Error::Call { name: name.to_owned(), call, errno });
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
        let netns = Self::open(name)?;
        netns
            .run(|| Rtnl::open()?.set_up("lo", true))
            .map_err(|source| Error::Route { name: name.to_owned(), source })?;
        Ok(netns)
    }

    /// Opens the namespace of this name.
    pub fn open(name: &str) -> Result<Self, Error> {
        check_name(name)?;
        let file = File::open(Path::new(DIRECTORY).join(name)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::Missing(name.to_owned()),
            _ => Error::Call { name: name.to_owned(), call: "open", errno: of_io(&e) },
        })?;
        Ok(Self { name: name.to_owned(), file })
    }

    /// The namespace that this process is in; it has no name.
    pub fn current() -> Result<Self, Error> {
        let file = File::open("/proc/thread-self/ns/net").map_err(|e| Error::Call {
            name: String::new(),
            call: "open",
            errno: of_io(&e),
        })?;
        Ok(Self { name: String::new(), file })
    }

    /// The names of all namespaces, sorted.
    pub fn list() -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(DIRECTORY) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Takes the name away; absent is success. The namespace itself goes with its last process and socket.
    pub fn delete(name: &str) -> Result<(), Error> {
        check_name(name)?;
        let path = Path::new(DIRECTORY).join(name);
        match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => {
                return Err(Error::Call {
                    name: name.to_owned(),
                    call: "umount",
                    errno: of(error),
                });
            }
        }
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::Call { name: name.to_owned(), call: "unlink", errno: of_io(&e) })
            }
            _ => Ok(()),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread of its own inside this namespace. Sockets and devices that it opens keep to the namespace.
    ///
    /// # Panics
    /// If `work` does, or if the namespace cannot be entered, for which this process needs CAP_SYS_ADMIN.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let outcome = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter().expect("entering a network namespace needs CAP_SYS_ADMIN");
                    work()
                })
                .join()
        });
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Moves the calling thread into this namespace, for good. Not for threads of a pool.
    pub fn enter(&self) -> Result<(), Error> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| Error::Call { name: self.name.clone(), call: "setns", errno: of(e) })
    }

    /// Lets `command` start inside this namespace. Each directory of `private` (it must exist) is an empty one of the
    /// child's own there, in memory, and `/sys` shows the namespace's own interfaces if there is any such directory.
    pub fn confine(&self, command: &mut Command, private: &[&Path]) -> io::Result<()> {
        let netns = self.file.try_clone()?;
        let private: Vec<CString> = private
            .iter()
            .map(|p| CString::new(p.as_os_str().as_encoded_bytes()))
            .collect::<Result<_, _>>()?;
        let enter = move || -> io::Result<()> {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
            if private.is_empty() { Ok(()) } else { hide(&private) }
        };
        // SAFETY: `enter` runs between fork and exec. It only makes system calls on values made before the fork:
        // it neither allocates nor takes a lock (paths are C strings already, errors are plain numbers).
        unsafe { command.pre_exec(enter) };
        Ok(())
    }

    /// Writes a kernel setting of this namespace: `sysctl("net/ipv4/conf/all/rp_filter", "0")`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        self.run(|| set_sysctl(key, value))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A namespace that is deleted when this value goes, however it goes.
#[derive(Debug)]
pub struct Guard(Netns);

impl Guard {
    /// Makes a namespace.
    pub fn create(name: &str) -> Result<Self, Error> {
        Netns::create(name).map(Self)
    }
}

impl std::ops::Deref for Guard {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = Netns::delete(&self.0.name);
    }
}

/// Writes a kernel setting of this thread's network namespace; the key has slashes and no leading `/proc/sys`.
pub fn set_sysctl(key: &str, value: &str) -> Result<(), Error> {
    let path = sysctl_path(key);
    std::fs::write(&path, value).map_err(|source| Error::Sysctl { path, source })
}

/// Reads a kernel setting of this thread's network namespace.
pub fn get_sysctl(key: &str) -> Result<String, Error> {
    let path = sysctl_path(key);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(Error::Sysctl { path, source }),
    }
}

fn sysctl_path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key.trim_start_matches('/'))
}

fn check_name(name: &str) -> Result<(), Error> {
    let bad = name.is_empty()
        || name.len() > 200
        || name.contains(['/', '\0'])
        || name == "."
        || name == "..";
    if bad { Err(Error::Name(name.to_owned())) } else { Ok(()) }
}

/// The directory of names, shared between mount namespaces as `ip netns` wants it, and an empty file for this name.
fn prepare(name: &str) -> Result<PathBuf, Error> {
    let call = |call| move |errno| Error::Call { name: name.to_owned(), call, errno };
    std::fs::create_dir_all(DIRECTORY).map_err(|e| call("mkdir /run/netns")(of_io(&e)))?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    if rustix::mount::mount_change(DIRECTORY, shared).is_err() {
        rustix::mount::mount_bind_recursive(DIRECTORY, DIRECTORY)
            .map_err(|e| call("mount /run/netns")(of(e)))?;
        rustix::mount::mount_change(DIRECTORY, shared)
            .map_err(|e| call("mount /run/netns")(of(e)))?;
    }
    let path = Path::new(DIRECTORY).join(name);
    match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(_) => Ok(path),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists(name.to_owned())),
        Err(e) => Err(call("create")(of_io(&e))),
    }
}

fn unshare_and_mount(path: &Path) -> Result<(), (&'static str, Errno)> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| ("unshare", errno))?;
    rustix::mount::mount_bind("/proc/thread-self/ns/net", path).map_err(|e| ("mount", of(e)))
}

/// Empty directories of this process's own in place of those named. Only system calls.
fn hide(private: &[CString]) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for path in private {
        rustix::mount::mount(
            c"tmpfs",
            path,
            c"tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            c"mode=0755",
        )?;
    }
    // Best effort, as some containers forbid it: /sys/class/net of this namespace.
    if rustix::mount::unmount(c"/sys", UnmountFlags::DETACH).is_ok() {
        let _ = rustix::mount::mount(
            c"sysfs",
            c"/sys",
            c"sysfs",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            c"",
        );
    }
    Ok(())
}
