//! Format of a file of packed weights: header, sections, index; knows no directory and no other process.
//!
//! ```text
//! 0          header: 72 bytes, little-endian, see `Header`
//! 64 Ki      sections, each at a multiple of 64 Ki, in the byte order of the machine
//! ...        index: JSON, one entry per matrix
//! ```
//!
//! The file is written in whole huge pages, so that file systems that can will hold it in such pages: with small pages,
//! address translation limits how fast weights are read.
//!
//! Everything is checked before use: the header by its own checksum, then the length of the file, then index and
//! sections by their checksums. Checking a section also reads it into memory.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use kernels::memory::MappedFile;
use kernels::{MatrixImage, Pool};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::sections::Sections;
use super::{CacheFault, CacheKey};
use crate::{Phase, Progress};

/// Version of this format. The layout inside the sections is not covered: its fingerprint is part of the key.
pub(super) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"BatonWts";
/// Alignment of sections: no system has larger base pages, so every section can be mapped by itself.
const ALIGN: u64 = 64 << 10;
/// Unit of writing: writes begin at a multiple of it and are several of it long.
const HUGE_PAGE_BYTES: usize = 2 << 20;

static PADDING: [u8; ALIGN as usize] = [0; ALIGN as usize];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    key: u128,
    index_start: u64,
    index_bytes: u64,
    index_checksum: u64,
    file_bytes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    name: String,
    form: Vec<u64>,
    sections: Vec<Section>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Section {
    start: u64,
    bytes: u64,
    xxh3: u64,
}

impl Header {
    const BYTES: usize = 72;

    fn encode(self) -> [u8; Header::BYTES] {
        let mut bytes = [0; Header::BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.key.to_le_bytes());
        let numbers = [self.index_start, self.index_bytes, self.index_checksum, self.file_bytes];
        for (place, number) in bytes[32..64].as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *place = number.to_le_bytes();
        }
        let checksum = xxh3_64(&bytes[..64]);
        bytes[64..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Header of a file of this version, or what is wrong with it.
    fn decode(file: &[u8]) -> Result<Header, String> {
        let Some(bytes) = file.first_chunk::<{ Header::BYTES }>() else {
            return Err(format!("is {} bytes long, a header takes {}", file.len(), Header::BYTES));
        };
        let number = |at: usize| bytes[at..].first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw));
        if bytes[..8] != MAGIC || bytes[8..12] != VERSION.to_le_bytes() {
            return Err("is no file of packed weights of this version".to_owned());
        }
        if number(64) != xxh3_64(&bytes[..64]) {
            return Err("has a header that contradicts its checksum".to_owned());
        }
        Ok(Header {
            key: u128::from(number(24)) << 64 | u128::from(number(16)),
            index_start: number(32),
            index_bytes: number(40),
            index_checksum: number(48),
            file_bytes: number(56),
        })
    }
}

pub(super) struct Writer {
    file: File,
    path: PathBuf,
    key: CacheKey,
    entries: Vec<Entry>,
    /// Bytes already in the file, a multiple of a huge page.
    written: u64,
    /// Bytes not yet written, less than a huge page.
    pending: Vec<u8>,
}

impl Writer {
    /// Truncates an open file and starts to write it.
    pub(super) fn new(file: File, path: PathBuf, key: CacheKey) -> Result<Writer, CacheFault> {
        file.set_len(0).map_err(|error| unusable(&path, &error))?;
        // Room for the header, which is written last.
        let pending = vec![0; ALIGN as usize];
        Ok(Writer { file, path, key, entries: Vec::new(), written: 0, pending })
    }

