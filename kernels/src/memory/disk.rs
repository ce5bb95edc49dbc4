//! How much a file system can still take; knows no file.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that an ordinary user can still write to the file system that `path` lies on.
pub fn free_disk_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut answer = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path is NUL-terminated and the answer has room for the structure; both outlive the call.
    if unsafe { libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded and filled the structure, which is plain numbers and began as zeros.
    let answer = unsafe { answer.assume_init() };
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
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
