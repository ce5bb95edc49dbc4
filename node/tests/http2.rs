//! HTTP/2 at the door: used as clients do, and abused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use node::door::{ConnectionLimits, Phase, ReadingPace};
use support::{
    CONTINUATION, DATA, Door, END_HEADERS, END_STREAM, GOAWAY, HEADERS, LARGE_BYTES, PATIENCE, PING, PREFACE, RESET,
    SETTINGS, WINDOW_UPDATE, frame, frame_of, get, head, hello, limits, next_frame, send, until_closed,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const ROOM: u32 = 1 << 20;

/// Bounds in time that a test reaches soon.
fn hasty() -> ConnectionLimits {
    let reading = ReadingPace { behind_max: Duration::from_millis(200), bytes_per_s_min: 1 << 30 };
    ConnectionLimits { head_time_max: Duration::from_millis(100), reading, ..limits() }
}

#[tokio::test]
async fn one_connection_has_many_requests_at_a_time() {
    let door = Door::open(limits(), None).await;
    let stream = TokioIo::new(door.connect().await);
    let (client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let ask = |path: &str, body: &'static str| {
        let request =
            hyper::Request::post(format!("http://localhost{path}")).body(Full::new(Bytes::from(body))).unwrap();
        let mut client = client.clone();
        async move {
            let answer = client.send_request(request).await.unwrap();
            assert!(answer.headers().get("connection").is_none());
            answer.into_body().collect().await.unwrap().to_bytes()
        }
    };
    let (slow, quick, large) = tokio::join!(ask("/slow", ""), ask("/", "12345"), ask("/large", ""));
    assert_eq!((&slow[..], &quick[..], large.len()), (&b"slow"[..], &b"HTTP/2.0 5"[..], LARGE_BYTES));
    drop(client);
    door.shut().await;
}

#[tokio::test]
async fn http_1_is_spoken_beside_it() {
    let door = Door::open(limits(), None).await;
    // `P` begins the preface of HTTP/2, too.
    for request in ["GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "PUT / HTTP/1.0\r\n\r\n"] {
        let mut client = door.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = String::from_utf8(until_closed(&mut client).await).unwrap();
        assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 "), "{answer}");
    }
    door.shut().await;
}

/// Found by trying: the time to send a request ran while nobody was there.
#[tokio::test]
async fn the_first_client_after_a_quiet_time_is_served() {
    let time = Duration::from_secs(1);
    let door = Door::open(ConnectionLimits { head_time_max: time, ..limits() }, None).await;
    tokio::time::sleep(time + time / 4).await;
    let mut client = door.connect().await;
    send(&mut client, b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    let answer = String::from_utf8(until_closed(&mut client).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    door.shut().await;
}

/// Each of these owes a request, in its own way.
#[tokio::test]
async fn who_sends_no_whole_head_is_sent_away() {
    let door = Door::open(hasty(), None).await;
    let begun = frame(HEADERS, END_STREAM, 1, &head("/"));
    for said in [
        PREFACE[..10].to_vec(),
        PREFACE.to_vec(),
        hello(ROOM),
        [hello(ROOM), begun].concat(),
        [hello(ROOM), get(1, "/")].concat(),
        [hello(ROOM), frame(PING, 0, 0, &[0; 8])].concat(),
    ] {
        let mut client = door.connect().await;
        send(&mut client, &said).await;
        until_closed(&mut client).await;
    }
    door.shut().await;
}

/// The client reads everything and has a running request, so that neither a write nor the connection stands still.
#[tokio::test]
async fn an_answer_that_gets_no_room_ends_its_connection() {
    let door = Door::open(hasty(), None).await;
    for window in [0, 1, 30_000] {
        let mut client = door.connect().await;
        send(&mut client, &[hello(window), get(1, "/never"), get(3, "/large")].concat()).await;
        let read = until_closed(&mut client).await;
        assert!(read.len() < 100_000, "{window}: {}", read.len());
    }
    // The whole answer is handed out, but for its last byte.
    let mut client = door.connect().await;
    send(&mut client, &[hello(9), get(1, "/never"), get(3, "/")].concat()).await;
    until_closed(&mut client).await;
    door.shut().await;
}

/// An answer whose last piece were kept by somebody would count as waiting.
#[tokio::test]
async fn answers_that_are_taken_end_nothing() {
    let door = Door::open(hasty(), None).await;
    let mut client = door.connect().await;
    let room = frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    send(&mut client, &[hello(1 << 30), room, get(1, "/never"), get(3, "/"), get(5, "/large")].concat()).await;
    let mut bytes = 0;
    while bytes < LARGE_BYTES {
        let (stream, data) = frame_of(&mut client, DATA).await.expect("a large answer");
        bytes += if stream == 5 { data.len() } else { 0 };
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    send(&mut client, &get(7, "/")).await;
    loop {
        let (stream, data) = frame_of(&mut client, DATA).await.expect("the connection goes on");
        if stream == 7 {
            break assert_eq!(data, b"HTTP/2.0 0");
        }
    }
    drop(client);
    door.shut().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up() {
    let door = Door::open(hasty(), None).await;
    let mut client = door.connect().await;
    let largest = (1 << 31) - 1;
    let room = frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    let many: Vec<u8> = (0..20).flat_map(|place| get(1 + 2 * place, "/large")).collect();
    send(&mut client, &[hello(largest), room, many].concat()).await;
    // Reading only now, all that was sent before the end is small against what was asked for.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let read = until_closed(&mut client).await;
    assert!(read.len() < 20 * LARGE_BYTES / 2, "{}", read.len());
    door.shut().await;
}

#[tokio::test]
async fn pings_whose_answers_nobody_reads_end_in_a_closed_connection() {
    let door = Door::open(hasty(), None).await;
    let mut client = door.connect().await;
    send(&mut client, &[hello(ROOM), get(1, "/never")].concat()).await;
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(10_000);
    let flood = async { while client.write_all(&pings).await.is_ok() {} };
    timeout(PATIENCE, flood).await.expect("the connection is closed");
    door.shut().await;
}

#[tokio::test]
async fn a_client_that_gives_up_what_it_asks_for_is_sent_away() {
    let door = Door::open(limits(), None).await;
    let mut client = door.connect().await;
    send(&mut client, &hello(ROOM)).await;
    let (mut reading, mut writing) = client.split();
    let flood = async {
        for place in 0..100_000 {
            let stream = 1 + 2 * place;
            let request = [get(stream, "/never"), frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat();
            if writing.write_all(&request).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    };
    let told = tokio::select! {
        told = frame_of(&mut reading, GOAWAY) => told,
        () = flood => None,
    };
    let last = told.map(|(_, payload)| payload);
    assert!(last.is_some(), "the client is told to go");
    drop(client);
    door.shut().await;
}

#[tokio::test]
async fn streams_of_one_connection_are_bounded_and_heads_too() {
    let door = Door::open(limits(), None).await;
    let mut client = door.connect().await;
    let many: Vec<u8> = (0..200).flat_map(|place| get(1 + 2 * place, "/never")).collect();
    send(&mut client, &[hello(ROOM), many].concat()).await;
    let (stream, reason) = frame_of(&mut client, RESET).await.expect("one is too many");
    assert_eq!((stream, &reason[..]), (1 + 2 * 128, &7_u32.to_be_bytes()[..]), "the 129th is refused, not begun");
    drop(client);

    let mut client = door.connect().await;
    let filler = [&[0x00, 1, b'a', 0x7f, 0x81, 0x7e][..], &[b'x'; 16_000]].concat();
    let mut bomb = [hello(ROOM), frame(HEADERS, END_STREAM, 1, &head("/"))].concat();
    for _ in 0..200 {
        bomb.extend(frame(CONTINUATION, 0, 1, &filler[..16_000]));
    }
    send(&mut client, &bomb).await;
    until_closed(&mut client).await;
    door.shut().await;
}

/// What a request may cost before it is let in is bounded by the number of connections.
#[tokio::test]
async fn streams_of_all_connections_are_no_more_than_connections_may_be() {
    let door = Door::open(ConnectionLimits { connections_max: 3, ..limits() }, None).await;
    let mut first = door.connect().await;
    send(&mut first, &[hello(ROOM), get(1, "/never"), get(3, "/never")].concat()).await;
    let mut second = door.connect().await;
    send(&mut second, &[hello(ROOM), get(1, "/never"), get(3, "/"), get(5, "/")].concat()).await;
    for stream in [3, 5] {
        assert_eq!(frame_of(&mut second, DATA).await.expect("an answer"), (stream, b"crowded".to_vec()));
    }
    drop(first);
    is_answered(&mut second, 7).await;
    drop(second);
    door.shut().await;
}

/// Asks until there is room.
async fn is_answered(client: &mut TcpStream, mut stream: u32) {
    loop {
        send(client, &get(stream, "/")).await;
        match &frame_of(client, DATA).await.expect("an answer").1[..] {
            b"HTTP/2.0 0" => return,
            other => assert_eq!(other, b"crowded"),
        }
        stream += 2;
    }
}

#[tokio::test]
async fn who_owes_the_rest_of_many_requests_keeps_nobody_out() {
    let door = Door::open(ConnectionLimits { connections_max: 3, ..limits() }, None).await;
    let mut owing = door.connect().await;
    let halves = [1, 3, 5].map(|stream| frame(HEADERS, END_HEADERS, stream, &head("/"))).concat();
    send(&mut owing, &[hello(ROOM), halves].concat()).await;
    assert!(frame_of(&mut owing, SETTINGS).await.is_some());
    let mut client = door.connect().await;
    send(&mut client, &hello(ROOM)).await;
    is_answered(&mut client, 1).await;
    until_closed(&mut owing).await;
    drop(client);
    door.shut().await;
}

#[tokio::test]
async fn a_connection_without_a_request_gives_its_place_away() {
    let door = Door::open(ConnectionLimits { connections_max: 1, ..limits() }, None).await;
    let mut first = door.connect().await;
    send(&mut first, &hello(ROOM)).await;
    assert!(frame_of(&mut first, SETTINGS).await.is_some());
    let mut second = door.connect().await;
    send(&mut second, &[hello(ROOM), get(1, "/")].concat()).await;
    assert_eq!(frame_of(&mut second, DATA).await.expect("an answer").1, b"HTTP/2.0 0");
    until_closed(&mut first).await;
    drop(second);
    door.shut().await;
}

#[tokio::test]
async fn a_door_that_closes_says_goodbye_and_lets_what_runs_end() {
    let door = Door::open(limits(), None).await;
    let mut client = door.connect().await;
    send(&mut client, &[hello(ROOM), get(1, "/slow")].concat()).await;
    assert!(frame_of(&mut client, SETTINGS).await.is_some());
    tokio::time::sleep(Duration::from_millis(50)).await;
    door.phase.send_replace(Phase::Leaving);
    assert!(frame_of(&mut client, GOAWAY).await.is_some(), "the client learns that it should go elsewhere");

    let mut newcomer = door.connect().await;
    send(&mut newcomer, &[hello(ROOM), get(1, "/")].concat()).await;
    let (mut is_answered, mut is_told) = (false, false);
    while let Some((kind, _, _, payload)) = next_frame(&mut newcomer).await {
        is_answered |= kind == DATA && payload == b"HTTP/2.0 0";
        is_told |= kind == GOAWAY;
        if kind == PING {
            send(&mut newcomer, &frame(PING, 1, 0, &payload)).await;
        }
        if is_answered && is_told {
            break;
        }
    }
    assert!(is_answered && is_told, "a newcomer is served, and told");
    drop(newcomer);
    door.phase.send_replace(Phase::Shut);
    assert_eq!(frame_of(&mut client, DATA).await.expect("what runs ends").1, b"slow");
    drop(client);
    door.shut().await;
}

#[tokio::test]
async fn what_is_no_http_2_is_answered_or_closed() {
    let door = Door::open(hasty(), None).await;
    for said in [
        [PREFACE, &[0xff; 64]].concat(),
        [hello(ROOM), frame(DATA, 0, 5, b"x")].concat(),
        [hello(ROOM), frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 20])].concat(),
        [hello(ROOM), frame(SETTINGS, 0, 0, &[0; 5])].concat(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
    ] {
        let mut client = door.connect().await;
        send(&mut client, &said).await;
        until_closed(&mut client).await;
    }
    let mut client = door.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    client.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200", "nobody else is held up");
    drop(client);
    door.shut().await;
}
