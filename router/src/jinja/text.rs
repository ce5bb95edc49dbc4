//! Strings that remember which of their bytes were given from outside; knows no template.
//!
//! Whatever a template does with a string (cut, join, strip, replace), each byte of the result is either the template's
//! own or comes from a value that a client sent. The conversion of the prompt to tokens needs this.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::rc::Rc;

use super::Error;
use super::meter::{self, TEXT_BYTES_MAX};

/// Author of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The template, or the server for it.
    Template,
    /// A client.
    Given,
}

/// An immutable string. Cheap to clone.
#[derive(Clone)]
pub struct Text(Rc<Body>);

struct Body {
    string: String,
    /// Sorted, disjoint byte ranges that were given, on character boundaries.
    given: Vec<Range<usize>>,
    /// True for HTML (`safe`, `escape`): text added to it is escaped.
    is_markup: bool,
}

impl Drop for Body {
    fn drop(&mut self) {
        meter::remove(self.string.capacity());
    }
}

impl Text {
    pub(super) fn new(string: String, given: Vec<Range<usize>>) -> Text {
        meter::add(string.capacity());
        meter::charge_bytes(string.len());
        Text(Rc::new(Body { string, given, is_markup: false }))
    }

    /// Makes a text of one origin.
    pub fn of(string: impl Into<String>, origin: Origin) -> Text {
        let string = string.into();
        let given = match origin {
            Origin::Given if !string.is_empty() => std::iter::once(0..string.len()).collect(),
            Origin::Given | Origin::Template => Vec::new(),
        };
        Text::new(string, given)
    }

    pub(super) fn own(string: impl Into<String>) -> Text {
        Text::of(string, Origin::Template)
    }

    /// Returns the characters.
    pub fn as_str(&self) -> &str {
        &self.0.string
    }

    /// Returns the byte ranges that were given, sorted and disjoint.
    pub fn given(&self) -> &[Range<usize>] {
        &self.0.given
    }

    pub(super) fn len(&self) -> usize {
        self.0.string.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.string.is_empty()
    }

    pub(super) fn same(&self, other: &Text) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the bytes of `range`, which lies on character boundaries.
    pub(super) fn part(&self, range: Range<usize>) -> Text {
        if range.start == 0 && range.end == self.len() {
            return self.clone();
        }
        let mut builder = Builder::default();
        builder.push_part(self, range);
        let part = builder.into_text();
        if self.is_markup() { part.marked_up() } else { part }
    }

    pub(super) fn is_markup(&self) -> bool {
        self.0.is_markup
    }

    /// Returns the same text, marked as HTML.
    pub(super) fn marked_up(&self) -> Text {
        let Body { string, given, .. } = &*self.0;
        meter::add(string.len());
        Text(Rc::new(Body { string: string.clone(), given: given.clone(), is_markup: true }))
    }

    /// Returns the text as HTML, with special characters as entities.
    pub(super) fn escaped(&self) -> Result<Text, Error> {
        if self.is_markup() {
            return Ok(self.clone());
        }
        let mut builder = Builder::default();
        let mut from = 0;
        for (offset, c) in self.as_str().char_indices() {
            let entity = match c {
                '&' => "&amp;",
                '<' => "&lt;",
                '>' => "&gt;",
                '\'' => "&#39;",
                '"' => "&#34;",
                _ => continue,
            };
            builder.push_part(self, from..offset);
            builder.push_of(entity, self.origin_at(offset));
            from = offset + c.len_utf8();
        }
        builder.push_part(self, from..self.len());
        Ok(builder.finish()?.marked_up())
    }

    /// Returns `trimmed`, a slice of `self.as_str()`, as a part of this text.
    pub(super) fn part_of(&self, trimmed: &str) -> Text {
        let start = trimmed.as_ptr().addr().saturating_sub(self.as_str().as_ptr().addr()).min(self.len());
        self.part(start..(start + trimmed.len()).min(self.len()))
    }

    /// Returns the author of the byte at `offset`.
    pub(super) fn origin_at(&self, offset: usize) -> Origin {
        let after = self.0.given.partition_point(|span| span.end <= offset);
        match self.0.given.get(after) {
            Some(span) if span.start <= offset => Origin::Given,
            Some(_) | None => Origin::Template,
        }
    }

