//! Sends from and receives into mapped memory, without copies and without Rust references to it; knows no frame.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use kernels::memory::HostMemory;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Longest time that sent bytes may stay unacknowledged; then the connection is given up.
const VANISHED: Duration = Duration::from_secs(10);

/// Range of memory to send; checked by [`send_some`].
#[derive(Clone, Copy)]
pub(super) struct Body<'a> {
    pub(super) memory: &'a HostMemory,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// Receives at most `bytes` bytes that have arrived to `offset` of `memory`; `Ok(0)` when the peer has closed.
///
/// # Safety
///
/// No other code may touch the range during the call.
pub(super) unsafe fn try_receive(
    stream: &TcpStream,
    memory: &HostMemory,
    offset: u64,
    bytes: u64,
) -> io::Result<usize> {
    let to = range(memory, offset, bytes)?;
    let socket = stream.as_raw_fd();
    stream.try_io(Interest::READABLE, || {
        // SAFETY: the range lies inside the mapping, and the caller keeps others away from it.
        let received = unsafe { libc::recv(socket, to.cast(), bytes as usize, 0) };
        outcome(received)
    })
}

/// Sends some of head and body after their first `sent` bytes, by one system call. Does not wait.
pub(super) fn send_some(socket: RawFd, head: &[u8], body: Body<'_>, sent: u64) -> io::Result<usize> {
    let from = range(body.memory, body.offset, body.bytes)?;
    let of_head = (sent as usize).min(head.len());
    let of_body = sent.saturating_sub(head.len() as u64).min(body.bytes);
    let mut parts = [
        libc::iovec { iov_base: head[of_head..].as_ptr().cast_mut().cast(), iov_len: head.len() - of_head },
        libc::iovec { iov_base: from.wrapping_add(of_body as usize).cast(), iov_len: (body.bytes - of_body) as usize },
    ];
    // SAFETY: all-zero is a valid header without name, parts and control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len();
    // SAFETY: the first part is a live slice; the second lies inside the mapping that `body` borrows. The kernel only
    // reads both; a concurrent write there is at worst sent half.
    let sent = unsafe { libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
    outcome(sent)
}

fn range(memory: &HostMemory, offset: u64, bytes: u64) -> io::Result<*mut u8> {
    match offset.checked_add(bytes) {
        Some(end) if end <= memory.len() as u64 => Ok(memory.as_ptr().wrapping_add(offset as usize)),
        Some(_) | None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the range leaves its mapping")),
    }
}

fn outcome(returned: isize) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// Sets the options that both sides need: requests leave at once, and a host or path that vanished is noticed within
/// [`VANISHED`], also on an idle connection.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(4)).with_interval(Duration::from_secs(2));
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive.with_retries(3))?;
    // Keepalive is silent while bytes are unacknowledged; the system's own timeout is then a quarter of an hour.
    socket.set_tcp_user_timeout(Some(VANISHED))
}
