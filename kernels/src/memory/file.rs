//! A regular file mapped for reading; knows nothing of its contents.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::mapping::Mapping;

/// A read-only mapping of a whole file, for weights: its pages are shared with every process that maps it.
///
/// The file must not change while it is mapped: if another process shortens it, readers are killed with SIGBUS.
#[derive(Debug)]
pub struct MappedFile {
    /// `None` for an empty file, which cannot be mapped.
    mapping: Option<Mapping>,
}

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        // Without this flag, opening a pipe without a writer would block for ever.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        MappedFile::whole(&file)
    }

    /// Maps an open file.
    pub fn whole(file: &File) -> io::Result<MappedFile> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        MappedFile::range(file, 0..metadata.len())
    }

    /// Maps a range of an open file. The range begins at a multiple of the page size and lies inside the file.
    pub fn range(file: &File, range: Range<u64>) -> io::Result<MappedFile> {
        let file_bytes = file.metadata()?.len();
        if range.start > range.end || range.end > file_bytes {
            let what = format!("bytes {range:?} of a file of {file_bytes}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        let bytes = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mapping = match bytes {
            0 => None,
            bytes => Some(Mapping::read_only(file.as_fd(), range.start, bytes).map_err(io::Error::other)?),
        };
        Ok(MappedFile { mapping })
    }

    /// Asks for huge pages, before any page is touched. File systems that can then read and map whole huge pages;
    /// others use small ones.
    pub fn want_huge_pages(&self) {
        self.mapping.iter().for_each(Mapping::advise_huge_pages);
    }

    /// Drops the pages that lie wholly in `range`: they no longer count for this process, and come back from the page
    /// cache or the disk when they are read again.
    pub fn forget(&self, range: Range<usize>) {
        self.mapping.iter().for_each(|mapping| mapping.forget(range.clone()));
    }

    /// The bytes of the file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.mapping {
            None => &[],
            // SAFETY: the mapping is readable for its whole length as long as `self` lives, is never written through
            // this process, and its contract asks that nobody else writes the file.
            Some(mapping) => unsafe { std::slice::from_raw_parts(mapping.as_ptr(), mapping.len()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_seen_as_it_is() {
        let path = std::env::temp_dir().join(format!("baton-mapped-file-{}", std::process::id()));
        for content in [&b""[..], b"weights", &[7; 10_000]] {
            std::fs::write(&path, content).unwrap();
            let mapped = MappedFile::open(&path).unwrap();
            assert_eq!(mapped.as_bytes(), content);
            mapped.want_huge_pages();
            mapped.forget(0..content.len());
            mapped.forget(1..usize::MAX);
            assert_eq!(mapped.as_bytes(), content);
        }
        let file = File::open(&path).unwrap();
        assert_eq!(MappedFile::range(&file, 4096..10_000).unwrap().as_bytes(), &[7; 10_000 - 4096]);
        assert!(MappedFile::range(&file, 1..2).is_err(), "no page begins at 1");
        for (start, end) in [(0, 10_001), (9_000, 8_000), (20_000, 20_001)] {
            assert_eq!(MappedFile::range(&file, start..end).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(MappedFile::open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(MappedFile::open(&std::env::temp_dir()).is_err());
    }
}
