//! A range of the address space, unmapped when dropped, with all system calls of this folder.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::null_mut;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use rustix::param::page_size;

use super::MemoryError;

const HUGE_PAGE_BYTES: usize = 2 << 20;

#[derive(Debug)]
pub(super) struct Mapping {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: a mapping is not tied to the thread that made it. Its pointer is only handed out; the types that own mappings
// document who may read and write through it.
unsafe impl Send for Mapping {}
// SAFETY: see `Send`; no method of `&Mapping` itself reads or writes the mapped bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps private zero pages, readable and writable.
    pub(super) fn anonymous(bytes: usize) -> Result<Self, MemoryError> {
        let mapping = Self::aligned(bytes, ProtFlags::READ | ProtFlags::WRITE, None, 0)?;
        mapping.advise_huge_pages();
        Ok(mapping)
    }

    /// Maps a file's first bytes, readable and writable, shared with all who map it.
    pub(super) fn shared(fd: BorrowedFd<'_>, bytes: usize) -> Result<Self, MemoryError> {
        let mapping = Self::aligned(bytes, ProtFlags::READ | ProtFlags::WRITE, Some(fd), 0)?;
        mapping.advise_huge_pages();
        Ok(mapping)
    }

    /// Maps a file's bytes from `offset` on, a multiple of the page size, readable only.
    pub(super) fn read_only(fd: BorrowedFd<'_>, offset: u64, bytes: usize) -> Result<Self, MemoryError> {
        Self::aligned(bytes, ProtFlags::READ, Some(fd), offset)
    }

    /// Drops the whole pages in `range` of a mapped file from this process, not from the page cache.
    pub(super) fn forget(&self, range: Range<usize>) {
        let page = page_size();
        let (start, end) =
            (range.start.min(self.bytes).next_multiple_of(page), range.end.min(self.bytes) / page * page);
        if start >= end {
            return;
        }
        // SAFETY: the pages are this mapping's own, of a shared file mapping: they come back from the file with the
        // same contents when they are touched again. Pages that the system keeps cost memory only.
        let _kept = unsafe { madvise(self.start.wrapping_add(start).cast(), end - start, Advice::LinuxDontNeed) };
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.start
    }

    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Huge pages need an aligned start (for files: congruent with the file offset), so one huge page more is reserved,
    /// and the range is mapped at the aligned place in the reservation.
    fn aligned(
        bytes: usize,
        protection: ProtFlags,
        file: Option<BorrowedFd<'_>>,
        offset: u64,
    ) -> Result<Self, MemoryError> {
        let overflow = || MemoryError::of("mmap", bytes)(rustix::io::Errno::NOMEM);
        let length = bytes.checked_next_multiple_of(page_size()).ok_or_else(overflow)?;
        let spare = if length >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { 0 };
        let reserved = length.checked_add(spare).ok_or_else(overflow)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { mmap_anonymous(null_mut(), reserved, ProtFlags::empty(), flags) };
        let base = base.map_err(MemoryError::of("mmap", bytes))?.cast::<u8>();
        let head = if spare == 0 { 0 } else { base.addr().next_multiple_of(HUGE_PAGE_BYTES) - base.addr() };
        let start = base.wrapping_add(head);
        unmap(base, head);
        unmap(start.wrapping_add(length), spare - head);
        let mapping = Self { start, bytes };
        let (to, fixed) = (start.cast(), MapFlags::FIXED);
        // SAFETY: `start..start + length` is the reservation made above, which nobody else knows, so replacing it in
        // place touches no other mapping.
        let placed = unsafe {
            match file {
                Some(file) => mmap(to, length, protection, MapFlags::SHARED | fixed, file, offset),
                None => mmap_anonymous(to, length, protection, MapFlags::PRIVATE | fixed),
            }
        };
        placed.map_err(MemoryError::of("mmap", bytes))?;
        Ok(mapping)
    }

    /// Asks for huge pages, which halve the time when another process copies from here. A kernel without them refuses,
    /// which changes no result.
    pub(super) fn advise_huge_pages(&self) {
        // SAFETY: the range is this mapping's own, and the advice does not change its contents.
        let _refused = unsafe { madvise(self.start.cast(), self.bytes, Advice::LinuxHugepage) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.start, self.bytes.next_multiple_of(page_size()));
    }
}

fn unmap(start: *mut u8, bytes: usize) {
    if bytes == 0 {
        return;
    }
    // SAFETY: only ranges that this file mapped and whose owner is being dropped (or never existed) come here.
    let outcome = unsafe { munmap(start.cast(), bytes) };
    debug_assert_eq!(outcome, Ok(()), "munmap of {bytes} bytes at {start:p}");
}

/// Processes that may map a memfd to write, besides its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writers {
    /// No other process, even with the descriptor.
    Nobody,
    /// Every process that has the descriptor.
    Holders,
}

/// Makes a memfd of `bytes` zeroes that can neither shrink nor grow nor lose its seals, and maps it.
pub(super) fn sealed_memfd(bytes: usize, writers: Writers) -> Result<(OwnedFd, Mapping), MemoryError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("baton-host-memory", flags).map_err(MemoryError::of("memfd_create", bytes))?;
    ftruncate(&fd, bytes as u64).map_err(MemoryError::of("ftruncate", bytes))?;
    let mapping = Mapping::shared(fd.as_fd(), bytes)?;
    let future_writes = match writers {
        Writers::Nobody => SealFlags::FUTURE_WRITE,
        Writers::Holders => SealFlags::empty(),
    };
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL | future_writes;
    fcntl_add_seals(&fd, seals).map_err(MemoryError::of("fcntl(F_ADD_SEALS)", bytes))?;
    Ok((fd, mapping))
}

pub(super) fn holds(fd: BorrowedFd<'_>, wanted_bytes: usize) -> Result<(), MemoryError> {
    let stat = fstat(fd).map_err(MemoryError::of("fstat", wanted_bytes))?;
    let has_bytes = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if has_bytes < wanted_bytes { Err(MemoryError::TooShort { wanted_bytes, has_bytes }) } else { Ok(()) }
}

/// True if the file can never become shorter; only memfds have seals that say so.
pub(super) fn cannot_shrink(fd: BorrowedFd<'_>) -> bool {
    fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
}
