//! Finds stop strings in text that arrives in pieces; knows no token.

use std::sync::Arc;

/// Watches a growing text for the first of several stop strings and never emits a part of one.
///
/// The stop string that *ends* first wins (of those that end together, the longest), so the result does not depend on
/// how the text was cut into pieces. Only text that may still become a stop string is held back. One Knuth-Morris-Pratt
/// automaton per string makes the cost linear for all strings.
///
/// Clones share the automata, as a request may have a thousand choices.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    patterns: Arc<[Pattern]>,
    stop_text: StopText,
    /// Bytes of each pattern that the end of the text matches.
    matched: Box<[usize]>,
    /// End of the text so far, as long as the longest match in progress.
    held: String,
    state: State,
}

/// Whether what ends a text is part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StopText {
    /// The text ends before it.
    #[default]
    Omit,
    /// The text ends with it.
    Include,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Searching,
    /// This pattern was found.
    Found(usize),
}

impl StopMatcher {
    /// Watches for `stops`; empty strings are ignored.
    #[must_use]
    pub fn new(stops: &[String]) -> StopMatcher {
        let stops = stops.iter().filter(|stop| !stop.is_empty());
        let patterns: Arc<[Pattern]> = stops.map(|stop| Pattern::new(stop)).collect();
        let matched = vec![0; patterns.len()].into();
        StopMatcher { patterns, stop_text: StopText::default(), matched, held: String::new(), state: State::Searching }
    }

    /// Says whether the text ends with the stop string, too.
    #[must_use]
    pub fn with_text(self, stop_text: StopText) -> StopMatcher {
        StopMatcher { stop_text, ..self }
    }

    /// Returns whether the text ends with what ended it.
    #[must_use]
    pub fn stop_text(&self) -> StopText {
        self.stop_text
    }

    /// Returns the stop string that was found.
    #[must_use]
    pub fn found(&self) -> Option<&str> {
        match self.state {
            State::Searching => None,
            State::Found(at) => self.patterns.get(at).map(|pattern| &*pattern.text),
        }
    }

    /// Takes more text and appends to `out` what is certain: all before the first stop string, and that string too if
    /// the text ends with it. Returns true once a stop string is complete; after that nothing is emitted.
    pub fn push(&mut self, text: &str, out: &mut String) -> bool {
        if let State::Found(_) = self.state {
            return true;
        }
        for (offset, &byte) in text.as_bytes().iter().enumerate() {
            let patterns = (0..).zip(self.patterns.iter().zip(&mut self.matched));
            let complete =
                patterns.filter_map(|(at, (pattern, matched))| Some((pattern.advance(matched, byte)?, at))).max();
            if let Some((stop_bytes, at)) = complete {
                self.held.push_str(&text[..=offset]);
                let hidden = match self.stop_text {
                    StopText::Omit => stop_bytes,
                    StopText::Include => 0,
                };
                out.push_str(&self.held[..self.held.len() - hidden]);
                self.held.clear();
                self.state = State::Found(at);
                return true;
            }
        }
        self.held.push_str(text);
        let in_progress = self.matched.iter().copied().max().unwrap_or(0);
        let certain = self.held.len() - in_progress;
        out.push_str(&self.held[..certain]);
        self.held.drain(..certain);
        false
    }

    /// Ends the text: emits what was held back, as it is no stop string.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
        self.matched.fill(0);
    }
}

#[derive(Debug)]
struct Pattern {
    text: Box<str>,
    /// `borders[i]`: length of the longest proper prefix of the pattern that ends its first `i + 1` bytes.
    borders: Box<[usize]>,
}

impl Pattern {
    fn new(text: &str) -> Pattern {
        let bytes = text.as_bytes();
        let mut borders = vec![0; bytes.len()];
        let mut border = 0;
        for i in 1..bytes.len() {
            while border > 0 && bytes[i] != bytes[border] {
                border = borders[border - 1];
            }
            if bytes[i] == bytes[border] {
                border += 1;
            }
            borders[i] = border;
        }
        Pattern { text: text.into(), borders: borders.into() }
    }

