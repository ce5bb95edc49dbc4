//! Text to thoughts and what follows them, piece by piece; knows no call.

use super::space::{held_back, trailing_space};

/// Marks around what a model thinks before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tags {
    /// Mark before the thoughts.
    pub open: &'static str,
    /// Mark behind the thoughts.
    pub close: &'static str,
}

/// Whether the prompt has opened or closed the thoughts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// The prompt says nothing: the model may open them.
    Unopened,
    /// The prompt opens the thoughts.
    Inside,
    /// The prompt ends amid thoughts.
    Amid,
    /// The prompt has them, empty or not.
    Behind,
}

/// Most white space before the mark that opens thoughts.
const LEAD_BYTES_MAX: usize = 64;

impl Tags {
    /// Marks of known families.
    pub const KNOWN: [Tags; 5] = [
        Tags { open: "<think>", close: "</think>" },
        Tags { open: "[THINK]", close: "[/THINK]" },
        Tags { open: "<seed:think>", close: "</seed:think>" },
        Tags { open: "◁think▷", close: "◁/think▷" },
        Tags { open: "<|START_THINKING|>", close: "<|END_THINKING|>" },
    ];

    /// Returns where an answer begins whose prompt ends with `end`, written by the template alone.
    #[must_use]
    pub fn begin_after(self, end: &str) -> Begins {
        let end = end.trim_end();
        if end.ends_with(self.open) {
            Begins::Inside
        } else if end.ends_with(self.close) {
            Begins::Behind
        } else {
            Begins::Unopened
        }
    }

    /// Returns where an answer begins that goes on with `said`, which the model has said before.
    #[must_use]
    pub fn begin_within(self, said: &str) -> Begins {
        match said.rfind(self.open).map(|at| &said[at + self.open.len()..]) {
            Some(thought) if thought.contains(self.close) => Begins::Behind,
            Some(thought) if thought.trim().is_empty() => Begins::Inside,
            Some(_) => Begins::Amid,
            None => Begins::Behind,
        }
    }
}

/// Splits an answer at the marks. White space next to a mark belongs to neither side.
#[derive(Debug)]
pub(super) struct ThoughtReader {
    tags: Tags,
    place: Place,
    held: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// Behind the opening mark, before any thought.
    Opened,
    Inside,
    /// Behind the closing mark, before any other text.
    Closed,
    Behind,
}

impl ThoughtReader {
    pub(super) fn new(tags: Tags, begins: Begins) -> ThoughtReader {
        let place = match begins {
            Begins::Unopened => Place::Start,
            Begins::Inside => Place::Opened,
            Begins::Amid => Place::Inside,
            Begins::Behind => Place::Behind,
        };
        ThoughtReader { tags, place, held: String::new() }
    }

    /// Returns true if the text so far ends inside the thoughts.
    pub(super) fn is_inside(&self) -> bool {
        matches!(self.place, Place::Opened | Place::Inside)
    }

    /// Returns true if all further text is the answer.
    pub(super) fn is_behind(&self) -> bool {
        self.place == Place::Behind
    }

    /// Takes more text, appends to `reasoning` the thoughts that are certain, and returns the text behind them.
    pub(super) fn push(&mut self, text: &str, reasoning: &mut String) -> String {
        let mut held = std::mem::take(&mut self.held);
        held.push_str(text);
        let mut rest = held.as_str();
        loop {
            match self.place {
                Place::Start => match self.start(rest) {
                    Some(behind) => rest = behind,
                    None => break,
                },
                Place::Opened => {
                    rest = rest.trim_start();
                    if rest.is_empty() {
                        break;
                    }
                    self.place = Place::Inside;
                }
                Place::Inside => {
                    let Some(at) = rest.find(self.tags.close) else {
                        let (sure, kept) = rest.split_at(rest.len() - held_back(rest, self.tags.close));
                        reasoning.push_str(sure);
                        rest = kept;
                        break;
                    };
                    let (thought, closing) = rest.split_at(at);
                    reasoning.push_str(&thought[..thought.len() - trailing_space(thought)]);
                    rest = &closing[self.tags.close.len()..];
                    self.place = Place::Closed;
                }
                Place::Closed => {
                    rest = rest.trim_start();
                    if rest.is_empty() {
                        break;
                    }
                    self.place = Place::Behind;
                }
                Place::Behind => return rest.to_owned(),
            }
        }
        self.held = rest.to_owned();
        String::new()
    }

