//! Cuts a template's source into tokens, with whitespace treated by `trim_blocks` and `lstrip_blocks`; knows no
//! grammar.

use super::Error;
use super::literal;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Data(String),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

/// Operators, the longer first, as the longest match wins.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// Returns the tokens of `source` with their lines; the last is `Token::End`.
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, u32)>, Error> {
    let source = normalized(source);
    let mut lexer = Lexer { source: &source, at: 0, line: 1, line_starting: true, tokens: Vec::new() };
    lexer.root()?;
    let line = lexer.line;
    lexer.tokens.push((Token::End, line));
    Ok(lexer.tokens)
}

/// Turns every line end into `\n` and drops one at the very end.
fn normalized(source: &str) -> String {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    source
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Block,
    Variable,
    Comment,
}

/// Characters removed after a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// All whitespace (`-`).
    Strip,
    /// One line end.
    LineEnd,
    /// Nothing (`+`, variables).
    Keep,
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: u32,
    /// True if the last token ended a line.
    line_starting: bool,
    tokens: Vec<(Token, u32)>,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, Error> {
        Err(Error::Syntax { message: message.into(), line: self.line })
    }

    fn advance(&mut self, bytes: usize) {
        let read = &self.source[self.at..self.at + bytes];
        self.line = self.line.saturating_add(u32::try_from(read.matches('\n').count()).unwrap_or(u32::MAX));
        self.line_starting = read.ends_with('\n');
        self.at += bytes;
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    /// Reads text and tags in turn.
    fn root(&mut self) -> Result<(), Error> {
        while let Some((tag, offset)) = next_tag(self.rest()) {
            let start = &self.rest()[offset..];
            if let Some(length) = raw_begin(start) {
                self.data(offset, sign(start), tag);
                self.advance(offset + length);
                self.raw()?;
                continue;
            }
            self.data(offset, sign(start), tag);
            self.advance(offset + 2 + usize::from(sign(start).is_some()));
            match tag {
                Tag::Comment => self.comment()?,
                Tag::Block => self.inside(Token::BlockBegin, block_end, Token::BlockEnd)?,
                Tag::Variable => self.inside(Token::VariableBegin, variable_end, Token::VariableEnd)?,
            }
        }
        let rest = self.rest();
        if !rest.is_empty() {
            self.push(Token::Data(rest.to_owned()));
            self.advance(rest.len());
        }
        Ok(())
    }

    /// Emits the text before a tag, which may strip it.
    fn data(&mut self, bytes: usize, sign: Option<char>, tag: Tag) {
        let text = &self.rest()[..bytes];
        let kept = match sign {
            Some('-') => text.trim_end_matches(literal::is_space),
            None if tag != Tag::Variable => {
                let line = text.rfind('\n').map_or(0, |newline| newline + 1);
                let blank = text[line..].chars().all(literal::is_space);
                if blank && (line > 0 || self.line_starting) { &text[..line] } else { text }
            }
            Some(_) | None => text,
        };
        if !kept.is_empty() {
            self.push(Token::Data(kept.to_owned()));
        }
    }

    fn comment(&mut self) -> Result<(), Error> {
        let Some(end) = self.rest().find("#}") else { return self.fail("Missing end of comment tag") };
        let after = match self.rest()[..end].chars().next_back() {
            Some('-') => After::Strip,
            Some('+') => After::Keep,
            Some(_) | None => After::LineEnd,
        };
        self.advance(end + 2);
        self.after_tag(after);
        Ok(())
    }

    /// Emits the text between `{% raw %}` and `{% endraw %}`.
    fn raw(&mut self) -> Result<(), Error> {
        let rest = self.rest();
        let mut from = 0;
        while let Some(found) = rest[from..].find("{%") {
            let offset = from + found;
            let tag = &rest[offset + 2..];
            let tag = tag.strip_prefix(['-', '+']).unwrap_or(tag).trim_start_matches(literal::is_space);
            if let Some(tag) = tag.strip_prefix("endraw")
                && let tag = tag.trim_start_matches(literal::is_space)
                && let Some((length, after)) = block_end(tag)
            {
                self.data(offset, sign(&rest[offset..]), Tag::Block);
                self.advance(rest.len() - tag.len() + length);
                self.after_tag(after);
                return Ok(());
            }
            from = offset + 2;
        }
        self.fail("Missing end of raw directive")
    }

    fn inside(&mut self, begin: Token, end: fn(&str) -> Option<(usize, After)>, end_token: Token) -> Result<(), Error> {
        self.push(begin);
        let mut open: Vec<&str> = Vec::new();
        loop {
            let rest = self.rest();
            if open.is_empty()
                && let Some((length, after)) = end(rest)
            {
                self.push(end_token);
                self.advance(length);
                self.after_tag(after);
                return Ok(());
            }
            let Some(first) = rest.chars().next() else {
                self.push(Token::End);
                return Ok(());
            };
            if literal::is_space(first) {
                let blank = rest.len() - rest.trim_start_matches(literal::is_space).len();
                self.advance(blank);
                continue;
            }
            let (token, length) = match literal::number(rest).or_else(|| literal::name(rest)) {
                Some(found) => found,
                None if matches!(first, '\'' | '"') => self.string(first)?,
                None => self.operator(first, &mut open)?,
            };
            self.push(token);
            self.advance(length);
        }
    }

    fn after_tag(&mut self, after: After) {
        let rest = self.rest();
        let blank = match after {
            After::Strip => rest.len() - rest.trim_start_matches(literal::is_space).len(),
            After::LineEnd => usize::from(rest.starts_with('\n')),
            After::Keep => 0,
        };
        if blank > 0 {
            self.advance(blank);
        }
    }

    fn string(&self, quote: char) -> Result<(Token, usize), Error> {
        let rest = self.rest();
        let mut escaped = false;
        for (offset, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if c == quote => {
                    let text = literal::unescaped(&rest[1..offset]).or_else(|message| self.fail(message))?;
                    return Ok((Token::Str(text), offset + 1));
                }
                _ => {}
            }
        }
        self.fail(format!("unexpected char {:?}", quote.to_string()))
    }

    fn operator(&self, first: char, open: &mut Vec<&'static str>) -> Result<(Token, usize), Error> {
        let Some(operator) = OPERATORS.into_iter().find(|operator| self.rest().starts_with(operator)) else {
            return self.fail(format!("unexpected char {:?}", first.to_string()));
        };
        match operator {
            "(" => open.push(")"),
            "[" => open.push("]"),
            "{" => open.push("}"),
            ")" | "]" | "}" => match open.pop() {
                None => return self.fail(format!("unexpected '{operator}'")),
                Some(expected) if expected != operator => {
                    return self.fail(format!("unexpected '{operator}', expected '{expected}'"));
                }
                Some(_) => {}
            },
            _ => {}
        }
        Ok((Token::Operator(operator), operator.len()))
    }
}