    /// Appends a matrix and maps it. The end of the mapping may read as zeros until more is appended, so what is made
    /// of it may be kept but not yet used.
    pub(super) fn put(&mut self, name: &str, image: &MatrixImage<'_>) -> Result<Sections, CacheFault> {
        let first = self.end();
        let mut sections = Vec::with_capacity(image.sections.len());
        for bytes in &image.sections {
            sections.push(Section { start: self.end(), bytes: bytes.len() as u64, xxh3: xxh3_64(bytes) });
            self.append(bytes)?;
            self.append(&PADDING[..(self.end().next_multiple_of(ALIGN) - self.end()) as usize])?;
        }
        self.file.set_len(self.end()).map_err(|error| unusable(&self.path, &error))?;
        let last = sections.last().map_or(first, |section| section.start + section.bytes);
        let file = MappedFile::range(&self.file, first..last).map_err(|error| unusable(&self.path, &error))?;
        let ranges = sections.iter().map(|section| range(section, first)).collect();
        self.entries.push(Entry { name: name.to_owned(), form: image.form.clone(), sections });
        Ok(Sections { form: image.form.clone(), file: Arc::new(file), ranges })
    }

    /// Writes index and header, and returns the length of the file.
    pub(super) fn finish(mut self) -> Result<u64, CacheFault> {
        let index = serde_json::to_vec(&self.entries).map_err(|error| self.damaged(error.to_string()))?;
        let header = Header {
            key: self.key.digest,
            index_start: self.end(),
            index_bytes: index.len() as u64,
            index_checksum: xxh3_64(&index),
            file_bytes: self.end() + index.len() as u64,
        };
        self.append(&index)?;
        self.write(&self.pending, self.written)?;
        self.write(&header.encode(), 0)?;
        Ok(header.file_bytes)
    }

    pub(super) fn damaged(&self, problem: String) -> CacheFault {
        CacheFault::Damaged { path: self.path.clone(), problem }
    }

    /// Offset of the next byte.
    fn end(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// Appends bytes; the last of them wait until they fill a huge page.
    fn append(&mut self, bytes: &[u8]) -> Result<(), CacheFault> {
        let (head, rest) = bytes.split_at(bytes.len().min(HUGE_PAGE_BYTES - self.pending.len()));
        self.pending.extend_from_slice(head);
        if self.pending.len() < HUGE_PAGE_BYTES {
            return Ok(());
        }
        self.write(&self.pending, self.written)?;
        self.written += HUGE_PAGE_BYTES as u64;
        let (pages, tail) = rest.split_at(rest.len() / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES);
        self.write(pages, self.written)?;
        self.written += pages.len() as u64;
        self.pending.clear();
        self.pending.extend_from_slice(tail);
        Ok(())
    }

    fn write(&self, bytes: &[u8], start: u64) -> Result<(), CacheFault> {
        self.file.write_all_at(bytes, start).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CacheFault::Full {
                path: self.path.clone(),
                needed_bytes: self.key.bytes.max(start + bytes.len() as u64),
                missing_bytes: self.key.bytes.saturating_sub(start).max(bytes.len() as u64),
            },
            _ => unusable(&self.path, &error),
        })
    }
}

/// A file that was found, and whose checksums are right.
pub(super) struct Stored {
    path: PathBuf,
    file: Arc<MappedFile>,
    entries: BTreeMap<String, VecDeque<Entry>>,
}

