//! Host memory that several threads and processes may use at once; knows nothing of its contents.

mod disk;
mod error;
mod file;
mod inherit;
mod mapping;
mod peer;
mod region;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use disk::free_disk_bytes;
pub use error::MemoryError;
pub use file::MappedFile;
pub use inherit::bequeath;
use mapping::{Mapping, Writers};
pub use peer::PeerMemory;
pub use region::{DeviceMemory, Region, RegionKind};

/// Kind of pages behind a [`HostMemory`]; the transport that serves them decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Private anonymous pages, with huge pages where the kernel grants them (UCX, TCP, in-process).
    Anonymous,
    /// A sealed memfd that another process of this host can map to read (shared memory).
    Memfd,
    /// A memfd that child processes map to read and write ([`bequeath`]).
    Bequeathed,
}

/// A page-aligned, zero-filled, readable and writable mapping that lives as long as the last `Arc` of it.
///
/// # Shared mutability
///
/// The mapping is plain memory without locks. [`HostMemory::as_ptr`] may be used from any thread; callers must keep
/// concurrent accesses disjoint. The writer of a range must be the only user until something that synchronises (a
/// channel, a join, an acknowledged message) has handed the range over. Rust references may cover only ranges that
/// nobody writes meanwhile. Other processes may read a served range at any time; from a range that is being written
/// they read unspecified bytes, which is not undefined behaviour.
#[derive(Debug)]
pub struct HostMemory {
    mapping: Mapping,
    backing: Backing,
    fd: Option<OwnedFd>,
}

impl HostMemory {
    /// Maps `bytes` bytes of zeroes, rounded up to whole pages.
    pub fn new(bytes: usize, backing: Backing) -> Result<Self, MemoryError> {
        if bytes == 0 {
            return Err(MemoryError::Empty);
        }
        match backing {
            Backing::Anonymous => {
                let mapping = Mapping::anonymous(bytes)?;
                Ok(Self { mapping, backing, fd: None })
            }
            Backing::Memfd => Self::memfd(bytes, backing, Writers::Nobody),
            Backing::Bequeathed => Self::memfd(bytes, backing, Writers::Holders),
        }
    }

    fn memfd(bytes: usize, backing: Backing, writers: Writers) -> Result<Self, MemoryError> {
        let (fd, mapping) = mapping::sealed_memfd(bytes, writers)?;
        Ok(Self { mapping, backing, fd: Some(fd) })
    }

    /// Maps the memory that the parent process has bequeathed under `number` ([`bequeath`]), readable and writable in
    /// both. Refused unless the number is a sealed memfd of at least `bytes` bytes.
    pub fn inherit(number: i32, bytes: usize) -> Result<Self, MemoryError> {
        if bytes == 0 {
            return Err(MemoryError::Empty);
        }
        let fd = inherit::take(number, bytes)?;
        mapping::holds(fd.as_fd(), bytes)?;
        let mapping = Mapping::shared(fd.as_fd(), bytes)?;
        Ok(Self { mapping, backing: Backing::Bequeathed, fd: Some(fd) })
    }

    /// First byte, aligned to a page, or to 2 MiB if the mapping is at least that long.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr()
    }

    /// Length in bytes, as requested.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Kind of pages.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// The memfd to pass to a reader; `None` for anonymous memory.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(memory: &HostMemory, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= memory.len());
        // SAFETY: the range was just checked and no other thread knows the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.as_ptr().add(offset), bytes.len()) };
    }

    #[test]
    fn memory_is_zero_filled_and_page_aligned() {
        for backing in [Backing::Anonymous, Backing::Memfd, Backing::Bequeathed] {
            for bytes in [1, 4096, 3 << 20] {
                let memory = HostMemory::new(bytes, backing).unwrap();
                assert_eq!(memory.len(), bytes);
                assert_eq!(memory.as_ptr() as usize % 4096, 0);
                // SAFETY: the mapping is `bytes` long and nobody writes it.
                let all = unsafe { std::slice::from_raw_parts(memory.as_ptr(), bytes) };
                assert!(all.iter().all(|byte| *byte == 0), "{backing:?} {bytes}");
            }
        }
    }

    #[test]
    fn a_peer_sees_what_the_owner_writes() {
        let memory = HostMemory::new(10_000, Backing::Memfd).unwrap();
        let fd = memory.fd().unwrap().try_clone_to_owned().unwrap();
        let peer = PeerMemory::open(fd, 10_000).unwrap();
        write(&memory, 9_990, b"last bytes");
        let mut read = [0; 10];
        // SAFETY: the peer's mapping is 10,000 bytes long and the writer is done.
        unsafe { std::ptr::copy_nonoverlapping(peer.as_ptr().add(9_990), read.as_mut_ptr(), 10) };
        assert_eq!(&read, b"last bytes");
    }

    #[test]
    fn a_memfd_cannot_shrink_under_a_reader() {
        let memory = HostMemory::new(8192, Backing::Memfd).unwrap();
        let file = std::fs::File::from(memory.fd().unwrap().try_clone_to_owned().unwrap());
        assert!(file.set_len(4096).is_err());
    }

    /// Found by trying: a descriptor that can only be read was opened again through /proc, to write.
    #[test]
    fn a_reader_cannot_write_whatever_it_opens() {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::FileExt;

        let memory = HostMemory::new(8192, Backing::Memfd).unwrap();
        let again = format!("/proc/self/fd/{}", memory.fd().unwrap().as_raw_fd());
        let file = std::fs::File::options().read(true).write(true).open(again).unwrap();
        assert!(file.write_at(b"x", 0).is_err());
        assert!(Mapping::shared(file.as_fd(), 8192).is_err());
        assert!(PeerMemory::open(file.into(), 8192).is_ok());
        write(&memory, 0, b"the owner still writes");
    }

    #[test]
    fn bad_requests_name_the_bytes_wanted() {
        assert_eq!(HostMemory::new(0, Backing::Anonymous).unwrap_err().to_string(), "map of 0 bytes of host memory");
        let error = HostMemory::new(usize::MAX / 4, Backing::Anonymous).unwrap_err();
        assert!(error.to_string().contains(&(usize::MAX / 4).to_string()), "{error}");
    }

    #[test]
    fn a_peer_refuses_files_that_could_shrink_or_are_too_short() {
        let unsealed = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(matches!(PeerMemory::open(unsealed.into(), 100).unwrap_err(), MemoryError::NotSealed { .. }));
        let memory = HostMemory::new(4096, Backing::Memfd).unwrap();
        let fd = memory.fd().unwrap().try_clone_to_owned().unwrap();
        let error = PeerMemory::open(fd, 1 << 20).unwrap_err();
        assert!(matches!(error, MemoryError::TooShort { wanted_bytes: 1_048_576, has_bytes: 4096 }), "{error}");
    }
}
