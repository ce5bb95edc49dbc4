//! Host and PID namespace of this process, and the right of other processes to read it; knows no transport.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::TransferError;

/// One boot of a kernel and one PID namespace. Equal ones give a process id the same meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) boot: String,
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

/// Lets the descendants of `supervisor` read this process's memory, which cross-memory attach needs on kernels with
/// Yama: its scope 1 admits one declared process with its descendants (prctl(2), `PR_SET_PTRACER`). Each call replaces
/// the last. Kernels without Yama need no permission and refuse the declaration, which counts as success.
pub fn allow_readers(supervisor: u32) -> Result<(), TransferError> {
    // A process that changed its user is not dumpable, so processes of the same user could not read it.
    // SAFETY: sets an attribute of this process.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) } != 0 {
        return Err(TransferError::system("make this process readable", &std::io::Error::last_os_error()));
    }
    // SAFETY: sets an attribute of this process.
    if unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::c_ulong::from(supervisor), 0, 0, 0) } != 0 {
        let error = std::io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(TransferError::system("admit readers of this process", &error));
        }
    }
    Ok(())
}
