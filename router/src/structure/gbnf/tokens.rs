//! Tokens of a grammar in GBNF; knows no rule.

pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) line: usize,
}

pub(super) enum Kind {
    Name(String),
    Is,
    /// What stands between quotes.
    Text(String),
    /// What stands between brackets.
    Class(String),
    /// A dot: any character.
    Any,
    Open,
    Close,
    Or,
    /// `*`, `+`, `?` or a repetition.
    Operator(String),
}

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(c) = rest.chars().next() {
        let (kind, length) = match c {
            '\n' => {
                line += 1;
                (None, 1)
            }
            _ if c.is_whitespace() => (None, c.len_utf8()),
            '#' => (None, rest.find('\n').unwrap_or(rest.len())),
            '"' => quoted(rest, '"').map(|(body, length)| (Some(Kind::Text(body.to_owned())), length))?,
            '[' => quoted(rest, ']').map(|(body, length)| (Some(Kind::Class(body.to_owned())), length))?,
            '.' => (Some(Kind::Any), 1),
            '|' => (Some(Kind::Or), 1),
            '(' => (Some(Kind::Open), 1),
            ')' => (Some(Kind::Close), 1),
            '*' | '+' | '?' => (Some(Kind::Operator(c.to_string())), 1),
            '{' => {
                let end = rest.find('}').ok_or_else(|| format!("line {line}: {{ has no }}"))?;
                (Some(Kind::Operator(rest[..=end].to_owned())), end + 1)
            }
            ':' if rest.starts_with("::=") => (Some(Kind::Is), 3),
            _ if is_of_name(c) => {
                let end = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
                (Some(Kind::Name(rest[..end].to_owned())), end)
            }
            _ => return Err(format!("line {line}: {c:?} has no meaning here")),
        };
        tokens.extend(kind.map(|kind| Token { kind, line }));
        line += rest[..length].matches('\n').count() - usize::from(c == '\n');
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Returns what stands between the first character and `close`, and the length of all.
fn quoted(text: &str, close: char) -> Result<(&str, usize), String> {
    let mut is_escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == close => return Ok((&text[1..index], index + 1)),
            _ => {}
        }
    }
    Err(format!("{:?} has no end", text.chars().take(20).collect::<String>()))
}
