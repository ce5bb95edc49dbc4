//! Which host and PID namespace this process lives in, and the right of others to read it; knows no transport.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::TransferError;

/// A kernel since its boot, seen from one PID namespace: equal on both sides when process ids mean the same there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// The kernel's random boot id.
    pub(crate) boot: String,
    /// The inode of the PID namespace.
    pub(crate) pid_namespace: u64,
}

impl Host {
    pub(crate) fn here() -> Result<Self, TransferError> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|error| TransferError::system("read the boot id", &error))?;
        let namespace = fs::metadata("/proc/self/ns/pid")
            .map_err(|error| TransferError::system("read the PID namespace", &error))?;
        Ok(Self { boot: boot.trim().to_owned(), pid_namespace: namespace.ino() })
    }
}
