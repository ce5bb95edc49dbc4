//! The tcp transport over links that are slow, swallow bytes, or have lost their far end, played by a relay between
//! reader and owner.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::{POOL_BYTES, Worker, copy, everything};
use kv_transfer::{Batch, KvTransport, Limits, TransferError, TransferEvent, TransportKind};

/// Passes bytes on, from the owner at a limited rate, until it is told to swallow them all.
struct Relay {
    address: SocketAddr,
    swallows: Arc<AtomicBool>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn before(owner: SocketAddr, bytes_per_second: u64) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, swallows) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let swallowing = Arc::clone(&swallows);
        let sockets = Arc::new(Mutex::new(Vec::new()));
        let relayed = Arc::clone(&sockets);
        std::thread::spawn(move || {
            for reader in listener.incoming() {
                let (reader, owner) = (reader.unwrap(), TcpStream::connect(owner).unwrap());
                reader.set_nodelay(true).unwrap();
                owner.set_nodelay(true).unwrap();
                relayed.lock().unwrap().extend([reader.try_clone().unwrap(), owner.try_clone().unwrap()]);
                let (asks, answers) = ((reader.try_clone().unwrap(), owner.try_clone().unwrap()), (owner, reader));
                let (first, second) = (Arc::clone(&swallowing), Arc::clone(&swallowing));
                std::thread::spawn(move || pass(asks, u64::MAX, &first));
                std::thread::spawn(move || pass(answers, bytes_per_second, &second));
            }
        });
        Relay { address, swallows, sockets }
    }

    /// From now on the relay gets and acknowledges no packet: both connections are half-open, as after a power loss.
    fn vanish(&self) {
        let mut nothing = [libc::sock_filter { code: libc::BPF_RET as u16, jt: 0, jf: 0, k: 0 }];
        let program = libc::sock_fprog { len: 1, filter: nothing.as_mut_ptr() };
        let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
        for socket in self.sockets.lock().unwrap().iter() {
            let (socket, value) = (socket.as_raw_fd(), (&raw const program).cast());
            // SAFETY: the option's value is a live program of one instruction, which the kernel copies.
            let set = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, length) };
            assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        }
    }

    /// From now on nothing is passed on while everything is acknowledged: the connections look healthy.
    fn swallow(&self) {
        self.swallows.store(true, Ordering::SeqCst);
    }
}

fn pass((mut from, mut to): (TcpStream, TcpStream), bytes_per_second: u64, swallows: &AtomicBool) {
    let mut buffer = vec![0; 16 << 10];
    let (begun, mut passed) = (Instant::now(), 0);
    while let Ok(some @ 1..) = from.read(&mut buffer) {
        if swallows.load(Ordering::SeqCst) {
            continue;
        }
        passed += some as u64;
        let due = Duration::from_secs_f64(passed as f64 / bytes_per_second as f64);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        if to.write_all(&buffer[..some]).is_err() {
            return;
        }
    }
    let _already_gone = to.shutdown(std::net::Shutdown::Both);
}

fn address_of(endpoint: &[u8]) -> SocketAddr {
    let text = String::from_utf8_lossy(endpoint);
    let from = text.find("127.0.0.1:").unwrap() + "127.0.0.1:".len();
    let port: String = text[from..].chars().take_while(char::is_ascii_digit).collect();
    SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
}

fn through(endpoint: &[u8], relay: SocketAddr) -> Vec<u8> {
    let (old, new) = (address_of(endpoint).to_string(), relay.to_string());
    let at = endpoint.windows(old.len()).position(|window| window == old.as_bytes()).unwrap();
    let length = (new.len() as u16).to_le_bytes();
    [&endpoint[..at - 2], &length, new.as_bytes(), &endpoint[at + old.len()..]].concat()
}

