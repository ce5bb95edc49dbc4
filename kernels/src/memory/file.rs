//! A regular file, mapped for reading; knows nothing of what is in it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::mapping::Mapping;

/// A read-only mapping of a whole file, for weights: its pages are shared with every process that maps it.
///
/// The file must stay as it is while it is mapped, as the files of a model do: a file that another process shortens
/// kills its reader with SIGBUS.
#[derive(Debug)]
pub struct MappedFile {
    /// `None` for an empty file, which cannot be mapped.
    mapping: Option<Mapping>,
}

// SAFETY: a mapping is not tied to the thread that made it, and this one is never written.
unsafe impl Send for MappedFile {}
// SAFETY: see `Send`; concurrent reads of bytes that nobody writes are fine.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let bytes = usize::try_from(metadata.len()).map_err(io::Error::other)?;
        let mapping = match bytes {
            0 => None,
            bytes => Some(Mapping::read_only(file.as_fd(), bytes).map_err(io::Error::other)?),
        };
        Ok(MappedFile { mapping })
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
            assert_eq!(MappedFile::open(&path).unwrap().as_bytes(), content);
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(MappedFile::open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(MappedFile::open(&std::env::temp_dir()).is_err());
    }
}
