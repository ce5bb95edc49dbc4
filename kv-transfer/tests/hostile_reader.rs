//! Readers that break the rules of the tcp transport: its owner answers or hangs up, and goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness::{POOL_BYTES, Worker, everything};
use kv_transfer::{KvTransport, Limits, TransferError, TransportKind};

const GREETING_BYTES: usize = 42;
const REPLY_BYTES: usize = 24;

fn dial(owner: &Worker, greeting: &[u8]) -> TcpStream {
    let endpoint = owner.transport.endpoint();
    let text = String::from_utf8_lossy(&endpoint);
    let from = text.find("127.0.0.1:").unwrap() + "127.0.0.1:".len();
    let port: String = text[from..].chars().take_while(char::is_ascii_digit).collect();
    let mut stream = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(greeting).unwrap();
    stream
}

fn greeting(owner: &Worker) -> Vec<u8> {
    // Instance and token from the endpoint.
    let told = owner.transport.endpoint()[7..39].to_vec();
    [b"kv-pull\n".as_slice(), &2_u16.to_le_bytes(), &told].concat()
}

fn request(tag: u32, region: u32, lease: u64, offset: u64, bytes: u64) -> Vec<u8> {
    let (head, tail) = ([tag, region], [lease, 77, offset, bytes]);
    let head = head.iter().flat_map(|field| field.to_le_bytes());
    head.chain(tail.iter().flat_map(|field| field.to_le_bytes())).collect()
}

/// The tag, id and length of the next reply.
fn reply(stream: &mut TcpStream) -> [u64; 3] {
    let mut frame = [0; REPLY_BYTES];
    stream.read_exact(&mut frame).unwrap();
    [0, 8, 16].map(|at| u64::from_le_bytes(frame[at..at + 8].try_into().unwrap()))
}

fn hung_up(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 64]), Ok(0)) || stream.take_error().unwrap().is_some() || {
        // Unread input makes the owner's close a reset.
        stream.read(&mut [0; 64]).is_ok_and(|bytes| bytes == 0)
    }
}

fn still_serves(owner: &Worker) {
    let mut reader = Worker::new(TransportKind::Tcp);
    let peer = reader.connect_to(owner);
    assert_eq!(reader.pull(peer, everything()), Ok(POOL_BYTES as u64));
}

#[test]
fn reads_outside_a_region_are_answered_with_a_refusal() {
    let owner = Worker::owner(TransportKind::Tcp, 1);
    let mut stream = dial(&owner, &greeting(&owner));
    stream.read_exact(&mut [0; 11]).unwrap();
    let lease = harness::LEASE.0;
    let pool = POOL_BYTES as u64;
    let (refused_bounds, refused_lease) = ([4, 77, 0], [3, 77, 0]);
    for (region, offset, bytes) in [(0, pool, 1), (0, u64::MAX, 2), (0, pool - 1, 2), (1, 0, 1), (u32::MAX, 0, 1)] {
        stream.write_all(&request(2, region, lease, offset, bytes)).unwrap();
        assert_eq!(reply(&mut stream), refused_bounds, "region {region}, {bytes} bytes at {offset}");
    }
    stream.write_all(&request(2, 0, 999, 0, 8)).unwrap();
    assert_eq!(reply(&mut stream), refused_lease);
    stream.write_all(&request(1, 0, 0, 0, 2 << 20)).unwrap();
    assert_eq!(reply(&mut stream), refused_bounds, "the probe page ends too");
    stream.write_all(&request(2, 0, lease, 0, 8)).unwrap();
    assert_eq!(reply(&mut stream), [1, 77, 8], "the connection is still good");
    still_serves(&owner);
}

#[test]
fn nonsense_is_hung_up_on() {
    let owner = Worker::owner(TransportKind::Tcp, 1);
    let mut stream = dial(&owner, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(hung_up(&mut stream));
    for bad in [request(9, 0, 0, 0, 0), request(2, 0, harness::LEASE.0, 0, u64::MAX)] {
        let mut stream = dial(&owner, &greeting(&owner));
        stream.read_exact(&mut [0; 11]).unwrap();
        stream.write_all(&bad).unwrap();
        assert!(hung_up(&mut stream));
    }
    still_serves(&owner);
}

#[test]
fn another_version_is_told_so() {
    let owner = Worker::owner(TransportKind::Tcp, 1);
    let mut words = greeting(&owner);
    assert_eq!(words.len(), GREETING_BYTES);
    words[8] = 9;
    let mut stream = dial(&owner, &words);
    let mut answer = [0; 11];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[8..], [2, 0, 2], "our version, and that theirs is wrong");
    assert!(hung_up(&mut stream));
}