/// Returns the first tag in `text` and its offset.
fn next_tag(text: &str) -> Option<(Tag, usize)> {
    let bytes = text.as_bytes();
    let offset = bytes.windows(2).position(|pair| matches!(pair, b"{%" | b"{{" | b"{#"))?;
    let tag = match bytes[offset + 1] {
        b'%' => Tag::Block,
        b'{' => Tag::Variable,
        _ => Tag::Comment,
    };
    Some((tag, offset))
}

/// Returns the `-` or `+` at the start of a tag.
fn sign(tag: &str) -> Option<char> {
    tag.chars().nth(2).filter(|c| matches!(c, '-' | '+'))
}

/// Returns the length of `{% raw %}`, with the whitespace that it strips, if `tag` begins with it.
fn raw_begin(tag: &str) -> Option<usize> {
    let inner = tag.strip_prefix("{%")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start_matches(literal::is_space);
    let inner = inner.strip_prefix("raw")?.trim_start_matches(literal::is_space);
    let end = match inner.strip_prefix("-%}") {
        Some(after) => after.trim_start_matches(literal::is_space),
        None => inner.strip_prefix("%}")?,
    };
    Some(tag.len() - end.len())
}

/// Returns the length of a block's end at the start of `text`, and the characters removed after it.
fn block_end(text: &str) -> Option<(usize, After)> {
    match text.as_bytes() {
        [b'-', b'%', b'}', ..] => Some((3, After::Strip)),
        [b'+', b'%', b'}', ..] => Some((3, After::Keep)),
        [b'%', b'}', ..] => Some((2, After::LineEnd)),
        _ => None,
    }
}

/// Does the same as `block_end` for a variable.
fn variable_end(text: &str) -> Option<(usize, After)> {
    match text.as_bytes() {
        [b'-', b'}', b'}', ..] => Some((3, After::Strip)),
        [b'}', b'}', ..] => Some((2, After::Keep)),
        _ => None,
    }
}