    /// Takes one byte after `matched` bytes of the pattern; returns the pattern's length when it is complete.
    fn advance(&self, matched: &mut usize, byte: u8) -> Option<usize> {
        let bytes = self.text.as_bytes();
        while *matched > 0 && byte != bytes[*matched] {
            *matched = self.borders[*matched - 1];
        }
        if byte == bytes[*matched] {
            *matched += 1;
        }
        (*matched == bytes.len()).then_some(*matched)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut texts = Vec::new();
        let mut found = false;
        for piece in pieces {
            let mut out = String::new();
            found = matcher.push(piece, &mut out);
            texts.push(out);
        }
        if !found {
            let mut out = String::new();
            matcher.finish(&mut out);
            texts.push(out);
        }
        (texts, found)
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_stop_string_over_several_pieces_never_leaks() {
        assert_eq!(run(&["\n\nUser:"], &["Hi.", "\n", "\nUs", "er", ": x"]), (owned(&["Hi.", "", "", "", ""]), true));
    }

    #[test]
    fn a_false_start_is_given_out_when_it_fails() {
        assert_eq!(run(&["STOP"], &["a ST", "O", "RY"]), (owned(&["a ", "", "STORY", ""]), false));
        assert_eq!(run(&["aab"], &["aa", "a", "b!"]), (owned(&["", "a", ""]), true));
    }

    #[test]
    fn clones_share_the_automata_and_not_the_text() {
        let mut first = StopMatcher::new(&owned(&["STOP"]));
        let mut second = first.clone();
        assert!(Arc::ptr_eq(&first.patterns, &second.patterns));
        let mut out = String::new();
        assert!(!first.push("ST", &mut out) && !second.push("OP", &mut out) && first.push("OP", &mut out));
        assert_eq!(out, "OP");
    }

    #[test]
    fn the_stop_string_is_named_and_shown_if_wanted() {
        let stops = owned(&["zz", "STOP", "TOP"]);
        for (stop_text, shown) in [(StopText::Omit, "a "), (StopText::Include, "a STOP")] {
            let mut matcher = StopMatcher::new(&stops).with_text(stop_text);
            let mut out = String::new();
            assert!(!matcher.push("a S", &mut out) && matcher.found().is_none());
            assert!(matcher.push("TOP and more", &mut out) && matcher.push("more", &mut out));
            assert_eq!((out.as_str(), matcher.found()), (shown, Some("STOP")));
        }
    }

    #[test]
    fn what_is_held_at_the_end_is_given_out() {
        assert_eq!(run(&["STOP"], &["a ST"]), (owned(&["a ", "ST"]), false));
    }

    #[test]
    fn the_one_that_ends_first_wins_and_the_longest_of_those() {
        assert_eq!(run(&["bcd", "c"], &["abcd"]), (owned(&["ab"]), true));
        assert_eq!(run(&["c", "bc"], &["abcd"]), (owned(&["a"]), true));
    }

    /// Reference implementation by brute force.
    fn naive(stops: &[String], text: &str) -> Option<usize> {
        (1..=text.len()).filter(|&end| text.is_char_boundary(end)).find_map(|end| {
            let longest = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str())).map(String::len).max()?;
            Some(end - longest)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn equals_naive_search_and_leaks_nothing(
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            pieces in prop::collection::vec("[abcé]{0,4}", 0..12),
        ) {
            let whole = pieces.concat();
            let expected = naive(&stops, &whole).map_or(whole.as_str(), |cut| &whole[..cut]);
            let mut matcher = StopMatcher::new(&stops);
            let mut out = String::new();
            let mut seen = String::new();
            let mut found = false;
            for piece in &pieces {
                found = matcher.push(piece, &mut out);
                seen.push_str(piece);
                prop_assert!(expected.starts_with(&out), "{out:?} leaked beyond {expected:?}");
                if found { break; }
                // The held text must be exactly the longest end of the text that begins a stop string.
                let held = seen.len() - out.len();
                let needed = (0..=seen.len()).filter(|&cut| seen.is_char_boundary(cut))
                    .find(|&cut| cut == seen.len() || stops.iter().any(|stop| stop.starts_with(&seen[cut..])))
                    .map_or(0, |cut| seen.len() - cut);
                prop_assert_eq!(held, needed);
            }
            prop_assert_eq!(found, naive(&stops, &whole).is_some());
            if !found { matcher.finish(&mut out); }
            prop_assert_eq!(out, expected);
        }
    }
}
