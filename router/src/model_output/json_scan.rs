//! One JSON value, checked byte by byte as it arrives; knows no meaning of it.

/// Deepest nesting of lists and objects.
const DEPTH_MAX: usize = 100;

/// Checks a value strictly, as RFC 8259 has it. The first byte must begin the value.
#[derive(Debug, Clone)]
pub(super) struct JsonScan {
    open: Vec<Container>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    List,
    Object,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    FirstItem,
    FirstKey,
    Key,
    Colon,
    /// After a value inside a container.
    Next,
    String(Holds, Escape),
    Number(Number),
    /// Letters of `true`, `false` or `null` that must follow.
    Word(&'static [u8]),
}

/// Meaning of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Key,
    Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    /// Hexadecimal digits that must follow.
    Hex(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

/// What a byte did to the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The value goes on.
    More,
    /// The value ends with this byte.
    End,
    /// The value, a number, ended before this byte.
    EndBefore,
    /// The byte cannot stand there, or the value is nested too deeply.
    Wrong,
}

impl JsonScan {
    pub(super) fn new() -> JsonScan {
        JsonScan { open: Vec::new(), state: State::Value }
    }

    /// Takes the next byte; not to be called again once the value has ended or is wrong.
    pub(super) fn push(&mut self, byte: u8) -> Step {
        match self.state {
            State::String(holds, escape) => self.string(holds, escape, byte),
            State::Number(number) => self.number(number, byte),
            State::Word(rest) => match rest.split_first() {
                Some((&letter, [])) if letter == byte => self.ended(),
                Some((&letter, rest)) if letter == byte => self.goes_on(State::Word(rest)),
                Some(_) | None => Step::Wrong,
            },
            _ if !self.open.is_empty() && matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => Step::More,
            State::FirstItem if byte == b']' => self.close(),
            State::FirstKey if byte == b'}' => self.close(),
            State::FirstKey | State::Key if byte == b'"' => self.goes_on(State::String(Holds::Key, Escape::None)),
            State::Colon if byte == b':' => self.goes_on(State::Value),
            State::Next => match (byte, self.open.last()) {
                (b',', Some(Container::List)) => self.goes_on(State::Value),
                (b',', Some(Container::Object)) => self.goes_on(State::Key),
                (b']', Some(Container::List)) | (b'}', Some(Container::Object)) => self.close(),
                _ => Step::Wrong,
            },
            State::Value | State::FirstItem => self.begin(byte),
            State::FirstKey | State::Key | State::Colon => Step::Wrong,
        }
    }

    fn begin(&mut self, byte: u8) -> Step {
        match byte {
            b'{' => self.open(Container::Object, State::FirstKey),
            b'[' => self.open(Container::List, State::FirstItem),
            b'"' => self.goes_on(State::String(Holds::Value, Escape::None)),
            b't' => self.goes_on(State::Word(b"rue")),
            b'f' => self.goes_on(State::Word(b"alse")),
            b'n' => self.goes_on(State::Word(b"ull")),
            b'-' => self.goes_on(State::Number(Number::Minus)),
            b'0' => self.goes_on(State::Number(Number::Zero)),
            b'1'..=b'9' => self.goes_on(State::Number(Number::Digits)),
            _ => Step::Wrong,
        }
    }

