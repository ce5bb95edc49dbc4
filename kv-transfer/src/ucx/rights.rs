//! Checks that the kernel lets this process read a peer on this host: UCX would only say "input/output error".

use std::io;

use sched::InstanceId;

use super::Paths;
use super::address::Address;
use crate::host::Host;
use crate::ucx_tls::{self, UcxReach};
use crate::{TransferError, TransportKind, probe};

/// Reads the first bytes of the peer's page by the system call that cross-memory attach uses.
pub(super) fn check(address: &Address, expected: InstanceId, here: &Host, paths: &Paths) -> Result<(), TransferError> {
    if address.host != *here {
        return match paths.reach {
            UcxReach::OneHost => Err(TransferError::OtherHost { kind: TransportKind::Ucx }),
            UcxReach::Fabric => Ok(()),
        };
    }
    if !ucx_tls::attaches(&paths.tls) {
        return Ok(());
    }
    let wanted = probe::header(expected);
    let mut found = [0_u8; probe::HEADER_BYTES];
    match read(address.pid, address.page.base, &mut found) {
        Ok(read) if read == found.len() && found == wanted => Ok(()),
        Ok(_) => Err(TransferError::WrongInstance { expected }),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::EPERM) => TransferError::NotPermitted { pid: address.pid },
            Some(libc::ESRCH) => TransferError::lost("connect", format!("process {} is gone", address.pid)),
            // Another process has that process id now.
            Some(libc::EFAULT) => TransferError::WrongInstance { expected },
            Some(_) | None => TransferError::system("read the peer's memory", &error),
        }),
    }
}

fn read(pid: u32, address: u64, to: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: to.len() };
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: the local part is a live buffer; the remote part is checked by the kernel in the other process.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}
