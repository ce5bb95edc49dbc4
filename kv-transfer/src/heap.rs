//! Returns freed memory to the system; knows nothing of transports.

/// Returns free pages of the C library's heaps to the system; the library itself keeps them for later allocations, in
/// as many heaps as threads allocated at once. Takes milliseconds; only the GNU C library has it.
pub fn give_heap_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` takes the allocator's own locks and touches free pages only.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn freed_memory_goes_back() {
        // Small pieces, and the last one stays: the heap cannot shrink by itself.
        let mut pieces: Vec<Box<[u8; 1024]>> = (0..64 << 10).map(|_| Box::new([1; 1024])).collect();
        let last = pieces.pop();
        let full = resident_kib();
        drop(pieces);
        give_heap_back();
        let after = resident_kib();
        assert!(full > after + (32 << 10), "{full} KiB before, {after} KiB after");
        drop(last);
    }
}
