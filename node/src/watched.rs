//! A file whose contents are looked at again and again; knows nothing of their meaning.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time between two looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Time for which new contents must stay before they count.
const SETTLING: Duration = Duration::from_millis(100);

/// Contents of a file as they were read last. Contents are compared and not times of change, because those are coarse,
/// and because mounted secrets change by exchanging a directory above the file.
#[derive(Debug, Clone)]
pub struct Watched {
    path: PathBuf,
    bytes_max: u64,
    last: Seen,
}

/// What a look has found: the contents, or why there are none.
pub type Seen = Result<Vec<u8>, String>;

impl Watched {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// The file cannot be read, or has more than `bytes_max` bytes.
    pub fn open(path: &Path, bytes_max: u64) -> Result<Watched, String> {
        let last = Ok(read(path, bytes_max)?);
        Ok(Watched { path: path.to_owned(), bytes_max, last })
    }

    /// Returns what the last look has found; contents after [`Watched::open`].
    pub fn seen(&self) -> &Seen {
        &self.last
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks again; returns true if something else is there, and stays. A file that is gone, or whose reading fails, is
    /// something else once and then the same.
    pub async fn look(&mut self) -> bool {
        let now = self.read().await;
        if now == self.last {
            return false;
        }
        tokio::time::sleep(SETTLING).await;
        let then = self.read().await;
        self.take(now, &then)
    }

    /// Takes what was found, unless it changes still: a file that is just being written has the beginning of its
    /// contents, which may look like all of them.
    fn take(&mut self, now: Seen, then: &Seen) -> bool {
        let stays = now == *then;
        if stays {
            self.last = now;
        }
        stays
    }

    async fn read(&self) -> Seen {
        let (path, bytes_max) = (self.path.clone(), self.bytes_max);
        let read = tokio::task::spawn_blocking(move || read(&path, bytes_max)).await;
        read.unwrap_or_else(|error| Err(format!("reading failed: {error}")))
    }
}

fn read(path: &Path, bytes_max: u64) -> Seen {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(format!("{} has more than {bytes_max} bytes", path.display())),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_seen_once_even_if_it_is_a_loss() {
        let path = std::env::temp_dir().join(format!("baton-watched-{}", std::process::id()));
        std::fs::write(&path, "one").unwrap();
        let mut watched = Watched::open(&path, 5).unwrap();
        assert!(!watched.look().await);
        std::fs::write(&path, "two").unwrap();
        assert!(watched.look().await && !watched.look().await);
        assert_eq!(watched.seen(), &Ok(b"two".to_vec()));
        std::fs::write(&path, "too long").unwrap();
        assert!(watched.look().await && !watched.look().await);
        assert!(watched.seen().as_ref().unwrap_err().ends_with("has more than 5 bytes"));
        std::fs::remove_file(&path).unwrap();
        assert!(watched.look().await && !watched.look().await);
        assert!(watched.seen().as_ref().unwrap_err().starts_with("cannot read"));
        assert!(Watched::open(&path, 5).is_err());
    }

    #[test]
    fn what_is_just_being_written_does_not_count() {
        let path = std::env::temp_dir().join(format!("baton-watched-half-{}", std::process::id()));
        std::fs::write(&path, "old").unwrap();
        let mut watched = Watched::open(&path, 100).unwrap();
        let (half, whole) = (Ok(b"[[key]]".to_vec()), Ok(b"[[key]]\nname = 1".to_vec()));
        assert!(!watched.take(half.clone(), &whole) && watched.seen() == &Ok(b"old".to_vec()));
        assert!(!watched.take(Err("gone".to_owned()), &whole) && watched.seen().is_ok());
        assert!(watched.take(whole.clone(), &whole) && watched.seen() == &whole);
        std::fs::remove_file(&path).unwrap();
    }
}
