//! Passes a child's standard error on, line by line; always reads, so that no child waits for the reader of ours.

use node::telemetry::Stream;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};

/// Longest line; a longer one is passed on in pieces.
const LINE_BYTES_MAX: usize = 32 << 10;

/// Reads until the child closes its end. A line without the child's name (of a library, or the allocator) gets it as a
/// prefix.
pub(super) async fn to_stderr(name: String, child: impl AsyncRead + Unpin) {
    let mut child = BufReader::new(child);
    while let Some(line) = next_line(&mut child).await {
        match line.contains(&name) {
            true => Stream::Stderr.line(&line),
            false => Stream::Stderr.line(&format!("{name}: {line}")),
        }
    }
}

/// Returns the next line without its end; `None` at the end or on an error.
async fn next_line(child: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let available = child.fill_buf().await.ok()?;
        if available.is_empty() {
            return (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned());
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        line.extend_from_slice(&available[..taken]);
        child.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() || line.len() >= LINE_BYTES_MAX {
            return Some(String::from_utf8_lossy(&line).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_told_apart_and_bounded() {
        let long = "z".repeat(3 * LINE_BYTES_MAX);
        let text = format!("one\n\n{long}\nlast");
        let mut child = BufReader::new(text.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut child).await {
            lines.push(line);
        }
        assert_eq!(lines[..2], ["one", ""]);
        assert_eq!(lines.last().map(String::as_str), Some("last"));
        assert!(lines.iter().all(|line| line.len() < LINE_BYTES_MAX + (16 << 10)));
        assert_eq!(lines.concat(), text.replace('\n', ""));
    }
}