    /// Ends the text: what was held belongs to the thoughts, or is returned.
    pub(super) fn finish(&mut self, reasoning: &mut String) -> String {
        let held = std::mem::take(&mut self.held);
        match self.place {
            Place::Start | Place::Behind => {
                self.place = Place::Behind;
                return held;
            }
            Place::Inside => reasoning.push_str(&held),
            Place::Opened | Place::Closed => {}
        }
        String::new()
    }

    /// Looks for the opening mark and returns the text behind it, or all text if it is not there. `None` if it is not
    /// known yet.
    fn start<'a>(&mut self, rest: &'a str) -> Option<&'a str> {
        let text = rest.trim_start();
        let lead = rest.len() - text.len();
        if let Some(behind) = text.strip_prefix(self.tags.open)
            && lead <= LEAD_BYTES_MAX
        {
            self.place = Place::Opened;
            return Some(behind);
        }
        if self.tags.open.starts_with(text) && lead <= LEAD_BYTES_MAX {
            return None;
        }
        self.place = Place::Behind;
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns thoughts and answer, with the text cut into pieces of `size` characters.
    fn read(begins: Begins, text: &str, size: usize) -> (String, String) {
        let mut reader = ThoughtReader::new(Tags::KNOWN[0], begins);
        let (mut reasoning, mut content) = (String::new(), String::new());
        let characters: Vec<char> = text.chars().collect();
        for piece in characters.chunks(size) {
            content += &reader.push(&piece.iter().collect::<String>(), &mut reasoning);
        }
        content += &reader.finish(&mut reasoning);
        (reasoning, content)
    }

    #[test]
    fn thoughts_are_split_off_however_the_text_is_cut() {
        for (begins, text, reasoning, content) in [
            (Begins::Unopened, "<think>\nhm, <b> é\n</think>\n\nYes.\n", "hm, <b> é", "Yes.\n"),
            (Begins::Unopened, " \n<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
            (Begins::Unopened, "<think></think>\n\nb", "", "b"),
            (Begins::Unopened, "Yes. <think>", "", "Yes. <think>"),
            (Begins::Unopened, "<thin", "", "<thin"),
            (Begins::Unopened, "", "", ""),
            (Begins::Inside, "\nhm\n\n</think>\nYes", "hm", "Yes"),
            (Begins::Inside, "hm </thin", "hm </thin", ""),
            (Begins::Inside, "hm\n", "hm\n", ""),
            (Begins::Inside, "hm</think>\n", "hm", ""),
            (Begins::Amid, " hm\n</think>\nYes", " hm", "Yes"),
            (Begins::Behind, "<think>a</think>b", "", "<think>a</think>b"),
        ] {
            for size in [1, 2, 3, 5, 100] {
                let expected = (reasoning.to_owned(), content.to_owned());
                assert_eq!(read(begins, text, size), expected, "{begins:?} {text:?} by {size}");
            }
        }
    }

    #[test]
    fn the_prompt_says_where_the_answer_begins() {
        let tags = Tags::KNOWN[0];
        assert_eq!(tags.begin_after("<|assistant|>\n<think>\n"), Begins::Inside);
        assert_eq!(tags.begin_after("<|assistant|>\n<think>\n\n</think>\n\n"), Begins::Behind);
        assert_eq!(tags.begin_after("<|assistant|>\n"), Begins::Unopened);
        let within = [("<think>\n", Begins::Inside), ("<think>a", Begins::Amid), ("<think></think>a", Begins::Behind)];
        for (said, begins) in within.into_iter().chain([("a", Begins::Behind)]) {
            assert_eq!(tags.begin_within(said), begins, "{said:?}");
        }
    }
}
