//! What the owner of a tcp transport does with a reader that breaks the rules: it answers or hangs up, and lives on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness::{POOL_BYTES, Worker, everything};
use kv_transfer::{KvTransport, Limits, TransferError, TransportKind};

const GREETING_BYTES: usize = 26;
const REPLY_BYTES: usize = 24;

/// A connection of our own, past the greeting unless `greeting` spoils it.
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
    let instance = owner.transport.endpoint()[7..23].to_vec();
    [b"kv-pull\n".as_slice(), &1_u16.to_le_bytes(), &instance].concat()
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
    for (region, offset, bytes) in [(0, pool, 1), (0, u64::MAX, 2), (0, 1, pool), (1, 0, 1), (u32::MAX, 0, 1)] {
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
    assert_eq!(answer[8..], [1, 0, 2], "our version, and that theirs is wrong");
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
