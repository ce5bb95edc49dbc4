//! Transports between processes, and the effect on a peer when a process dies or freezes. The other process is this
//! test binary, started again in a role.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use harness::{POOL_BYTES, Worker, everything, expected, open_descriptors};
use kv_transfer::{Batch, KvTransport, Limits, PeerId, TransferError, TransferEvent, TransportKind};

const ROLE: &str = "KV_TRANSFER_TEST_ROLE";
const KIND: &str = "KV_TRANSFER_TEST_KIND";
const ENDPOINT: &str = "KV_TRANSFER_TEST_ENDPOINT";
const FILES_LEFT: &str = "KV_TRANSFER_TEST_FILES_LEFT";

macro_rules! between_processes {
    ($($scenario:ident),* $(,)?) => {
        between_processes!(@transport tcp, TransportKind::Tcp, $($scenario),*);
        between_processes!(@transport shm, TransportKind::Shm, $($scenario),*);
        #[cfg(feature = "ucx")]
        between_processes!(@transport ucx, TransportKind::Ucx, $($scenario),*);
    };
    (@transport $name:ident, $kind:expr, $($scenario:ident),*) => {
        mod $name {
            use super::TransportKind;
            $(#[test] fn $scenario() { super::$scenario($kind); })*
        }
    };
}

between_processes![
    an_owner_killed_while_it_is_read_can_be_replaced,
    a_frozen_owner_hangs_nobody,
    a_reader_killed_while_it_reads_harms_nobody,
];

/// Not a test: runs as the other process when the environment says so.
#[test]
fn other_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    kv_transfer::restore_signals();
    harness::die_with_parent();
    let kind: TransportKind = std::env::var(KIND).unwrap().parse().unwrap();
    match role.as_str() {
        "owner" => {
            let worker = Worker::owner(kind, 3);
            let _taken = std::env::var(FILES_LEFT).map(|left| {
                // Once it has served a reader, its threads have the descriptors that they need.
                Worker::new(kind).connect_to(&worker);
                files_but(left.parse().unwrap())
            });
            eprintln!("{}", hex(&worker.transport.endpoint()));
            let _until_closed = std::io::stdin().read(&mut [0]);
        }
        "reader" => {
            let mut worker = Worker::new(kind);
            let endpoint = unhex(&std::env::var(ENDPOINT).unwrap());
            let peer = worker.connect(&endpoint).unwrap().0;
            loop {
                assert_eq!(worker.pull(peer, everything()), Ok(POOL_BYTES as u64));
                assert!(worker.bytes(0, POOL_BYTES as u64) == expected(1, 0, POOL_BYTES as u64));
                eprintln!("pulled");
            }
        }
        "stranger" => {
            let mut worker = Worker::new(kind);
            let endpoint = unhex(&std::env::var(ENDPOINT).unwrap());
            eprintln!("{}", worker.connect(&endpoint).unwrap_err());
        }
        other => panic!("no role {other}"),
    }
}

struct Process {
    child: Child,
    says: BufReader<ChildStderr>,
}

impl Process {
    fn start(role: &str, kind: TransportKind, endpoint: &[u8]) -> Self {
        Self::run(&mut Command::new(std::env::current_exe().unwrap()), role, kind, endpoint)
    }

    fn run(program: &mut Command, role: &str, kind: TransportKind, endpoint: &[u8]) -> Self {
        let mut child = program
            .args(["other_process", "--exact", "--nocapture"])
            .env(ROLE, role)
            .env(KIND, kind.label())
            .env(ENDPOINT, hex(endpoint))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(child.stderr.take().unwrap());
        Self { child, says }
    }

    fn owner(kind: TransportKind) -> (Self, Vec<u8>) {
        let mut process = Self::start("owner", kind, &[]);
        let endpoint = unhex(&process.line());
        (process, endpoint)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the other process ended");
        line.trim().to_owned()
    }