impl Stored {
    /// Maps and checks the file at `path` on all threads of `pool`; `None` if there is no file.
    pub(super) fn open(
        path: &Path,
        key: CacheKey,
        (pool, progress): (&Pool, &Progress),
    ) -> Result<Option<Stored>, CacheFault> {
        // Opening a pipe without a writer would never return.
        let foreign = std::fs::metadata(path).is_ok_and(|there| !there.is_file());
        if foreign {
            return Err(unusable(path, &io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(path, &error)),
        };
        let mapped = MappedFile::whole(&file).map_err(|error| unusable(path, &error))?;
        let damaged = |problem: String| CacheFault::Damaged { path: path.to_path_buf(), problem };
        let entries = index(mapped.as_bytes(), key).map_err(damaged)?;
        mapped.want_huge_pages();
        check_sections(mapped.as_bytes(), &entries, (pool, progress)).map_err(damaged)?;
        // Marks the file as in use for `Place::sweep`. On a read-only disk there is no sweep.
        let _unchanged_on_a_read_only_disk = file.set_modified(SystemTime::now());
        let mut by_name: BTreeMap<String, VecDeque<Entry>> = BTreeMap::new();
        for entry in entries {
            by_name.entry(entry.name.clone()).or_default().push_back(entry);
        }
        Ok(Some(Stored { path: path.to_path_buf(), file: Arc::new(mapped), entries: by_name }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> u64 {
        self.file.as_bytes().len() as u64
    }

    /// Takes the next matrix of this name.
    pub(super) fn take(&mut self, name: &str) -> Option<Sections> {
        let entry = self.entries.get_mut(name)?.pop_front()?;
        let ranges = entry.sections.iter().map(|section| range(section, 0)).collect();
        Some(Sections { form: entry.form, file: Arc::clone(&self.file), ranges })
    }

    pub(super) fn damaged(&self, problem: String) -> CacheFault {
        CacheFault::Damaged { path: self.path.clone(), problem }
    }
}

/// Index of a file, after its header and length are checked.
fn index(file: &[u8], key: CacheKey) -> Result<Vec<Entry>, String> {
    let header = Header::decode(file)?;
    if header.key != key.digest {
        return Err(format!("has the key {:032x}, not {:032x}", header.key, key.digest));
    }
    if header.file_bytes != file.len() as u64 {
        return Err(format!("is {} bytes long, its header says {}", file.len(), header.file_bytes));
    }
    let bytes = slice(file, header.index_start, header.index_bytes).ok_or("has an index that lies outside of it")?;
    if xxh3_64(bytes) != header.index_checksum {
        return Err("has an index that contradicts its checksum".to_owned());
    }
    serde_json::from_slice(bytes).map_err(|error| format!("has an index that cannot be read: {error}"))
}

fn check_sections(file: &[u8], entries: &[Entry], (pool, progress): (&Pool, &Progress)) -> Result<(), String> {
    let sections: Vec<(&str, &Section)> =
        entries.iter().flat_map(|entry| entry.sections.iter().map(|section| (entry.name.as_str(), section))).collect();
    progress.begins(Phase::Checking, sections.iter().map(|(_, section)| section.bytes).sum());
    let first_wrong = AtomicUsize::new(usize::MAX);
    let checked = pool.run("packed weights", sections.len(), &|index| {
        let (_, section) = sections[index];
        let is_right = slice(file, section.start, section.bytes).is_some_and(|bytes| xxh3_64(bytes) == section.xxh3);
        if !is_right {
            first_wrong.fetch_min(index, Ordering::Relaxed);
        }
        progress.advance(section.bytes);
    });
    checked.map_err(|error| error.to_string())?;
    match sections.get(first_wrong.into_inner()) {
        None => Ok(()),
        Some((name, _)) => Err(format!("has bytes of {name} that contradict their checksum")),
    }
}

fn slice(file: &[u8], start: u64, bytes: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    file.get(start..start.checked_add(usize::try_from(bytes).ok()?)?)
}

/// Range of a section in a mapping that begins at `base` of the file. Both fit, because the mapping holds the section.
fn range(section: &Section, base: u64) -> Range<usize> {
    let start = (section.start - base) as usize;
    start..start + section.bytes as usize
}

pub(super) fn unusable(path: &Path, error: &io::Error) -> CacheFault {
    CacheFault::Unusable { path: path.to_path_buf(), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written_and_no_bit_of_it_may_change() {
        let header = Header { key: 1 << 100 | 5, index_start: 7, index_bytes: 8, index_checksum: 9, file_bytes: 10 };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        for bit in 0..8 * bytes.len() {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&changed).is_err(), "bit {bit}");
        }
        assert_eq!(Header::decode(&bytes[..71]), Err("is 71 bytes long, a header takes 72".to_owned()));
    }

    #[test]
    fn sections_outside_of_a_file_are_not_read() {
        for (start, bytes) in [(0, 11), (11, 0), (5, 6), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX)] {
            assert_eq!(slice(&[0; 10], start, bytes), None, "{start} {bytes}");
        }
        assert_eq!(slice(&[0; 10], 10, 0), Some(&[][..]));
    }
}
