//! White space and begun marks at the end of a text that grows; knows no mark's meaning.

/// White space next to a mark that does not belong to the content: templates write line feeds there.
const SPACE_CHARS_MAX: usize = 8;

/// Bytes at the end of `text` that may be the start of `mark`, with the white space before it.
pub(super) fn held_back(text: &str, mark: &str) -> usize {
    let begun = begun_mark(text, mark);
    begun + trailing_space(text.get(..text.len() - begun).unwrap_or_default())
}

/// Bytes at the end of `text` that may be the start of `mark`.
pub(super) fn begun_mark(text: &str, mark: &str) -> usize {
    let longest = mark.len().saturating_sub(1).min(text.len());
    let begun = (1..=longest).rev().find(|&bytes| mark.get(..bytes).is_some_and(|begun| text.ends_with(begun)));
    begun.unwrap_or(0)
}

/// Bytes of the white space at the end of `text` that does not count. Bounded, as all of it is held back.
pub(super) fn trailing_space(text: &str) -> usize {
    let space = text.chars().rev().take_while(|c| c.is_whitespace()).take(SPACE_CHARS_MAX);
    space.map(char::len_utf8).sum()
}
