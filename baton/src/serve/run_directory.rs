//! A private directory for the files of a deployment's children; knows nothing of what they hold.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use tracing::warn;

use super::ServeError;

const PREFIX: &str = "baton-";
/// Files in memory that every Linux has.
const IN_MEMORY: &str = "/dev/shm";
/// More than the files of any deployment's children take.
const PROBE_BYTES: usize = 256 << 10;
/// Locked by the process that the directory belongs to, for as long as it lives.
const LOCK: &str = "lock";

/// The directory, removed at the end. What a killed process left is removed by the next one.
#[derive(Debug)]
pub struct RunDirectory {
    /// Where it is.
    pub path: PathBuf,
    /// Closed, and so unlocked, by the system when this process dies.
    _lock: File,
}

impl RunDirectory {
    /// A new one that can be written to.
    pub fn create() -> Result<RunDirectory> {
        RunDirectory::create_filled(|directory| {
            let probe = directory.join("probe");
            std::fs::write(&probe, [0; PROBE_BYTES]).with_context(|| format!("writing {}", probe.display()))?;
            std::fs::remove_file(&probe).with_context(|| format!("removing {}", probe.display()))
        })
    }

    /// A new one that `fill` has written to: in the directory for temporary files, or in memory where that is not there,
    /// cannot be written to or is full.
    pub fn create_filled(fill: impl Fn(&Path) -> Result<()>) -> Result<RunDirectory> {
        RunDirectory::create_in_first(&[std::env::temp_dir(), PathBuf::from(IN_MEMORY)], fill)
    }

    fn create_in_first(roots: &[PathBuf], fill: impl Fn(&Path) -> Result<()>) -> Result<RunDirectory> {
        let mut problems = Vec::new();
        for root in roots {
            // One that could not be filled is removed as it is dropped.
            let filled = RunDirectory::create_in(root).and_then(|directory| fill(&directory.path).map(|()| directory));
            match filled {
                Ok(directory) => {
                    if !problems.is_empty() {
                        let reason = problems.join("; ");
                        warn!(reason, directory = %directory.path.display(), "files of this run are kept elsewhere");
                    }
                    return Ok(directory);
                }
                Err(problem) => problems.push(format!("{problem:#}")),
            }
        }
        Err(ServeError::NoDirectory { problems: problems.join("; ") }.into())
    }

    fn create_in(root: &Path) -> Result<RunDirectory> {
        // It is written into the configuration of children.
        ensure!(root.to_str().is_some(), "{} is not UTF-8", root.display());
        sweep(root);
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        let path = root.join(format!("{PREFIX}{}-{nanos:x}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("creating {}", path.display()))?;
        let lock = lock(&path).with_context(|| format!("locking {}", path.display()))?;
        Ok(RunDirectory { path, _lock: lock })
    }

    /// Writes what only this user may read.
    pub fn write_private(&self, name: &str, text: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text)).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Removes it; the error says why it could not be.
    pub fn remove(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // Only reached with files left when starting failed; there is nobody to tell if this fails too.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The lock gets its name when it is held: nobody ever finds it free while its owner lives.
fn lock(directory: &Path) -> std::io::Result<File> {
    let draft = directory.join("lock.draft");
    let file = File::create(&draft)?;
    file.lock()?;
    std::fs::rename(&draft, directory.join(LOCK))?;
    Ok(file)
}

/// Removes directories whose owner is dead. What cannot be read or removed is somebody else's and stays.
fn sweep(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.path().is_dir();
        if ours && owner_is_dead(&entry.path()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn owner_is_dead(directory: &Path) -> bool {
    File::open(directory.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn the_first_root_that_can_be_written_to_is_taken() {
        let base = RunDirectory::create().unwrap();
        let (missing, good) = (base.path.join("missing"), base.path.join("good"));
        std::fs::create_dir(&good).unwrap();
        let roots = [missing.clone(), PathBuf::from("/proc/self"), good.clone()];
        let taken = RunDirectory::create_in_first(&roots, |_| Ok(())).unwrap();
        assert!(taken.path.starts_with(&good));
        drop(taken);
        let full = |_: &Path| bail!("no space");
        let said = RunDirectory::create_in_first(&[good.clone(), missing.clone()], full).unwrap_err().to_string();
        assert!(said.contains("no space") && said.contains(&missing.display().to_string()), "{said}");
        assert_eq!(std::fs::read_dir(&good).unwrap().count(), 0, "what could not be filled is removed");
    }

    #[test]
    fn what_the_dead_left_is_removed_and_the_living_keep_theirs() {
        let root = RunDirectory::create().unwrap();
        let left = |name: &str| {
            let path = root.path.join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (dead, stranger) = (left("baton-1-a"), left("baton-verify"));
        File::create(dead.join(LOCK)).unwrap();
        let living = RunDirectory::create_in(&root.path).unwrap();
        assert!(!dead.exists() && stranger.exists());
        let next = RunDirectory::create_in(&root.path).unwrap();
        assert!(living.path.exists() && next.path.exists());
        next.remove().unwrap();
        assert!(!next.path.exists());
    }
}
