//! Memory that a process leaves to a child: the memfd stays open across exec. Knows nothing of its contents.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::FdFlags;

use super::{Backing, HostMemory, MemoryError, mapping};

/// Lets the child of `command` use `memory`; returns the number to give to [`HostMemory::inherit`] there.
///
/// The memory is freed only after the command is dropped, which keeps the descriptor.
pub fn bequeath(command: &mut Command, memory: &HostMemory) -> io::Result<RawFd> {
    let Some(fd) = memory.fd().filter(|_| memory.backing() == Backing::Bequeathed) else {
        let what = "this memory was not made to be left to another process";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    };
    let fd = fd.try_clone_to_owned()?;
    let number = fd.as_raw_fd();
    let keep_open = move || Ok(rustix::io::fcntl_setfd(&fd, FdFlags::empty())?);
    // SAFETY: between fork and exec the closure only makes one system call on a descriptor that it owns.
    unsafe { command.pre_exec(keep_open) };
    Ok(number)
}

/// Takes over a bequeathed descriptor, which children of this process do not get.
pub(super) fn take(number: RawFd, wanted_bytes: usize) -> Result<OwnedFd, MemoryError> {
    if number < 0 {
        return Err(MemoryError::NotSealed { wanted_bytes });
    }
    // SAFETY: borrowed for one query; a number that is not open is answered with an error.
    if !mapping::cannot_shrink(unsafe { BorrowedFd::borrow_raw(number) }) {
        return Err(MemoryError::NotSealed { wanted_bytes });
    }
    // SAFETY: a sealed memfd at a number that the parent process named is the one it left here, and nobody else in this
    // process knows the number.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(MemoryError::of("fcntl(F_SETFD)", wanted_bytes))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Environment variable with the number, for the child below.
    const NUMBER: &str = "BATON_TEST_BEQUEATHED";
    const BYTES: usize = 10_000;

    /// Not a test, but the child process of the test below.
    #[test]
    fn heir() {
        let Ok(number) = std::env::var(NUMBER) else { return };
        let memory = HostMemory::inherit(number.parse().unwrap(), BYTES).unwrap();
        // SAFETY: the mapping has so many bytes, and the parent waits for this process to end.
        unsafe { memory.as_ptr().add(BYTES - 1).write(77) };
    }

    #[test]
    fn a_child_writes_what_its_parent_reads() {
        let memory = HostMemory::new(BYTES, Backing::Bequeathed).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let number = bequeath(&mut command, &memory).unwrap();
        command.args(["memory::inherit::tests::heir", "--exact", "--quiet"]).env(NUMBER, number.to_string());
        assert!(command.output().unwrap().status.success());
        // SAFETY: the mapping has so many bytes, and the writer has ended.
        assert_eq!(unsafe { memory.as_ptr().add(BYTES - 1).read() }, 77);
    }

    #[test]
    fn only_sealed_memory_is_inherited() {
        assert!(HostMemory::inherit(-1, 1).is_err());
        assert!(HostMemory::inherit(100_000, 1).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(HostMemory::inherit(file.as_raw_fd(), 1).is_err());
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let memory = HostMemory::new(1, backing).unwrap();
            assert!(bequeath(&mut Command::new("true"), &memory).is_err());
        }
    }
}