    fn string(&mut self, holds: Holds, escape: Escape, byte: u8) -> Step {
        let next = match (escape, byte) {
            (Escape::None, b'"') => {
                return match holds {
                    Holds::Key => self.goes_on(State::Colon),
                    Holds::Value => self.ended(),
                };
            }
            (Escape::None, b'\\') => Escape::Begun,
            (Escape::None, 0x20..) => Escape::None,
            (Escape::Begun, b'u') => Escape::Hex(4),
            (Escape::Begun, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Escape::None,
            (Escape::Hex(1), digit) if digit.is_ascii_hexdigit() => Escape::None,
            (Escape::Hex(left), digit) if digit.is_ascii_hexdigit() => Escape::Hex(left.saturating_sub(1)),
            (Escape::None | Escape::Begun | Escape::Hex(_), _) => return Step::Wrong,
        };
        self.goes_on(State::String(holds, next))
    }

    fn number(&mut self, number: Number, byte: u8) -> Step {
        let next = match (number, byte) {
            (Number::Minus, b'0') => Number::Zero,
            (Number::Minus | Number::Digits, b'0'..=b'9') => Number::Digits,
            (Number::Zero | Number::Digits, b'.') => Number::Point,
            (Number::Point | Number::Fraction, b'0'..=b'9') => Number::Fraction,
            (Number::Zero | Number::Digits | Number::Fraction, b'e' | b'E') => Number::Exponent,
            (Number::Exponent, b'+' | b'-') => Number::Sign,
            (Number::Exponent | Number::Sign | Number::Power, b'0'..=b'9') => Number::Power,
            (Number::Minus | Number::Point | Number::Exponent | Number::Sign, _) => return Step::Wrong,
            (Number::Zero | Number::Digits | Number::Fraction | Number::Power, _) => {
                return match self.ended() {
                    Step::End => Step::EndBefore,
                    _ => self.push(byte),
                };
            }
        };
        self.goes_on(State::Number(next))
    }

    fn open(&mut self, container: Container, inside: State) -> Step {
        if self.open.len() >= DEPTH_MAX {
            return Step::Wrong;
        }
        self.open.push(container);
        self.goes_on(inside)
    }

    fn close(&mut self) -> Step {
        self.open.pop();
        self.ended()
    }

    /// Ends a value, which may be the whole one.
    fn ended(&mut self) -> Step {
        if self.open.is_empty() {
            return Step::End;
        }
        self.goes_on(State::Next)
    }

    fn goes_on(&mut self, state: State) -> Step {
        self.state = state;
        Step::More
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the bytes of the value at the start of `text`, or how far it is not wrong.
    fn scan(text: &str) -> Result<usize, usize> {
        let mut scan = JsonScan::new();
        for (offset, byte) in text.bytes().enumerate() {
            match scan.push(byte) {
                Step::More => {}
                Step::End => return Ok(offset + 1),
                Step::EndBefore => return Ok(offset),
                Step::Wrong => return Err(offset),
            }
        }
        Err(text.len())
    }

    #[test]
    fn values_end_where_they_end() {
        for value in
            [r#"{"a": [1, -0.5e+3, true, null, "\u00e9}\"]"], "b": {}}"#, "[]", "\"x\"", "false", "[ 0 , 10 ]", "{ }"]
        {
            assert_eq!(scan(&format!("{value}}} more")), Ok(value.len()), "{value}");
        }
        assert_eq!(scan("-12.5e3,"), Ok(7));
    }

    #[test]
    fn wrong_bytes_are_found() {
        for (text, at) in [
            ("{a}", 1),
            ("{\"a\" 1}", 5),
            ("[1,]", 3),
            ("{\"a\":1,}", 7),
            ("[01]", 2),
            ("\"a\nb\"", 2),
            ("\"\\x\"", 2),
            ("nul!", 3),
            ("[1}", 2),
            ("-a", 1),
            (" 1", 0),
        ] {
            assert_eq!(scan(text), Err(at), "{text}");
        }
        assert_eq!(scan(&"[".repeat(1000)), Err(DEPTH_MAX));
    }

    proptest! {
        #[test]
        fn agrees_with_serde(text in r#"[\[\]{}",:\\ 0-9eE.+\-truefalsn]{0,24}"#) {
            let valid = serde_json::from_str::<serde_json::Value>(text.trim()).is_ok();
            let text = format!("{}\n", text.trim());
            // A number ends at the line feed; everything else where it ends.
            let whole = scan(&text) == Ok(text.len() - 1);
            prop_assert_eq!(valid, whole, "{}", text);
        }
    }
}