    fn signal(&self, signal: i32) {
        // SAFETY: sends a signal to a child that was not waited for yet, so its process id is not reused.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Stops every thread of the process, and returns when they have stopped.
    fn freeze(&self) {
        self.signal(libc::SIGSTOP);
        let mut status = 0;
        // SAFETY: waits for a child of ours and fills a live integer.
        let waited = unsafe { libc::waitpid(self.child.id() as i32, &raw mut status, libc::WUNTRACED) };
        assert!(waited > 0 && libc::WIFSTOPPED(status), "the other process did not stop");
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _waited_for = self.child.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn pulls_everything(reader: &mut Worker, peer: PeerId) {
    reader.overwrite(0);
    assert_eq!(reader.pull(peer, everything()), Ok(POOL_BYTES as u64));
    assert!(reader.bytes(0, POOL_BYTES as u64) == expected(3, 0, POOL_BYTES as u64));
}

fn an_owner_killed_while_it_is_read_can_be_replaced(kind: TransportKind) {
    let mut reader = Worker::new(kind);
    let mut descriptors = 0;
    for round in 0..6 {
        let (mut owner, endpoint) = Process::owner(kind);
        let peer = reader.connect(&endpoint).unwrap().0;
        pulls_everything(&mut reader, peer);
        let tickets: Vec<_> = (0..20).map(|_| reader.start(peer, everything())).collect();
        std::thread::sleep(Duration::from_millis(round));
        owner.kill();
        let mut ended = Vec::new();
        loop {
            match reader.next() {
                TransferEvent::Done { ticket, .. } | TransferEvent::Failed { ticket, .. } => ended.push(ticket),
                TransferEvent::PeerDown { peer: down, error } => {
                    assert_eq!(down, peer);
                    assert!(matches!(error, TransferError::PeerLost { .. }), "{error}");
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        ended.sort();
        assert_eq!(ended, tickets, "every batch ends once, before its peer");
        reader.overwrite(0x55);
        std::thread::sleep(Duration::from_millis(20));
        assert!(reader.is_all(0x55), "bytes of a dead owner landed late");
        let gone = reader.connect(&endpoint).unwrap_err();
        assert!(!matches!(gone, TransferError::Deadline { .. }), "a dead owner is refused at once: {gone}");
        drop(owner);
        if round == 0 {
            descriptors = open_descriptors();
        }
    }
    // Tests that run beside this one hold a few descriptors; a leak would be five or more of each kind.
    assert!(open_descriptors() < descriptors + 40, "{} descriptors, {descriptors} at first", open_descriptors());
}

fn a_frozen_owner_hangs_nobody(kind: TransportKind) {
    let limits = Limits { connect_deadline: Duration::from_millis(700), ..Limits::default() };
    let mut reader = Worker::with(kind, POOL_BYTES, limits);
    let (owner, endpoint) = Process::owner(kind);
    let peer = (0..20).find_map(|_| reader.connect(&endpoint).ok()).unwrap().0;
    pulls_everything(&mut reader, peer);
    owner.freeze();
    let batch = Batch { deadline: Duration::from_millis(300), ..reader.batch(everything()) };
    let ticket = reader.transport.start(peer, batch).unwrap();
    let frozen = reader.end_of(ticket);
    match kind {
        // The owner takes no part in one-sided reads.
        TransportKind::Shm | TransportKind::Ucx => assert_eq!(frozen, Ok(POOL_BYTES as u64)),
        TransportKind::Tcp | TransportKind::InProcess => {
            assert_eq!(frozen, Err(TransferError::Deadline { operation: "pull a batch", deadline_ms: 300 }));
        }
    }
    let ticket = reader.start(peer, everything());
    reader.transport.abort(ticket);
    assert!(matches!(reader.next(), TransferEvent::Aborted { .. } | TransferEvent::Done { .. }));
    match (kind, reader.connect(&endpoint)) {
        // Nor does it in their greeting over ucx; only heartbeats of the control channel show the freeze.
        (TransportKind::Ucx, Ok((second, _))) => pulls_everything(&mut reader, second),
        (_, Ok(_)) => panic!("a frozen owner cannot have answered"),
        (_, Err(error)) => {
            assert_eq!(error, TransferError::Deadline { operation: "connect", deadline_ms: 700 });
        }
    }
    reader.overwrite(0x55);
    owner.signal(libc::SIGCONT);
    std::thread::sleep(Duration::from_millis(50));
    assert!(reader.is_all(0x55), "bytes of ended batches landed after the owner thawed");
    pulls_everything(&mut reader, peer);
    let again = (0..20).find_map(|_| reader.connect(&endpoint).ok()).unwrap().0;
    pulls_everything(&mut reader, again);
}

fn a_reader_killed_while_it_reads_harms_nobody(kind: TransportKind) {
    let mut owner = Worker::owner(kind, 1);
    let endpoint = owner.transport.endpoint();
    for _ in 0..3 {
        let mut reader = Process::start("reader", kind, &endpoint);
        assert_eq!(reader.line(), "pulled");
        reader.kill();
    }
    let mut reader = Process::start("reader", kind, &endpoint);
    assert_eq!(reader.line(), "pulled");
    assert_eq!(owner.next_within(Duration::from_millis(50)), None, "serving makes no events");
}

/// Opens files until only `left` more descriptors may be opened.
fn files_but(left: usize) -> Vec<std::fs::File> {
    let mut files: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    files.truncate(files.len() - left);
    files
}

/// Starts an owner that may open 64 files, of which `left` are free.
fn owner_with_files(kind: TransportKind, left: usize) -> (Process, Vec<u8>) {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    let mut process = Process::run(limited.env(FILES_LEFT, left.to_string()), "owner", kind, &[]);
    let endpoint = unhex(&process.line());
    (process, endpoint)
}

/// Found by reading: silent connections took all descriptors of a worker, which then accepted no connection, so that
/// none could take the place of the oldest.
fn silent_strangers_keep_nobody_out(kind: TransportKind, connect: impl Fn(&[u8]) -> std::os::fd::OwnedFd) {
    let limits = Limits { connect_deadline: Duration::from_secs(20), ..Limits::default() };
    // Over shared memory a connection takes up to three.
    let (_owner, endpoint) = owner_with_files(kind, 6);
    let mut reader = Worker::with(kind, POOL_BYTES, limits);
    let silent: Vec<_> = (0..25).map(|_| connect(&endpoint)).collect();
    let begun = std::time::Instant::now();
    let peer = reader.connect(&endpoint).unwrap().0;
    pulls_everything(&mut reader, peer);
    // Silent connections end after two seconds anyway; waiting for that would take at least four rounds.
    assert!(begun.elapsed() < Duration::from_secs(5), "let in after {:?}", begun.elapsed());
    drop(silent);
}

#[test]
fn silent_strangers_keep_nobody_out_of_a_tcp_owner_with_few_files() {
    silent_strangers_keep_nobody_out(TransportKind::Tcp, |endpoint| {
        let text = String::from_utf8_lossy(endpoint).into_owned();
        let digits = &text[text.find("127.0.0.1:").unwrap() + "127.0.0.1:".len()..];
        let port: String = digits.chars().take_while(char::is_ascii_digit).collect();
        std::net::TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap().into()
    });
}

#[test]
fn silent_strangers_keep_nobody_out_of_a_shared_memory_with_few_files() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    const NAME_BYTES: usize = "kv-transfer-".len() + 32;
    silent_strangers_keep_nobody_out(TransportKind::Shm, |endpoint| {
        let at = endpoint.windows(12).position(|window| window == b"kv-transfer-").unwrap();
        let address = SocketAddr::from_abstract_name(&endpoint[at..at + NAME_BYTES]).unwrap();
        UnixStream::connect_addr(&address).unwrap().into()
    });
}

#[test]
fn a_hangup_still_ends_a_process() {
    use std::os::unix::process::ExitStatusExt;
    let (mut owner, _) = Process::owner(TransportKind::Tcp);
    owner.signal(libc::SIGHUP);
    assert_eq!(owner.child.wait().unwrap().signal(), Some(libc::SIGHUP));
}

/// Error of a process of another user that has the endpoint of an owner. Only root can start such a process.
fn told_to_another_user(kind: TransportKind) -> Option<String> {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let directory = std::env::temp_dir().join(format!("kv-transfer-test-{}-{}", std::process::id(), kind.label()));
    // SAFETY: reads a number of the process.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("not run: only root can start a process of another user");
        return None;
    }
    std::fs::create_dir(&directory).unwrap();
    let program = directory.join("stranger");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let owner = Worker::owner(kind, 1);
    let mut command = Command::new(&program);
    command.uid(NOBODY).current_dir("/");
    let mut stranger = Process::run(&mut command, "stranger", kind, &owner.transport.endpoint());
    let told = stranger.line();
    std::fs::remove_dir_all(&directory).unwrap();
    Some(told)
}

/// Another user's process may not read the owner's, and its error names the missing right.
#[cfg(feature = "ucx")]
#[test]
fn a_reader_without_the_right_is_told_so() {
    let Some(told) = told_to_another_user(TransportKind::Ucx) else { return };
    let expected = format!("connect over ucx: reading process {} is not permitted", std::process::id());
    assert!(told.starts_with(&expected), "{told}");
}

/// A process with a descriptor of the memory can read it, so another user's process gets none, even with the endpoint.
#[test]
fn another_user_gets_no_shared_memory() {
    let Some(told) = told_to_another_user(TransportKind::Shm) else { return };
    assert!(told.starts_with("connect: the peer is lost: "), "{told}");
}