/// Ten hand-offs of 2,048 tokens at once over 1 Gbit/s. The 134M shape has 36,864 bytes of KV per token, so a hand-off
/// is 75.5 MB, which is 0.6 s of such a link. Bytes and rate are both a hundredth here: 755 kB each at 1.25 MB/s. A
/// batch may be read for 2 s, so that only the first three would arrive if waiting counted.
#[test]
fn ten_hand_offs_at_once_over_a_slow_link_all_arrive_once() {
    const BYTES: u64 = 2048 * 36_864 / 100;
    const RATE: u64 = 1_000_000_000 / 8 / 100;
    // The probe at connect takes 5 MiB, which is 4 s of this link.
    let limits = Limits { connect_deadline: Duration::from_secs(20), ..Limits::default() };
    let owner = Worker::owner(TransportKind::Tcp, 1);
    let mut reader = Worker::with(TransportKind::Tcp, POOL_BYTES, limits);
    let endpoint = owner.transport.endpoint();
    let relay = Relay::before(address_of(&endpoint), RATE);
    let (peer, probe) = reader.connect(&through(&endpoint, relay.address)).unwrap();
    assert!(probe.bytes_per_second() < 2.0 * RATE as f64, "the link is slow: {probe:?}");
    let mut tickets = Vec::new();
    for index in 0..10 {
        let reading = Duration::from_secs(2);
        let batch = Batch { reading, ..reader.batch(vec![copy(index * 8, index * BYTES, BYTES)]) };
        tickets.push(reader.transport.start(peer, batch).unwrap());
    }
    let ended: Vec<_> = (0..10).map(|_| reader.next()).collect();
    for (ticket, event) in tickets.iter().zip(&ended) {
        let done = matches!(event, TransferEvent::Done { ticket: ended, bytes: BYTES, .. } if ended == ticket);
        assert!(done, "{event:?} of {ended:?}");
    }
    for index in 0..10 {
        assert!(reader.bytes(index * BYTES, BYTES) == harness::expected(1, index * 8, BYTES));
    }
}

fn goes_down(reader: &mut Worker, within: Duration) -> Vec<TransferEvent> {
    let begun = Instant::now();
    let mut events = Vec::new();
    loop {
        let left = within.checked_sub(begun.elapsed()).unwrap_or_else(|| panic!("not within {within:?}: {events:?}"));
        let Some(event) = reader.next_within(left) else { continue };
        let down = matches!(event, TransferEvent::PeerDown { .. });
        events.push(event);
        if down {
            return events;
        }
    }
}

/// Everything is acknowledged and no byte comes: the peer goes down, with or without a read in flight.
#[test]
fn a_path_that_swallows_everything_ends_the_peer() {
    a_dead_path_ends_the_peer(Relay::swallow);
}

#[test]
fn a_half_open_connection_ends_the_peer() {
    a_dead_path_ends_the_peer(Relay::vanish);
}

#[test]
fn a_reader_that_has_vanished_makes_room_for_another() {
    let limits = Limits { readers_max: 1, ..Limits::default() };
    let owner = Worker::with(TransportKind::Tcp, POOL_BYTES, limits).filled(1);
    let endpoint = owner.transport.endpoint();
    let relay = Relay::before(address_of(&endpoint), u64::MAX);
    let mut gone = Worker::new(TransportKind::Tcp);
    gone.connect(&through(&endpoint, relay.address)).unwrap();
    relay.vanish();
    let begun = Instant::now();
    let mut next = Worker::new(TransportKind::Tcp);
    let peer = loop {
        match next.connect(&endpoint) {
            Ok((peer, _)) => break peer,
            Err(error) => assert!(begun.elapsed() < harness::PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(next.pull(peer, everything()), Ok(POOL_BYTES as u64));
}

fn a_dead_path_ends_the_peer(die: fn(&Relay)) {
    for busy in [true, false] {
        let owner = Worker::owner(TransportKind::Tcp, 1);
        let limits = Limits {
            silence: Duration::from_millis(600),
            idle_probe: Duration::from_millis(300),
            connect_deadline: Duration::from_secs(10),
            ..Limits::default()
        };
        let mut reader = Worker::with(TransportKind::Tcp, POOL_BYTES, limits);
        let endpoint = owner.transport.endpoint();
        let relay = Relay::before(address_of(&endpoint), u64::MAX);
        let peer = reader.connect(&through(&endpoint, relay.address)).unwrap().0;
        // A path that is idle for longer than `silence` is not dead.
        assert_eq!(reader.next_within(Duration::from_millis(1500)), None);
        assert_eq!(reader.pull(peer, everything()), Ok(POOL_BYTES as u64));
        die(&relay);
        let ticket = busy.then(|| reader.start(peer, everything()));
        let events = goes_down(&mut reader, Duration::from_secs(10));
        let Some(TransferEvent::PeerDown { error: TransferError::PeerLost { reason, .. }, .. }) = events.last() else {
            panic!("{events:?}")
        };
        assert!(reason.contains("sent nothing"), "{reason}");
        let ended: Vec<_> = events.iter().filter_map(TransferEvent::ended).collect();
        assert_eq!(ended, ticket.into_iter().collect::<Vec<_>>(), "what was read ends before its peer");
        reader.overwrite(0x55);
        std::thread::sleep(Duration::from_millis(50));
        assert!(reader.is_all(0x55));
    }
}
