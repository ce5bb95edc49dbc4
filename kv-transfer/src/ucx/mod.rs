//! Transport by one-sided UCX reads: RDMA between hosts, cross-memory attach on one. The owner takes no part in reads,
//! so the reader checks bounds, and admitted peers are trusted. Without a zero-copy path it refuses to connect; it
//! never falls back to a slower path.

mod address;
mod connection;
mod library;
mod peer;
mod rights;
mod thread;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, unbounded};
use kernels::memory::{Region, free_disk_bytes};

use crate::driver::{Command, Driver};
use crate::outbox::Outbox;
use crate::region::host_memory;
use crate::token::Token;
use crate::ucx_tls::{self, UcxReach, check_ucx_tls};
use crate::{Fabric, RegionId, Setup, TransferError, Transport, TransportKind};
use library::Bell;
use thread::{Beginning, Message};

/// Longest time for the thread to open UCX or to register a pool.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

/// Bytes that UCX needs in /dev/shm per worker: 4.3 MB measured, and a margin.
const DEV_SHM_BYTES: u64 = 5 << 20;

/// Opens UCX with the transports that `tls` names, in the syntax of `UCX_TLS`, if they are allowed here.
pub fn open(setup: &Setup, tls: &str, fabric: Fabric) -> Result<Transport, TransferError> {
    let reach = check_ucx_tls(tls, fabric)?;
    if ucx_tls::uses_system_v(tls) {
        tracing::warn!(
            tls,
            "ucx receives through System V segments, which other processes of this one's group can write; posix does the \
             same without them"
        );
    }
    if ucx_tls::needs_dev_shm(tls) {
        check_dev_shm()?;
    }
    let (outbox, events) = Outbox::new(Arc::clone(&setup.notify));
    let bell = Arc::new(Bell::new()?);
    let (messages, inbox) = unbounded();
    let (ready, opened) = bounded(1);
    let beginning = Beginning {
        inbox,
        bell: Arc::clone(&bell),
        outbox,
        limits: setup.limits,
        instance: setup.instance,
        paths: Paths { tls: tls.to_owned(), reach },
    };
    let thread = std::thread::Builder::new().name("kv-ucx".to_owned());
    let thread = thread.spawn(move || thread::run(beginning, &ready));
    let thread = thread.map_err(|error| TransferError::system("start a transport thread", &error))?;
    let threads = Ucx { messages, bell, thread: Some(thread) };
    let address = opened.recv_timeout(CALL_DEADLINE).map_err(unanswered)??;
    Ok(Transport::new(TransportKind::Ucx, setup, Token::draw()?, address, Box::new(threads), events))
}

/// Checks that UCX's queues have room in /dev/shm: UCX itself would only say that peers cannot be reached.
fn check_dev_shm() -> Result<(), TransferError> {
    let directory = Path::new("/dev/shm");
    let unusable = |error: std::io::Error| TransferError::System {
        operation: "open ucx, whose receive queues are files in /dev/shm",
        reason: error.to_string(),
    };
    let file = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(directory).map_err(unusable)?;
    drop(file);
    let free_bytes = free_disk_bytes(directory).map_err(unusable)?;
    if free_bytes < DEV_SHM_BYTES {
        return Err(TransferError::DevShm { free_bytes, needed_bytes: DEV_SHM_BYTES });
    }
    Ok(())
}

struct Paths {
    tls: String,
    reach: UcxReach,
}

fn unanswered(error: RecvTimeoutError) -> TransferError {
    match error {
        RecvTimeoutError::Timeout => TransferError::Deadline {
            operation: "wait for the ucx thread",
            deadline_ms: CALL_DEADLINE.as_secs() * 1000,
        },
        RecvTimeoutError::Disconnected => TransferError::Stopped,
    }
}

/// Handle of the front on the thread that owns every UCX object.
struct Ucx {
    messages: Sender<Message>,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Ucx {
    fn send(&self, message: Message) -> Result<(), TransferError> {
        self.messages.send(message).map_err(|_| TransferError::Stopped)?;
        self.bell.ring();
        Ok(())
    }
}

impl Driver for Ucx {
    fn register(&mut self, _region: RegionId, memory: &Region) -> Result<Vec<u8>, TransferError> {
        let memory = host_memory(TransportKind::Ucx, memory)?;
        let (reply, answer) = bounded(1);
        self.send(Message::Register { memory: Arc::clone(memory), reply })?;
        answer.recv_timeout(CALL_DEADLINE).map_err(unanswered)?
    }

    fn submit(&mut self, command: Command) -> Result<(), TransferError> {
        self.send(Message::Command(command))
    }
}

impl Drop for Ucx {
    fn drop(&mut self) {
        let _ended = self.send(Message::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ucx transport's thread had panicked");
        }
    }
}