#[test]
fn readers_beyond_the_limit_are_told_so() {
    let limits = Limits { readers_max: 1, ..Limits::default() };
    let owner = Worker::with(TransportKind::Tcp, POOL_BYTES, limits).filled(1);
    let mut first = Worker::new(TransportKind::Tcp);
    let peer = first.connect_to(&owner);
    let mut second = Worker::new(TransportKind::Tcp);
    let refused = second.connect(&owner.transport.endpoint()).unwrap_err();
    assert!(
        matches!(&refused, TransferError::PeerLost { reason, .. } if reason.contains("no more readers")),
        "{refused}"
    );
    assert_eq!(first.pull(peer, everything()), Ok(POOL_BYTES as u64));
}

#[test]
fn whoever_was_not_told_the_token_reads_nothing() {
    let owner = Worker::owner(TransportKind::Tcp, 1);
    let mut words = greeting(&owner);
    words[30] ^= 1;
    let mut stream = dial(&owner, &words);
    let mut answer = [0; 11];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[10], 4, "a stranger");
    assert!(hung_up(&mut stream));
    for kind in [TransportKind::Tcp, TransportKind::Shm] {
        let owner = Worker::owner(kind, 1);
        let mut endpoint = owner.transport.endpoint();
        endpoint[30] ^= 1;
        let refused = Worker::new(kind).connect(&endpoint).unwrap_err();
        assert_eq!(refused, TransferError::NotAdmitted, "{kind}");
    }
}

/// A reader gets in however many connections stay silent, and those are closed.
#[test]
fn silent_connections_keep_nobody_out() {
    let limits = Limits { readers_max: 2, ..Limits::default() };
    let owner = Worker::with(TransportKind::Tcp, POOL_BYTES, limits).filled(1);
    let mut silent: Vec<_> = (0..300).map(|_| dial(&owner, b"")).collect();
    still_serves(&owner);
    let mut half = dial(&owner, &greeting(&owner)[..20]);
    still_serves(&owner);
    assert!(hung_up(&mut silent[0]), "the longest silence goes first");
    assert!(hung_up(&mut half) && hung_up(&mut silent[299]), "nobody may be silent for long");
    still_serves(&owner);
}

/// After the end of a lease zeroes are sent for its bytes, and the reader's other reads go on.
#[test]
fn a_lease_that_ends_under_a_reply_is_not_served_from() {
    const READ: u64 = 2 << 20;
    let owner = Worker::owner(TransportKind::Tcp, 1);
    let mut stream = dial(&owner, &greeting(&owner));
    stream.read_exact(&mut [0; 11]).unwrap();
    // More replies than the socket holds, so that the owner waits in the middle of one.
    let lease = harness::LEASE.0;
    for _ in 0..8 {
        stream.write_all(&request(2, 0, lease, 0, READ)).unwrap();
    }
    assert_eq!(reply(&mut stream), [1, 77, READ]);
    std::thread::sleep(Duration::from_millis(200));
    owner.leases.revoke(harness::LEASE);
    owner.overwrite(0xEE);
    let mut bytes = vec![0; READ as usize];
    stream.read_exact(&mut bytes).unwrap();
    let (mut served, mut refused) = (1, 0);
    for _ in 1..8 {
        match reply(&mut stream) {
            [1, 77, READ] => served += 1,
            [2, 77, 0] => {
                refused += 1;
                continue;
            }
            other => panic!("{other:?}"),
        }
        stream.read_exact(&mut bytes).unwrap();
        let torn = bytes.windows(16).any(|window| window == [0xEE; 16]);
        assert!(!torn, "reply {served} has bytes from after the end of the lease");
    }
    assert!(refused > 0, "the socket took {served} replies at once: nothing was shown");
}

#[test]
fn a_request_for_more_than_one_read_is_hung_up_on() {
    let owner = Worker::owner(TransportKind::Tcp, 1);
    let mut stream = dial(&owner, &greeting(&owner));
    stream.read_exact(&mut [0; 11]).unwrap();
    stream.write_all(&request(2, 0, harness::LEASE.0, 0, (2 << 20) + 1)).unwrap();
    assert!(hung_up(&mut stream));
}
