//! Free space of a file system; knows no file.

use std::io;
use std::path::Path;

/// Bytes that an ordinary user can still write to the file system of `path`.
pub fn free_disk_bytes(path: &Path) -> io::Result<u64> {
    let system = rustix::fs::statvfs(path)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_say_what_they_can_take() {
        free_disk_bytes(&std::env::temp_dir()).unwrap();
        assert_eq!(free_disk_bytes(Path::new("/proc")).unwrap(), 0);
        assert_eq!(free_disk_bytes(Path::new("/nowhere/at/all")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
