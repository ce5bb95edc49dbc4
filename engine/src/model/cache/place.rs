//! Location of a file of packed weights, and the lock that lets exactly one process write it; knows no format.
//!
//! A process that packs holds a lock on `KEY.vN.partial` and renames that file when it is complete. The lock ends with
//! the process; the next process starts over the file of a killed one.

use std::cell::Cell;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use kernels::memory::free_disk_bytes;

use super::file::{VERSION, Writer, unusable};
use super::{CacheFault, CacheKey};
use crate::{EngineError, Phase, Progress};

/// Files that no process has opened for this long are removed when another file is written.
const UNUSED_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time between two tries for a lock that another process holds.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Paths of the file of one key.
pub(super) struct Place {
    directory: PathBuf,
    file: PathBuf,
    partial: PathBuf,
}

/// The right to write the file of a place; given up when dropped.
pub(super) struct Claim {
    lock: File,
    file: PathBuf,
    partial: PathBuf,
    is_published: Cell<bool>,
}

impl Place {
    /// Names the paths, and makes the directory if it is missing.
    pub(super) fn new(directory: &Path, key: CacheKey) -> Result<Place, CacheFault> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| unusable(directory, &error))?;
        let path = |end: &str| directory.join(format!("{:032x}.v{VERSION}.{end}", key.digest));
        Ok(Place { directory: directory.to_path_buf(), file: path("packed"), partial: path("partial") })
    }

    /// Path of the complete file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn discard(&self) -> Result<(), CacheFault> {
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(unusable(&self.file, &error)),
            _ => Ok(()),
        }
    }

    /// Refuses a link or a pipe: others who may write to the directory must not make us overwrite a file or wait.
    fn refuse_foreign(&self) -> Result<(), CacheFault> {
        match std::fs::symlink_metadata(&self.partial) {
            Ok(there) if !there.is_file() => {
                Err(unusable(&self.partial, &std::io::Error::new(ErrorKind::InvalidInput, "not a regular file")))
            }
            // Usually there is nothing; every other problem is reported by the open.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Waits for the right to write the file, at most `wait_max` without growth; `None` if another process had it.
    pub(super) fn claim(&self, wait_max: Duration, progress: &Progress) -> Result<Option<Claim>, EngineError> {
        self.refuse_foreign()?;
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.partial);
        let lock = opened.map_err(|error| unusable(&self.partial, &error))?;
        self.lock(&lock, wait_max, progress)?;
        let claim =
            Claim { lock, file: self.file.clone(), partial: self.partial.clone(), is_published: Cell::new(false) };
        let (ours, there) = (claim.lock.metadata(), std::fs::symlink_metadata(&self.partial));
        let is_ours = ours.is_ok_and(|ours| there.is_ok_and(|there| identity(&ours) == identity(&there)));
        if !is_ours {
            // The locked file has been renamed or removed by the process that held the lock.
            claim.is_published.set(true);
            return Ok(None);
        }
        Ok(Some(claim))
    }

    fn lock(&self, file: &File, wait_max: Duration, progress: &Progress) -> Result<(), EngineError> {
        let mut written: Option<(u64, Instant)> = None;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::Error(error)) => return Err(unusable(&self.partial, &error).into()),
                Err(TryLockError::WouldBlock) => {}
            }
            progress.check()?;
            let bytes = file.metadata().map_or(0, |metadata| metadata.len());
            match written {
                None => {
                    tracing::info!(file = %self.partial.display(), "another process packs these weights: waiting");
                    progress.begins(Phase::WaitingForPacker, 0);
                    progress.advance(bytes);
                    written = Some((bytes, Instant::now()));
                }
                Some((before, _)) if bytes != before => {
                    progress.advance(bytes.saturating_sub(before));
                    written = Some((bytes, Instant::now()));
                }
                Some((_, since)) if since.elapsed() >= wait_max => {
                    return Err(CacheFault::Busy { path: self.partial.clone(), waited_s: wait_max.as_secs() }.into());
                }
                Some(_) => {}
            }
            sleep(LOCK_PAUSE);
        }
    }

    pub(super) fn require_space(&self, bytes: u64) -> Result<(), CacheFault> {
        let free = free_disk_bytes(&self.directory).map_err(|error| unusable(&self.directory, &error))?;
        if free >= bytes {
            return Ok(());
        }
        Err(CacheFault::Full { path: self.directory.clone(), needed_bytes: bytes, missing_bytes: bytes - free })
    }

    /// Removes files of older versions, files long unused, and what killed processes left.
    pub(super) fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path == self.file || path == self.partial {
                continue;
            }
            if let Some(stale) = Stale::found(&path) {
                match stale.remove(&path) {
                    Ok(()) => tracing::info!(file = %path.display(), "packed weights that nobody uses are removed"),
                    Err(error) => tracing::warn!(file = %path.display(), %error, "packed weights cannot be removed"),
                }
            }
        }
    }
}

impl Claim {
    /// Starts the file over.
    pub(super) fn writer(&self, key: CacheKey) -> Result<Writer, CacheFault> {
        let file = self.lock.try_clone().map_err(|error| unusable(&self.partial, &error))?;
        Writer::new(file, self.partial.clone(), key)
    }

    /// Renames the complete file to its final name. After that nobody may write it.
    pub(super) fn publish(self) -> Result<(), CacheFault> {
        std::fs::rename(&self.partial, &self.file).map_err(|error| unusable(&self.partial, &error))?;
        self.is_published.set(true);
        if let Err(error) = self.lock.set_permissions(Permissions::from_mode(0o444)) {
            // Some file systems have no permissions; the file is complete nevertheless.
            tracing::warn!(file = %self.file.display(), %error, "packed weights cannot be made read-only");
        }
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_published.get() {
            // Removed while locked: a process that waits for the lock finds the file gone, and starts over.
            let _next_one_begins_it_anew = std::fs::remove_file(&self.partial);
        }
        // Closing the file would unlock it too, but not while a mapping of it is left.
        let _closing_does_it_too = self.lock.unlock();
    }
}

fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// A file of ours that may be removed. An unfinished one stays locked until it is gone, so a process that opens it
/// meanwhile finds it gone once it has the lock.
struct Stale {
    _lock: Option<File>,
}

impl Stale {
    fn found(path: &Path) -> Option<Stale> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let parts: Vec<&str> = name.split('.').collect();
        let [key, version, end] = parts.as_slice() else { return None };
        let version = version.strip_prefix('v')?.parse::<u32>().ok()?;
        if key.len() != 32 || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        match *end {
            "packed" if version < VERSION || has_rested(path) => Some(Stale { _lock: None }),
            "partial" if has_rested(path) => {
                let file = File::open(path).ok()?;
                file.try_lock().ok().map(|()| Stale { _lock: Some(file) })
            }
            _ => None,
        }
    }

    fn remove(self, path: &Path) -> std::io::Result<()> {
        std::fs::remove_file(path)
    }
}

fn has_rested(path: &Path) -> bool {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| SystemTime::now().duration_since(modified).is_ok_and(|age| age > UNUSED_MAX))
}
