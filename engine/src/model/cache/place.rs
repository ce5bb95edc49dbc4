//! Where a file of packed weights lies, and how exactly one process comes to write it; knows no format.
//!
//! A process that packs holds a lock on `KEY.vN.partial` and renames it when it is complete. The lock ends with the
//! process, so a killed one leaves a file that the next one begins anew.

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

/// Files that no process has opened for so long are removed when another one is written.
const UNUSED_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often a lock that is held is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Where the file of one key belongs.
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
    /// Makes the directory where it is missing.
    pub(super) fn new(directory: &Path, key: CacheKey) -> Result<Place, CacheFault> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| unusable(directory, &error))?;
        let path = |end: &str| directory.join(format!("{:032x}.v{VERSION}.{end}", key.digest));
        Ok(Place { directory: directory.to_path_buf(), file: path("packed"), partial: path("partial") })
    }

    /// The file once it is complete.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Removes the file.
    pub(super) fn discard(&self) -> Result<(), CacheFault> {
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(unusable(&self.file, &error)),
            _ => Ok(()),
        }
    }

    /// Whoever else may write to the directory must not choose what file is overwritten, or make us wait for a pipe.
    fn refuse_foreign(&self) -> Result<(), CacheFault> {
        match std::fs::symlink_metadata(&self.partial) {
            Ok(there) if !there.is_file() => {
                Err(unusable(&self.partial, &std::io::Error::new(ErrorKind::InvalidInput, "not a regular file")))
            }
            // That nothing is there is the rule; what else is wrong, the open says.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Waits for the right to write the file, at most `wait_max` in which whoever has it writes nothing; `None` when another process has had it meanwhile.
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
            // What was locked has been renamed or removed by the process that held it.
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

    /// The disk must have room for `bytes`.
    pub(super) fn require_space(&self, bytes: u64) -> Result<(), CacheFault> {
        let free = free_disk_bytes(&self.directory).map_err(|error| unusable(&self.directory, &error))?;
        if free >= bytes {
            return Ok(());
        }
        Err(CacheFault::Full { path: self.directory.clone(), needed_bytes: bytes, missing_bytes: bytes - free })
    }

    /// Removes what older versions wrote, what nobody has used for long, and what killed processes left.
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
    /// Begins the file anew.
    pub(super) fn writer(&self, key: CacheKey) -> Result<Writer, CacheFault> {
        let file = self.lock.try_clone().map_err(|error| unusable(&self.partial, &error))?;
        Writer::new(file, self.partial.clone(), key)
    }

    /// Gives the complete file its name. From now on nobody may write it.
    pub(super) fn publish(self) -> Result<(), CacheFault> {
        std::fs::rename(&self.partial, &self.file).map_err(|error| unusable(&self.partial, &error))?;
        self.is_published.set(true);
        if let Err(error) = self.lock.set_permissions(Permissions::from_mode(0o444)) {
            // Some file systems have no permissions; the file is complete all the same.
            tracing::warn!(file = %self.file.display(), %error, "packed weights cannot be made read-only");
        }
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_published.get() {
            // Still locked: whoever waits for it sees that it is gone, and begins anew.
            let _next_one_begins_it_anew = std::fs::remove_file(&self.partial);
        }
        // Closing the file does it too, but not while a mapping of it is left.
        let _closing_does_it_too = self.lock.unlock();
    }
}

fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// A file of ours that may go. One that nobody completes is locked until it is gone: whoever opens it meanwhile finds it
/// gone once it has the lock.
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
