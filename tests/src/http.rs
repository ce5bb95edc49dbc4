//! HTTP/1.1 client for tests: one blocking connection per call, raw status and body, streams that can be hung up.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Enough for a prompt of 1,500 tokens in a model of 1.1 billion parameters: two minutes on one slow core.
const DEADLINE: Duration = Duration::from_secs(240);

/// Complete answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header lines in lower case, `name: value`.
    pub headers: Vec<String>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// Parses the body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {:?}", self.body))
    }
}

/// Sends `GET path`.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    Connection::send(address, "GET", path, "")?.finish()
}

/// Sends `POST path` with a JSON body.
pub fn post(address: SocketAddr, path: &str, body: &Value) -> Result<Answer> {
    post_text(address, path, &body.to_string())
}

/// Sends `POST path` with a text as the body.
pub fn post_text(address: SocketAddr, path: &str, body: &str) -> Result<Answer> {
    Connection::send(address, "POST", path, body)?.finish()
}

/// Sends `POST path`; the answer is an event stream, and dropping it hangs up.
pub fn stream(address: SocketAddr, path: &str, body: &Value) -> Result<Events> {
    let connection = Connection::send(address, "POST", path, &body.to_string())?;
    ensure!(connection.status == 200, "{path}: {}", connection.finish()?.body);
    Ok(Events { reader: BufReader::new(Dechunked::new(connection.reader)) })
}

/// Server-sent events of one answer.
#[derive(Debug)]
pub struct Events {
    reader: BufReader<Dechunked>,
}

impl Events {
    /// Returns the next event's data; `None` after `[DONE]`.
    pub fn next_data(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(self.reader.read_line(&mut line)? > 0, "the stream ended without [DONE]");
            match line.trim_end().strip_prefix("data: ") {
                Some("[DONE]") => return Ok(None),
                Some(data) => return Ok(Some(serde_json::from_str(data).with_context(|| format!("event {data:?}"))?)),
                None => {}
            }
        }
    }

    /// Returns every event until `[DONE]`.
    pub fn collect(mut self) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        while let Some(event) = self.next_data()? {
            events.push(event);
        }
        Ok(events)
    }
}

#[derive(Debug)]
struct Connection {
    status: u16,
    headers: Vec<String>,
    reader: BufReader<TcpStream>,
}

impl Connection {
    fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> Result<Connection> {
        let mut stream =
            TcpStream::connect_timeout(&address, DEADLINE).with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        // A server that refuses a body early may close before it has read all of it; its answer decides.
        let _ = stream.write_all(request.as_bytes());
        let mut reader = BufReader::new(stream);
        let mut status_line = String::new();
        reader.read_line(&mut status_line).context("reading the status")?;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("status line {status_line:?}"))?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            ensure!(reader.read_line(&mut line)? > 0, "the headers ended early");
            if line.trim_end().is_empty() {
                break;
            }
            headers.push(line.trim_end().to_lowercase());
        }
        Ok(Connection { status, headers, reader })
    }

    fn finish(mut self) -> Result<Answer> {
        let mut body = String::new();
        if self.headers.iter().any(|header| header == "transfer-encoding: chunked") {
            Dechunked::new(self.reader).read_to_string(&mut body)?;
        } else {
            self.reader.read_to_string(&mut body)?;
        }
        Ok(Answer { status: self.status, headers: self.headers, body })
    }
}

/// Body in HTTP chunks, read as plain bytes.
#[derive(Debug)]
struct Dechunked {
    reader: BufReader<TcpStream>,
    left: usize,
    ended: bool,
}

impl Dechunked {
    fn new(reader: BufReader<TcpStream>) -> Dechunked {
        Dechunked { reader, left: 0, ended: false }
    }

    fn next_chunk(&mut self) -> std::io::Result<()> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16);
        self.left = size.map_err(|_| std::io::Error::other(format!("chunk size {line:?}")))?;
        self.ended = self.left == 0;
        Ok(())
    }
}

impl Read for Dechunked {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && !self.ended {
            self.next_chunk()?;
        }
        if self.ended {
            return Ok(0);
        }
        let wanted = out.len().min(self.left);
        let read = self.reader.read(&mut out[..wanted])?;
        self.left -= read;
        if self.left == 0 && read > 0 {
            let mut end = [0; 2];
            self.reader.read_exact(&mut end)?;
        }
        Ok(read)
    }
}
