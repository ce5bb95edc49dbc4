//! Lines to standard output or standard error that never block the writer; knows nothing of their contents.
//!
//! A line goes into a bounded queue; a separate thread writes. Lines that are not read in time, or that a full disk or
//! a closed pipe refuses, are dropped and counted, and reported once writing works again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Most bytes of lines that may wait.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Longest line; the rest is cut off. The start report of a worker with 64 broken pairs is shorter.
const LINE_BYTES_MAX: usize = 512 << 10;
/// Time for the last lines of a process to be written, as perhaps nobody reads them.
pub const LAST_LINES: Duration = Duration::from_millis(500);
/// Pause between writes to a full descriptor that another process has made non-blocking.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// Destination of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard error: log lines, and the reason for which a process ends.
    Stderr,
    /// Standard output: messages of `serve` for people, and of workers for their supervisor.
    Stdout,
}

impl Stream {
    /// Both streams.
    pub const ALL: [Stream; 2] = [Stream::Stderr, Stream::Stdout];

    /// Returns the stream's name, as a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Stream::Stderr => "stderr",
            Stream::Stdout => "stdout",
        }
    }

    /// Starts the writing thread, as the first line would.
    pub fn open(self) {
        let _ = self.lines();
    }

    /// Queues a line, given without its line end. Never blocks.
    pub fn line(self, text: &str) {
        self.lines().put(text.as_bytes());
    }

    /// Waits until everything queued is written, at most `limit`.
    pub fn flush(self, limit: Duration) {
        self.lines().flush(limit);
    }

    /// Returns the number of lines dropped so far.
    #[must_use]
    pub fn dropped(self) -> u64 {
        self.lines().dropped.load(Ordering::Relaxed)
    }

    fn lines(self) -> &'static Lines {
        static STDERR: OnceLock<&'static Lines> = OnceLock::new();
        static STDOUT: OnceLock<&'static Lines> = OnceLock::new();
        let lines = match self {
            Stream::Stderr => &STDERR,
            Stream::Stdout => &STDOUT,
        };
        lines.get_or_init(|| {
            let lines: &'static Lines = Box::leak(Box::default());
            // Without a descriptor or a thread every line is dropped and counted.
            match self.descriptor() {
                Ok(descriptor) => lines.start(self.label(), File::from(descriptor)),
                Err(_) => lines.refuse(),
            }
            lines
        })
    }

    /// Duplicates the descriptor, so that writers to the original never wait for this thread.
    fn descriptor(self) -> std::io::Result<OwnedFd> {
        match self {
            Stream::Stderr => std::io::stderr().as_fd().try_clone_to_owned(),
            Stream::Stdout => std::io::stdout().as_fd().try_clone_to_owned(),
        }
    }
}

/// Buffer for one formatted event, which is queued when this is dropped.
#[derive(Debug)]
pub struct PendingLine {
    stream: Stream,
    bytes: Vec<u8>,
}

impl PendingLine {
    /// Makes an empty line of `stream`.
    #[must_use]
    pub const fn of(stream: Stream) -> PendingLine {
        PendingLine { stream, bytes: Vec::new() }
    }
}

impl Write for PendingLine {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for PendingLine {
    fn drop(&mut self) {
        let line = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        if !line.is_empty() {
            self.stream.lines().put(line);
        }
    }
}

#[derive(Debug, Default)]
struct Lines {
    queue: Mutex<Queue>,
    /// Signals that a line was queued, or that everything is written.
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    writer: Writer,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Writer {
    #[default]
    Idle,
    Writing,
    /// No thread exists, now or later.
    Absent,
}

impl Lines {
    fn start(&'static self, name: &str, target: File) {
        let started = thread::Builder::new().name(format!("write-{name}")).spawn(move || self.write_all(target));
        if started.is_err() {
            self.refuse();
        }
    }

    fn refuse(&self) {
        self.queue().writer = Writer::Absent;
    }

    fn put(&self, line: &[u8]) {
        let mut bytes = line[..line.len().min(LINE_BYTES_MAX)].to_vec();
        bytes.push(b'\n');
        let mut queue = self.queue();
        if queue.writer == Writer::Absent || queue.bytes + bytes.len() > QUEUE_BYTES_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += bytes.len();
        queue.lines.push_back(bytes);
        self.changed.notify_all();
    }

    fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut queue = self.queue();
        while queue.writer != Writer::Absent && !(queue.lines.is_empty() && queue.writer == Writer::Idle) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Writes for ever; the body of the thread.
    fn write_all(&self, target: File) {
        let mut target = Target { file: target, line: Whole::Ended };
        let mut unsaid = 0;
        loop {
            let line = self.next_line();
            let before = self.dropped.load(Ordering::Relaxed);
            let written = target.write(&line);
            if written.is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            let is_last = self.done_with(line.len());
            if written.is_ok() && is_last && before > unsaid {
                let lines = before - unsaid;
                unsaid = before;
                tracing::warn!(lines, "lines could not be written in time and were dropped");
            }
        }
    }

    fn next_line(&self) -> Vec<u8> {
        let mut queue = self.queue();
        loop {
            if let Some(line) = queue.lines.pop_front() {
                queue.writer = Writer::Writing;
                return line;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns the room of a line; true if no line is left.
    fn done_with(&self, bytes: usize) -> bool {
        let mut queue = self.queue();
        queue.bytes -= bytes;
        queue.writer = Writer::Idle;
        self.changed.notify_all();
        queue.lines.is_empty()
    }

    /// Never locked while writing.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Descriptor, with the state of its last line.
struct Target {
    file: File,
    line: Whole,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    Begun,
    Ended,
}

impl Target {
    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.line == Whole::Begun {
            self.write_bytes(b"\n")?;
        }
        self.write_bytes(line)
    }

    fn write_bytes(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.line = if bytes.is_empty() { Whole::Ended } else { Whole::Begun };
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn lines_to(target: impl Into<OwnedFd>) -> &'static Lines {
        let lines: &'static Lines = Box::leak(Box::default());
        lines.start("test", File::from(target.into()));
        lines
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_what_is_dropped_is_counted() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let lines = lines_to(writer);
        let line = [b'x'; 1_000];
        let began = Instant::now();
        for _ in 0..3_000 {
            lines.put(&line);
        }
        lines.flush(Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(30), "nobody was held up for ever");
        let dropped = lines.dropped.load(Ordering::Relaxed);
        assert!(dropped > 1_500, "1 MiB and a pipe are kept, {dropped} dropped");
        let mut read = vec![0; (3_000 - dropped as usize) * 1_001];
        reader.read_exact(&mut read).unwrap();
        lines.put(b"last");
        let mut last = [0; 5];
        reader.read_exact(&mut last).unwrap();
        assert_eq!(&last, b"last\n", "once it is read, writing goes on");
        assert_eq!(lines.dropped.load(Ordering::Relaxed), dropped);
    }

    #[test]
    fn a_reader_that_has_gone_and_a_full_disk_cost_lines_only() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let full = File::options().write(true).open("/dev/full").unwrap();
        for lines in [lines_to(writer), lines_to(full)] {
            (0..10).for_each(|_| lines.put(b"nobody"));
            lines.flush(Duration::from_secs(20));
            assert_eq!(lines.dropped.load(Ordering::Relaxed), 10);
        }
    }

    #[test]
    fn a_line_has_a_bound() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let lines = lines_to(writer);
        lines.put(&vec![b'y'; 5 * LINE_BYTES_MAX]);
        let mut read = vec![0; LINE_BYTES_MAX + 1];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(read.last(), Some(&b'\n'));
    }
}
