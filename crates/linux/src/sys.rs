//! System calls without a safe wrapper, one function each.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

use crate::errno::Errno;
use crate::filter::Step;

/// `setsockopt(2)` with a value of plain bytes.
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &[u8],
) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the pointer and the length are those of one live slice, which the kernel only reads.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    Errno::result(result).map(drop)
}

/// `setsockopt(2)` with an `int`.
pub(crate) fn set_option_int(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: i32,
) -> Result<(), Errno> {
    set_option(fd, level, name, &value.to_ne_bytes())
}

/// `getsockopt(2)` into `value`; how many bytes of it the kernel wrote.
pub(crate) fn get_option(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &mut [u8],
) -> Result<usize, Errno> {
    let mut len = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the pointer and the length are those of one live exclusive slice; any bytes are valid in it.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len)
    };
    Errno::result(result)?;
    Ok(usize::try_from(len).unwrap_or(0).min(value.len()))
}

/// `bind(2)` to a socket address given as its bytes.
pub(crate) fn bind(fd: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(address.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the pointer and the length are those of one live slice, which the kernel copies byte by byte.
    let result = unsafe { libc::bind(fd.as_raw_fd(), address.as_ptr().cast(), len) };
    Errno::result(result).map(drop)
}

/// `SO_ATTACH_FILTER`: the socket gets only what the program takes.
pub(crate) fn attach_filter(fd: BorrowedFd<'_>, steps: &[Step]) -> Result<(), Errno> {
    let mut steps: Vec<libc::sock_filter> = steps
        .iter()
        .map(|s| libc::sock_filter { code: s.code, jt: s.yes, jf: s.no, k: s.k })
        .collect();
    let len = u16::try_from(steps.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len, filter: steps.as_mut_ptr() };
    // SAFETY: `program` and the steps that it points to live until the call returns; the kernel copies both, checks
    // every step, and writes to neither.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// `mallinfo2(3)`: bytes in use, in the arenas and mapped.
#[cfg(target_env = "gnu")]
pub(crate) fn heap_in_use() -> Option<usize> {
    // SAFETY: takes nothing and returns a plain structure by value; the C library locks its arenas itself.
    let info = unsafe { libc::mallinfo2() };
    Some(info.uordblks + info.hblkhd)
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn heap_in_use() -> Option<usize> {
    None
}

/// `malloc_trim(3)`.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: takes a number; it touches nothing but free memory of the C library, which locks its arenas itself.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}

/// Size of `struct ifreq`.
pub(crate) const IFREQ_LEN: usize = std::mem::size_of::<libc::ifreq>();

/// `ioctl(fd, TUNSETIFF, ifreq)`: `ifreq` comes back with the device's name.
pub(crate) fn tun_set_iff(fd: BorrowedFd<'_>, ifreq: &mut [u8; IFREQ_LEN]) -> Result<(), Errno> {
    // SAFETY: TUNSETIFF reads and writes at most one `struct ifreq`, which is the length of the array;
    // all its fields are plain bytes and the kernel copies it without regard to alignment.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, ifreq.as_mut_ptr()) };
    Errno::result(result).map(drop)
}

/// `ioctl(fd, TUNGETIFF, ifreq)`: `ifreq` comes back with the device's name and flags.
pub(crate) fn tun_get_iff(fd: BorrowedFd<'_>, ifreq: &mut [u8; IFREQ_LEN]) -> Result<(), Errno> {
    // SAFETY: TUNGETIFF writes at most one `struct ifreq`, which is the length of the array; all its fields are plain
    // bytes. On any other kind of file the number is refused, or unknown.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, ifreq.as_mut_ptr()) };
    Errno::result(result).map(drop)
}

/// `ioctl(fd, TUNSETPERSIST, on)`.
pub(crate) fn tun_set_persist(fd: BorrowedFd<'_>, on: bool) -> Result<(), Errno> {
    // SAFETY: TUNSETPERSIST takes an integer and no pointer.
    let result =
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETPERSIST, libc::c_ulong::from(on)) };
    Errno::result(result).map(drop)
}

/// `adjtimex(2)` that only asks: the clock's state and status bits.
pub(crate) fn clock_state() -> Result<(i32, i32), Errno> {
    // SAFETY: `struct timex` is plain integers, for which zero is a value; `modes` 0 changes nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to one live exclusive `struct timex`, which the kernel fills in.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    Errno::result(state).map(|state| (state, timex.status))
}

/// `ioctl(fd, TUNSETOFFLOAD, flags)`.
pub(crate) fn tun_set_offload(fd: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
    // SAFETY: TUNSETOFFLOAD takes an integer and no pointer.
    let result =
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) };
    Errno::result(result).map(drop)
}

/// `ioctl(fd, TUNSETVNETHDRSZ, &length)`.
pub(crate) fn tun_set_header_len(fd: BorrowedFd<'_>, length: i32) -> Result<(), Errno> {
    // SAFETY: TUNSETVNETHDRSZ reads one `int` behind the pointer, which lives as long as the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const length) };
    Errno::result(result).map(drop)
}
