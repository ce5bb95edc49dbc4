//! File descriptors over a Unix socket (`SCM_RIGHTS`, unix(7)), and the user at its other end; knows no message.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg, socket_with, sockopt,
};
use rustix::process::{Uid, geteuid};

/// Limit on descriptors per message; the kernel's is 253 (SCM_MAX_FD), and regions are limited far below.
const DESCRIPTORS_MAX: usize = 64;
const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX));

/// Sends `bytes`, which must fit the socket's buffer, with descriptors attached.
pub(super) fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    match sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)? {
        sent if sent == bytes.len() => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::WriteZero, "the socket took only a part")),
    }
}

/// Receives at most `bytes.len()` bytes and the descriptors attached to them.
pub(super) fn receive(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let rights = |message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    };
    let descriptors = control.drain().filter_map(rights).flatten().collect();
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors than are allowed"));
    }
    Ok((received.bytes, descriptors))
}

/// Refuses a peer that is neither this process's user nor root, who may read its memory anyway. The kernel names the
/// user that the peer ran as when it connected or listened.
pub(super) fn same_user(stream: &UnixStream) -> io::Result<()> {
    is_let_in(sockopt::socket_peercred(stream)?.uid, geteuid())
}

fn is_let_in(user: Uid, ours: Uid) -> io::Result<()> {
    match user.is_root() || user == ours {
        true => Ok(()),
        false => {
            let who = format!("user {} is at its other end", user.as_raw());
            Err(io::Error::new(io::ErrorKind::PermissionDenied, who))
        }
    }
}

/// Connects to an abstract name; waits at most `within` while the listener's queue is full.
pub(super) fn connect(name: &str, within: Duration) -> io::Result<UnixStream> {
    let stream = UnixStream::from(socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?);
    // The send timeout also bounds connecting (not said in unix(7); see Linux's `unix_stream_connect`).
    stream.set_write_timeout(Some(within))?;
    if name.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is empty"));
    }
    rustix::net::connect(&stream, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_but_our_own_user_and_root_is_let_in() {
        let denied = |user, ours| {
            is_let_in(Uid::from_raw(user), Uid::from_raw(ours))
                .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        assert!(!denied(1_000, 1_000) && !denied(0, 1_000) && !denied(0, 0));
        assert!(denied(1_001, 1_000) && denied(1_000, 0) && denied(65_534, 1_000));
        let (one, other) = UnixStream::pair().unwrap();
        assert_eq!(sockopt::socket_peercred(&other).unwrap().uid, geteuid());
        same_user(&one).unwrap();
    }
}