    /// Replaces each character by the result of `change`, which keeps its origin.
    pub(super) fn map_chars<I: Iterator<Item = char>>(&self, mut change: impl FnMut(char) -> I) -> Result<Text, Error> {
        let mut builder = Builder::default();
        for (offset, c) in self.as_str().char_indices() {
            let origin = self.origin_at(offset);
            change(c).for_each(|c| builder.push_char(c, origin));
        }
        builder.finish()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Text under construction. Beyond the bound of a text it takes no more and fails at the end.
#[derive(Debug, Default)]
pub(super) struct Builder {
    string: String,
    given: Vec<Range<usize>>,
    too_large: bool,
}

impl Builder {
    pub(super) fn push_own(&mut self, string: &str) {
        self.push_of(string, Origin::Template);
    }

    pub(super) fn push_of(&mut self, string: &str, origin: Origin) {
        if self.string.len() + string.len() > TEXT_BYTES_MAX {
            self.too_large = true;
            return;
        }
        let start = self.string.len();
        self.string.push_str(string);
        if origin == Origin::Given {
            self.mark(start..self.string.len());
        }
    }

    pub(super) fn push_char(&mut self, c: char, origin: Origin) {
        self.push_of(c.encode_utf8(&mut [0; 4]), origin);
    }

    pub(super) fn push(&mut self, text: &Text) {
        self.push_part(text, 0..text.len());
    }

    /// Appends the bytes of `range` of `text`.
    pub(super) fn push_part(&mut self, text: &Text, range: Range<usize>) {
        let Some(part) = text.as_str().get(range.clone()) else { return };
        if self.string.len() + part.len() > TEXT_BYTES_MAX {
            self.too_large = true;
            return;
        }
        let start = self.string.len();
        self.string.push_str(part);
        let first = text.given().partition_point(|span| span.end <= range.start);
        for span in text.given()[first..].iter().take_while(|span| span.start < range.end) {
            let from = span.start.max(range.start) - range.start + start;
            let to = span.end.min(range.end) - range.start + start;
            self.mark(from..to);
        }
    }

    fn mark(&mut self, span: Range<usize>) {
        match self.given.last_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ if span.is_empty() => {}
            _ => self.given.push(span),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.string.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.too_large
    }

    /// For texts no longer than their parts together, which need no check.
    fn into_text(self) -> Text {
        Text::new(self.string, self.given)
    }

    pub(super) fn finish(self) -> Result<Text, Error> {
        if self.too_large { Err(Error::Large(TEXT_BYTES_MAX)) } else { Ok(self.into_text()) }
    }
}

pub(super) fn repeat(text: &Text, times: usize) -> Result<Text, Error> {
    if text.len().saturating_mul(times) > TEXT_BYTES_MAX {
        return Err(Error::Large(TEXT_BYTES_MAX));
    }
    if text.given().is_empty() || text.is_empty() {
        return Ok(Text::own(text.as_str().repeat(times)));
    }
    let mut builder = Builder::default();
    (0..times).for_each(|_| builder.push(text));
    builder.finish()
}

pub(super) fn concat<'t>(texts: impl IntoIterator<Item = &'t Text>) -> Result<Text, Error> {
    let mut builder = Builder::default();
    texts.into_iter().for_each(|text| builder.push(text));
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_joints_keep_their_origin() {
        let joined = concat([&Text::own("<|"), &Text::of("näh", Origin::Given), &Text::own("|>")]).unwrap();
        assert_eq!((joined.as_str(), joined.given()), ("<|näh|>", std::slice::from_ref(&(2..6))));
        let part = joined.part(1..5);
        assert_eq!((part.as_str(), part.given()), ("|nä", std::slice::from_ref(&(1..4))));
        let upper = joined.map_chars(char::to_uppercase).unwrap();
        assert_eq!((upper.as_str(), upper.given()), ("<|NÄH|>", std::slice::from_ref(&(2..6))));
        assert_eq!(joined.part_of(joined.as_str().trim_matches('<')).given(), std::slice::from_ref(&(1..5)));
        assert_eq!(joined.origin_at(1), Origin::Template);
        assert_eq!(joined.origin_at(2), Origin::Given);
        assert_eq!(joined.origin_at(6), Origin::Template);
    }

    #[test]
    fn the_meter_counts_what_lives() {
        let before = meter::live_bytes();
        let text = Text::own("x".repeat(1000));
        let twin = text.clone();
        assert_eq!(meter::live_bytes() - before, 1000);
        drop((text, twin));
        assert_eq!(meter::live_bytes(), before);
    }
}
