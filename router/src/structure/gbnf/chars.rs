//! Sets of characters, exact for ASCII, and the characters that literals and classes of GBNF stand for; knows no grammar.

/// A set of characters; those beyond ASCII are in it all or not at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Chars {
    ascii: u128,
    has_others: bool,
}

impl Chars {
    pub(super) const ALL: Chars = Chars { ascii: u128::MAX, has_others: true };

    pub(super) fn of(c: char) -> Chars {
        Chars::range(c, c)
    }

    fn range(first: char, last: char) -> Chars {
        let ascii = (u32::from(first)..=u32::from(last).min(127)).fold(0, |bits, code| bits | 1 << code);
        Chars { ascii, has_others: !last.is_ascii() }
    }

    #[must_use]
    pub(super) fn and(self, other: Chars) -> Chars {
        Chars { ascii: self.ascii & other.ascii, has_others: self.has_others && other.has_others }
    }

    #[must_use]
    pub(super) fn or(self, other: Chars) -> Chars {
        Chars { ascii: self.ascii | other.ascii, has_others: self.has_others || other.has_others }
    }

    pub(super) fn meets(self, other: Chars) -> bool {
        self.and(other) != Chars::default()
    }

    pub(super) fn has(self, c: char) -> bool {
        self.meets(Chars::of(c))
    }
}

/// Characters of a literal; `None` if it has an escape that is not known here.
pub(super) fn of_literal(body: &str) -> Option<Vec<char>> {
    let mut chars = body.chars();
    let mut out = Vec::new();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { unescaped(&mut chars)? } else { c });
    }
    Some(out)
}

/// Characters of a class, at least; `None` if it has something that is not known here.
pub(super) fn of_class(body: &str) -> Option<Chars> {
    let (is_negated, body) = body.strip_prefix('^').map_or((false, body), |body| (true, body));
    let mut chars = body.chars().peekable();
    let mut within = Chars::default();
    while let Some(c) = chars.next() {
        let first = if c == '\\' { unescaped(&mut chars)? } else { c };
        let mut ahead = chars.clone();
        let is_range = ahead.next() == Some('-') && ahead.peek().is_some();
        let last = match is_range {
            false => first,
            true => {
                chars.next();
                match chars.next()? {
                    '\\' => unescaped(&mut chars)?,
                    c => c,
                }
            }
        };
        // Within a class these mean more in a regular expression than in GBNF.
        let means_more = matches!((c, chars.peek()), ('&', Some('&')) | ('~', Some('~')) | ('-', Some('-')));
        if last < first || means_more {
            return None;
        }
        within = within.or(Chars::range(first, last));
    }
    match is_negated {
        false => (within != Chars::default()).then_some(within),
        // Some character beyond ASCII is always left.
        true => Some(Chars { ascii: !within.ascii, has_others: true }),
    }
}

/// Reads what follows a backslash.
fn unescaped(chars: &mut impl Iterator<Item = char>) -> Option<char> {
    let digits = match chars.next()? {
        'n' => return Some('\n'),
        'r' => return Some('\r'),
        't' => return Some('\t'),
        'x' => 2,
        'u' => 4,
        c if c.is_ascii_punctuation() => return Some(c),
        _ => return None,
    };
    let code = (0..digits).try_fold(0, |code, _| Some(code * 16 + chars.next()?.to_digit(16)?));
    char::from_u32(code?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_their_characters() {
        let letters = of_class(r"a-cX\n\]\x41-").unwrap();
        for c in ['a', 'b', 'c', 'X', '\n', ']', 'A', '-'] {
            assert!(letters.has(c), "{c:?}");
        }
        assert!(!letters.has('d') && !letters.has('é') && !letters.has('B'));
        let others = of_class(r#"^"\\\x00-\x1F"#).unwrap();
        assert!(others.has('a') && others.has('é') && !others.has('"') && !others.has('\\') && !others.has('\t'));
        assert!(of_class("à-ü").unwrap().has('é') && !of_class("à-ü").unwrap().has('a'));
        assert_eq!(of_class(r"\d"), None, "not of GBNF");
        assert_eq!(of_class("z-a"), None);
        assert_eq!(of_class("a&&b"), None);
        assert_eq!(of_class(""), None);
    }

    #[test]
    fn literals_have_their_characters() {
        assert_eq!(of_literal(r#"a\"\n\x41\u00e9"#), Some(vec!['a', '"', '\n', 'A', 'é']));
        assert_eq!(of_literal(r"\q"), None);
    }
}
