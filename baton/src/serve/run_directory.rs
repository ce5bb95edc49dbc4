//! Private directory for the files of a deployment's children; knows nothing of their contents.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use tracing::warn;

use super::ServeError;

const PREFIX: &str = "baton-";
/// File system in memory that every Linux has.
const IN_MEMORY: &str = "/dev/shm";
/// More bytes than the files of any deployment's children.
const PROBE_BYTES: usize = 256 << 10;
/// Name of the file that the owning process locks as long as it lives.
const LOCK: &str = "lock";

/// Directory that is removed at the end, or by the next process if its owner was killed.
#[derive(Debug)]
pub struct RunDirectory {
    /// Path of the directory.
    pub path: PathBuf,
    /// Lock that the system releases when this process dies.
    _lock: File,
}

impl RunDirectory {
    /// Creates a directory that can be written to.
    pub fn create() -> Result<RunDirectory> {
        RunDirectory::create_filled(|directory| {
            let probe = directory.join("probe");
            std::fs::write(&probe, [0; PROBE_BYTES]).with_context(|| format!("writing {}", probe.display()))?;
            std::fs::remove_file(&probe).with_context(|| format!("removing {}", probe.display()))
        })
    }

    /// Creates a directory and fills it: among temporary files, or in memory if those cannot be written.
    pub fn create_filled(fill: impl Fn(&Path) -> Result<()>) -> Result<RunDirectory> {
        RunDirectory::create_in_first(&[std::env::temp_dir(), PathBuf::from(IN_MEMORY)], fill)
    }

    fn create_in_first(roots: &[PathBuf], fill: impl Fn(&Path) -> Result<()>) -> Result<RunDirectory> {
        let mut problems = Vec::new();
        for root in roots {
            // A directory that could not be filled is removed when dropped.
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
        // The path is written into the configuration of children.
        ensure!(root.to_str().is_some(), "{} is not UTF-8", root.display());
        sweep(root);
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        let path = root.join(format!("{PREFIX}{}-{nanos:x}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("creating {}", path.display()))?;
        let lock = lock(&path).with_context(|| format!("locking {}", path.display()))?;
        Ok(RunDirectory { path, _lock: lock })
    }

    /// Writes a file that only this user may read.
    pub fn write_private(&self, name: &str, text: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text)).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Removes the directory; an error says why that failed.
    pub fn remove(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // Has files only after a failed start, and nobody is left to hear of an error.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Locks a file before it gets its name, so that it is never seen unlocked while its owner lives.
fn lock(directory: &Path) -> std::io::Result<File> {
    let draft = directory.join("lock.draft");
    let file = File::create(&draft)?;
    file.lock()?;
    std::fs::rename(&draft, directory.join(LOCK))?;
    Ok(file)
}

/// Removes directories whose owner is dead. Those that cannot be read or removed belong to other users and stay.
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
