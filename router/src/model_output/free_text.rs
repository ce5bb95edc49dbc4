//! Text in which no mark occurs, as terminals of a grammar; knows no call and no thought.
//!
//! Such a text is a sequence of pieces without the first character of any mark, and of beginnings of marks. A lexer takes
//! the longest terminal that matches, so a beginning that goes on to a whole mark is never taken for text. This needs no
//! lazy terminal, beside which masks would be computed token by token.

use std::collections::BTreeSet;

use serde_json::Value;

/// Terminals of a text. No mark may have its first character once more, except at its end.
pub(super) struct FreeText {
    /// First characters of the marks.
    firsts: BTreeSet<char>,
    /// Texts that begin a mark.
    begun: BTreeSet<String>,
}

impl FreeText {
    /// Text that contains none of `marks`.
    pub(super) fn without<'a>(marks: impl Iterator<Item = &'a str>) -> FreeText {
        let mut free = FreeText { firsts: BTreeSet::new(), begun: BTreeSet::new() };
        for mark in marks {
            free.firsts.extend(mark.chars().next());
            let proper = mark.char_indices().map(|(at, _)| at).filter(|at| *at > 0);
            free.begun.extend(proper.filter_map(|at| mark.get(..at)).map(str::to_owned));
        }
        free
    }

    /// Regular expression of a character that begins no mark, and is not of the characters `others` of a class either.
    pub(super) fn character(&self, others: &str) -> String {
        let firsts = self.firsts.iter().map(|c| if *c == '[' { "\\[".to_owned() } else { c.to_string() });
        match firsts.collect::<String>() + others {
            class if class.is_empty() => "(?s:.)".to_owned(),
            class => format!("[^{class}]"),
        }
    }

    /// Beginnings of marks; `None` if there are no marks.
    pub(super) fn begun(&self) -> Option<String> {
        let begun: Vec<String> = self.begun.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
        (!begun.is_empty()).then(|| begun.join(" | "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Tags, ToolFormat};
    use super::*;

    #[test]
    fn terminals_are_pieces_and_begun_marks() {
        let free = FreeText::without(["<ab>", "[x]"].into_iter());
        assert_eq!((free.character("").as_str(), free.character(r"{\s").as_str()), (r"[^<\[]", r"[^<\[{\s]"));
        assert_eq!(free.begun().as_deref(), Some(r#""<" | "<a" | "<ab" | "[" | "[x""#));
        let any = FreeText::without(std::iter::empty());
        assert_eq!((any.character("").as_str(), any.character("{").as_str(), any.begun()), ("(?s:.)", "[^{]", None));
    }

    #[test]
    fn marks_begin_with_a_character_of_their_own() {
        let tags = Tags::KNOWN.into_iter().flat_map(|tags| [tags.open, tags.close]);
        for mark in tags.chain(ToolFormat::ALL.into_iter().flat_map(ToolFormat::marks)).chain(["</parameter>"]) {
            let first = mark.chars().next().unwrap();
            assert_eq!(mark.matches(first).count(), 1, "{mark}");
        }
    }
}
