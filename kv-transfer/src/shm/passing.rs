//! File descriptors over a Unix socket (`SCM_RIGHTS`, unix(7)), and who is at its other end; knows no message.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The kernel passes at most 253 descriptors at once (SCM_MAX_FD); regions are limited far below.
const DESCRIPTORS_MAX: usize = 64;

/// Sends `bytes`, which must fit the socket's buffer, with descriptors attached.
pub(super) fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    if raw.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control::new();
    let mut message = header(&mut part, &mut control);
    if raw.is_empty() {
        message.msg_control = std::ptr::null_mut();
        message.msg_controllen = 0;
    } else {
        attach(&mut message, &raw);
    }
    // SAFETY: the header's pointers lead to live buffers of the lengths it states; the kernel only reads them.
    let sent = unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    match usize::try_from(sent) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::WriteZero, "the socket took only a part")),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Writes descriptors, at most `DESCRIPTORS_MAX`, into the control buffer of a message that [`header`] made.
fn attach(message: &mut libc::msghdr, raw: &[RawFd]) {
    let payload = size_of_val(raw) as u32;
    // SAFETY: `CMSG_SPACE` and `CMSG_LEN` only compute; the message's `Control` has room for `DESCRIPTORS_MAX` descriptors,
    // so the first header and `payload` bytes after it lie inside, and the header is aligned because `Control` is.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(payload) as usize;
        let first = libc::CMSG_FIRSTHDR(&raw const *message);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(payload) as usize;
        std::ptr::copy_nonoverlapping(raw.as_ptr().cast::<u8>(), libc::CMSG_DATA(first), payload as usize);
    }
}

/// Receives at most `bytes.len()` bytes and the descriptors attached to them.
pub(super) fn receive(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control::new();
    let mut message = header(&mut part, &mut control);
    // SAFETY: the header's pointers lead to live buffers of the lengths it states, which the kernel fills.
    let received = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let mut descriptors = Vec::new();
    // SAFETY: the kernel wrote `msg_controllen` bytes of well-formed control messages into `control`; each SCM_RIGHTS
    // message holds descriptors that are new in this process and that nobody else owns.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(&raw const message);
        while !next.is_null() {
            if (*next).cmsg_level == libc::SOL_SOCKET && (*next).cmsg_type == libc::SCM_RIGHTS {
                let payload = (*next).cmsg_len - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(next).cast::<RawFd>();
                for index in 0..payload / size_of::<RawFd>() {
                    descriptors.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            next = libc::CMSG_NXTHDR(&raw const message, next);
        }
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors than are allowed"));
    }
    Ok((received, descriptors))
}

/// Refuses whoever is neither our own user nor root, who may read us anyway. The kernel says who is at the other end.
pub(super) fn same_user(stream: &UnixStream) -> io::Result<()> {
    is_let_in(peer_user(stream)?, our_user())
}

fn is_let_in(user: libc::uid_t, ours: libc::uid_t) -> io::Result<()> {
    match user {
        0 => Ok(()),
        user if user == ours => Ok(()),
        user => Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {user} is at its other end"))),
    }
}

/// Connects to an abstract name; a listener that lets nobody in is waited for no longer than `within`.
pub(super) fn connect(name: &str, within: Duration) -> io::Result<UnixStream> {
    // SAFETY: makes a new descriptor and touches nothing else.
    let raw = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(raw) });
    // The time to send bounds connecting too (unix(7) leaves it out; `unix_stream_connect` of Linux waits for it).
    stream.set_write_timeout(Some(within))?;
    let (address, length) = abstract_address(name)?;
    // SAFETY: the address is live and `length` of its bytes count.
    match unsafe { libc::connect(raw, (&raw const address).cast(), length) } {
        0 => Ok(stream),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An address in the abstract name space: a zero byte, then the name.
fn abstract_address(name: &str) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if name.is_empty() || name.len() >= address.sun_path.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is empty or too long"));
    }
    for (to, from) in address.sun_path[1..].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let length = std::mem::offset_of!(libc::sockaddr_un, sun_path) + 1 + name.len();
    Ok((address, length as libc::socklen_t))
}

/// The user that the process at the other end ran as when it connected or listened.
fn peer_user(stream: &UnixStream) -> io::Result<libc::uid_t> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the option fills a live structure of the length that is passed.
    let got = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if got == 0 { Ok(credentials.uid) } else { Err(io::Error::last_os_error()) }
}

/// The user this process runs as.
fn our_user() -> libc::uid_t {
    // SAFETY: reads a number of the process.
    unsafe { libc::geteuid() }
}

/// Room for one control message, aligned as its header must be.
#[repr(C, align(16))]
struct Control([u8; 512]);

impl Control {
    fn new() -> Self {
        Self([0; 512])
    }
}

fn header(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all-zero is a valid header without name, parts and control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_but_our_own_user_and_root_is_let_in() {
        let denied =
            |user, ours| is_let_in(user, ours).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        assert!(!denied(1_000, 1_000) && !denied(0, 1_000) && !denied(0, 0));
        assert!(denied(1_001, 1_000) && denied(1_000, 0) && denied(65_534, 1_000));
        let (one, other) = UnixStream::pair().unwrap();
        assert_eq!((peer_user(&one).unwrap(), peer_user(&other).unwrap()), (our_user(), our_user()));
        same_user(&one).unwrap();
    }
}
