//! One range of the address space, unmapped when dropped; the system calls of the folder are all here.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

use super::MemoryError;

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// An owned range of mapped pages.
#[derive(Debug)]
pub(super) struct Mapping {
    start: *mut u8,
    bytes: usize,
}

impl Mapping {
    /// Private zero pages, readable and writable.
    pub(super) fn anonymous(bytes: usize) -> Result<Self, MemoryError> {
        let mapping = Self::aligned(bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE, None, 0)?;
        mapping.advise_huge_pages();
        Ok(mapping)
    }

    /// A file's first bytes, readable and writable, shared with everybody who maps it.
    pub(super) fn shared(fd: BorrowedFd<'_>, bytes: usize) -> Result<Self, MemoryError> {
        let mapping = Self::aligned(bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, Some(fd), 0)?;
        mapping.advise_huge_pages();
        Ok(mapping)
    }

    /// A file's bytes from `offset` on, a multiple of the page size; readable only.
    pub(super) fn read_only(fd: BorrowedFd<'_>, offset: u64, bytes: usize) -> Result<Self, MemoryError> {
        Self::aligned(bytes, libc::PROT_READ, libc::MAP_SHARED, Some(fd), offset)
    }

    /// Lets go of the whole pages in `range` of a mapped file: they leave this process, not the page cache.
    pub(super) fn forget(&self, range: Range<usize>) {
        let page = page_bytes();
        let (start, end) =
            (range.start.min(self.bytes).next_multiple_of(page), range.end.min(self.bytes) / page * page);
        if start >= end {
            return;
        }
        // SAFETY: the pages are this mapping's own; only shared file mappings are told to forget, whose pages come back
        // from the file with the same contents when they are touched again.
        unsafe { libc::madvise(self.start.wrapping_add(start).cast(), end - start, libc::MADV_DONTNEED) };
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.start
    }

    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Huge pages need a start that is aligned to them (for files: congruent with the file offset), so the range is
    /// reserved with one huge page to spare, and mapped over the reservation at the aligned place.
    fn aligned(
        bytes: usize,
        protection: libc::c_int,
        sharing: libc::c_int,
        fd: Option<BorrowedFd<'_>>,
        offset: u64,
    ) -> Result<Self, MemoryError> {
        let overflow = || MemoryError::System {
            call: "mmap",
            wanted_bytes: bytes,
            source: std::io::Error::from_raw_os_error(libc::ENOMEM),
        };
        let length = bytes.checked_next_multiple_of(page_bytes()).ok_or_else(overflow)?;
        let offset = libc::off_t::try_from(offset).map_err(|_| overflow())?;
        let spare = if length >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { 0 };
        let reserved = length.checked_add(spare).ok_or_else(overflow)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { libc::mmap(null_mut(), reserved, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(MemoryError::last("mmap", bytes));
        }
        let head = if spare == 0 { 0 } else { (base as usize).next_multiple_of(HUGE_PAGE_BYTES) - base as usize };
        let start = base.cast::<u8>().wrapping_add(head);
        unmap(base.cast(), head);
        unmap(start.wrapping_add(length), spare - head);
        let mapping = Self { start, bytes };
        let (fd, kind) = fd.map_or((-1, libc::MAP_ANONYMOUS), |fd| (fd.as_raw_fd(), 0));
        let flags = sharing | kind | libc::MAP_FIXED;
        // SAFETY: `start..start + length` is the reservation made above, which nobody else knows, so replacing it in
        // place touches no other mapping.
        let placed = unsafe { libc::mmap(start.cast(), length, protection, flags, fd, offset) };
        if placed == libc::MAP_FAILED {
            return Err(MemoryError::last("mmap", bytes));
        }
        Ok(mapping)
    }

    /// Huge pages are worth a factor of two when another process copies from here. A kernel without them refuses the
    /// advice, which changes no result, so the refusal is not an error.
    pub(super) fn advise_huge_pages(&self) {
        // SAFETY: the range is this mapping's own, and the advice does not change its contents.
        unsafe { libc::madvise(self.start.cast(), self.bytes, libc::MADV_HUGEPAGE) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.start, self.bytes.next_multiple_of(page_bytes()));
    }
}

fn unmap(start: *mut u8, bytes: usize) {
    if bytes == 0 {
        return;
    }
    // SAFETY: only ranges that this file mapped and whose owner is being dropped (or never existed) come here.
    let outcome = unsafe { libc::munmap(start.cast(), bytes) };
    debug_assert_eq!(outcome, 0, "munmap of {bytes} bytes at {start:p}");
}

fn page_bytes() -> usize {
    // SAFETY: reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

/// Who may map a memfd to write, besides the mapping that its owner makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writers {
    /// Nobody, however it comes by the descriptor.
    Nobody,
    /// Whoever has the descriptor.
    Holders,
}

/// A memfd of `bytes` zeroes that can neither shrink nor grow, nor lose its seals, and a mapping of it.
pub(super) fn sealed_memfd(bytes: usize, writers: Writers) -> Result<(OwnedFd, Mapping), MemoryError> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a NUL-terminated constant; the call makes a new descriptor and touches nothing else.
    let raw = unsafe { libc::memfd_create(c"baton-host-memory".as_ptr(), flags) };
    if raw < 0 {
        return Err(MemoryError::last("memfd_create", bytes));
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let length = libc::off_t::try_from(bytes).unwrap_or(libc::off_t::MAX);
    // SAFETY: resizes a file that only this function knows.
    if unsafe { libc::ftruncate(raw, length) } != 0 {
        return Err(MemoryError::last("ftruncate", bytes));
    }
    let mapping = Mapping::shared(fd.as_fd(), bytes)?;
    let future_writes = match writers {
        Writers::Nobody => libc::F_SEAL_FUTURE_WRITE,
        Writers::Holders => 0,
    };
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL | future_writes;
    // SAFETY: adds seals to a file that only this function knows.
    if unsafe { libc::fcntl(raw, libc::F_ADD_SEALS, seals) } != 0 {
        return Err(MemoryError::last("fcntl(F_ADD_SEALS)", bytes));
    }
    Ok((fd, mapping))
}

/// How long the file behind `fd` is.
pub(super) fn file_bytes(fd: BorrowedFd<'_>, wanted_bytes: usize) -> Result<usize, MemoryError> {
    // SAFETY: `stat` is plain numbers, for which all zeros is a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `stat` outlives the call.
    if unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) } != 0 {
        return Err(MemoryError::last("fstat", wanted_bytes));
    }
    Ok(usize::try_from(stat.st_size).unwrap_or(usize::MAX))
}

/// Whether the file behind `fd` can never become shorter.
pub(super) fn cannot_shrink(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: asks for the seals of an open descriptor; other kinds of files answer with an error.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_SHRINK != 0
}
