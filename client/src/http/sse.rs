//! Incremental parser of server-sent events; knows no HTTP and no JSON.
//!
//! Follows "Server-sent events" of the HTML standard, section 9.2.6 (interpreting an event stream). Fields other than
//! `data` are read and dropped: the API's streams use none.

/// Parser that takes bytes in any pieces and gives the data of one event after another.
#[derive(Debug, Default)]
pub struct SseParser {
    buffer: Vec<u8>,
    /// First byte of `buffer` that has not been read.
    read: usize,
    /// Bytes of `buffer` before this one hold no end of a line.
    searched: usize,
    data: Vec<u8>,
    state: State,
    /// Last line ended in CR: a line feed that follows belongs to it.
    skips_line_feed: bool,
    has_begun: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No data line of the next event has been read.
    #[default]
    Empty,
    /// `data` holds the lines of an event that has not ended.
    Collecting,
    /// `data` was given out.
    Given,
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

impl SseParser {
    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        // Read lines are dropped in one move per push, not per line.
        self.buffer.drain(..self.read);
        self.searched -= self.read;
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that are held: unread ones and those of an unfinished event.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.buffer.len() - self.read + self.data.len()
    }

    /// Reads up to the end of the next event; false if it has not arrived yet. An event without data is none.
    pub fn advance(&mut self) -> bool {
        if self.state == State::Given {
            self.data.clear();
            self.state = State::Empty;
        }
        while let Some((start, end)) = self.next_line() {
            if start == end {
                if self.state == State::Collecting {
                    self.state = State::Given;
                    return true;
                }
                continue;
            }
            self.take_line(start, end);
        }
        false
    }

    /// Data of the event that `advance` has reached, its lines joined by line feeds.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    fn take_line(&mut self, start: usize, end: usize) {
        let line = &self.buffer[start..end];
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        if &line[..colon] != b"data" {
            return;
        }
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if self.state == State::Collecting {
            self.data.push(b'\n');
        }
        self.state = State::Collecting;
        self.data.extend_from_slice(value);
    }

    /// Returns the bounds of the next complete line, without its end.
    fn next_line(&mut self) -> Option<(usize, usize)> {
        if !self.has_begun {
            let start = &self.buffer[..self.buffer.len().min(BYTE_ORDER_MARK.len())];
            if start.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(start) {
                return None;
            }
            self.has_begun = true;
            self.read = if start == BYTE_ORDER_MARK { start.len() } else { 0 };
        }
        if self.skips_line_feed && self.read < self.buffer.len() {
            self.read += usize::from(self.buffer[self.read] == b'\n');
            self.skips_line_feed = false;
        }
        let from = self.read.max(self.searched);
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let Some(end) = self.buffer[from..].iter().position(is_end).map(|at| from + at) else {
            self.searched = self.buffer.len();
            return None;
        };
        let start = self.read;
        self.skips_line_feed = self.buffer[end] == b'\r';
        self.read = end + 1;
        self.searched = self.read;
        Some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(piece);
            while parser.advance() {
                events.push(String::from_utf8_lossy(parser.data()).into_owned());
            }
        }
        events
    }

    #[test]
    fn streams_are_read_as_the_standard_says() {
        for (text, expected) in [
            ("data: a\n\ndata: b\n\n", vec!["a", "b"]),
            ("data: a\r\n\r\ndata: b\r\r", vec!["a", "b"]),
            ("data: a\ndata: b\n\n", vec!["a\nb"]),
            ("data:a\n\ndata:  b\n\n", vec!["a", " b"]),
            (": comment\n\ndata: a\n: more\nid: 7\nevent: x\nretry: 3\n\n", vec!["a"]),
            ("\u{feff}data: a\n\n", vec!["a"]),
            ("data\n\n", vec![""]),
            ("data\ndata\n\n", vec!["\n"]),
            ("data: {\"x\": \"a:b\"}\n\n", vec!["{\"x\": \"a:b\"}"]),
            ("datax: a\n data: b\n\n", vec![]),
            ("data: unfinished\n", vec![]),
            ("\n\n\ndata: a\n\n\n\n", vec!["a"]),
        ] {
            assert_eq!(events([text.as_bytes()]), expected, "{text:?}");
        }
    }

    #[test]
    fn held_bytes_shrink_when_events_are_read() {
        let mut parser = SseParser::default();
        parser.push(b"data: abc\n\nda");
        assert_eq!(parser.held_bytes(), 13);
        assert!(parser.advance() && !parser.advance());
        assert_eq!(parser.held_bytes(), 2);
    }

    proptest! {
        /// Any cut of any stream gives the events of the whole.
        #[test]
        fn pieces_do_not_matter(
            lines in prop::collection::vec("(data: ?[a-zé:{}]{0,6}|: ?c|id: 1|data|\u{feff}|)(\r\n|\n|\r)", 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let text = lines.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(events(pieces), events([text.as_slice()]));
            prop_assert_eq!(events(text.chunks(1)), events([text.as_slice()]));
        }
    }
}
