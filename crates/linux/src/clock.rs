//! The two clocks.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot, time asleep included; only goes forward (`CLOCK_BOOTTIME`).
pub fn boot_clock() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// [`boot_clock`] as the core's `Instant`.
pub fn now() -> ipsec::Instant {
    ipsec::Instant::from_nanos(boot_clock())
}

/// Seconds since 1970-01-01 UTC; can jump. For certificate dates and for people.
pub fn unix_now() -> u64 {
    u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or(0)
}

/// Nanoseconds since 1970-01-01 UTC; can jump. For captures.
pub fn unix_nanos() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time that this thread has used.
pub fn thread_cpu() -> std::time::Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    std::time::Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Whether the kernel holds the clock of [`unix_now`] for right: something (NTP, a hypervisor) has set it lately.
/// `None` where it may not be asked.
pub fn is_synchronised() -> Option<bool> {
    // STA_UNSYNC of <linux/timex.h>.
    const UNSYNCHRONISED: i32 = 0x40;
    crate::sys::clock_state().ok().map(|(_, status)| status & UNSYNCHRONISED == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_clock_goes_forward() {
        let before = boot_clock();
        assert!(before > 0 && boot_clock() >= before);
    }

    #[test]
    fn unix_time_is_after_2025() {
        assert!(unix_now() > 1_735_689_600);
    }
}
