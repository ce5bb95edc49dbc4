//! Draws the random name of a process, so that whoever restarts behind the same address is somebody else.

use std::fs::File;
use std::io::Read;

use sched::InstanceId;

/// A new instance id: 128 bits from the system's generator.
///
/// # Errors
/// The system has no such generator.
pub fn draw() -> std::io::Result<InstanceId> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(InstanceId(u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_processes_share_a_name() {
        assert_ne!(draw().unwrap(), draw().unwrap());
    }
}
