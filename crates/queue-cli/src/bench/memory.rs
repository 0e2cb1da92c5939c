//! The memory of this process.

use std::fs;

/// The most memory that this process has held at once since it started, or since [`forget_peak`].
pub(super) fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    read(&status)
}

/// Begins to look for the peak anew.
pub(super) fn forget_peak() {
    // Where the kernel does not let it, the peak of before is told: never too little.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn read(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read() {
        assert_eq!(read("Name:\tqueue\nVmHWM:\t    5544 kB\nVmRSS:\t 1 kB\n"), Some(5_677_056));
        assert_eq!(read("Name:\tqueue\n"), None);
    }
}
