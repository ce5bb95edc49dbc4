//! A call as one JSON object, `{"name": …, "arguments": {…}}`, taken in as it arrives; knows no format around it.

use serde_json::{Map, Value};

use super::json_scan::{JsonScan, Step};

/// Most characters that are taken before it is clear that this is a call.
const UNDECIDED_MAX: usize = 128 << 10;
/// Most bytes of a key or value that is kept until it is whole.
const KEPT_BYTES_MAX: usize = 4 * UNDECIDED_MAX;

/// Reads one object. Its keys may come in any order; those that say neither name nor arguments are skipped.
#[derive(Debug)]
pub(super) struct CallObject {
    state: State,
    keys: Keys,
    /// The key or value that is kept until it is whole, as written.
    kept: String,
    /// The function's name, once it is known.
    pub(super) name: Option<String>,
    /// Whether a value for the arguments has begun that is certainly an object.
    pub(super) arguments_begun: bool,
    /// Arguments that have not been taken away.
    pub(super) arguments: String,
    /// Characters before name and arguments were both there.
    undecided: usize,
}

/// Keys that an object may have besides those that say name and arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    Any,
    /// Only those that calls are known to have: the object may be an answer in JSON, which must not be held back.
    OfCalls,
}

#[derive(Debug)]
enum State {
    Open,
    FirstKey,
    NextKey,
    Key(JsonScan),
    Colon(Means),
    Before(Means),
    Value(Holds, JsonScan),
    Next,
}

/// Meaning of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    Name,
    Arguments,
    Other,
}

/// Value in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Name,
    /// Arguments as an object, passed on as they come.
    Arguments,
    /// Arguments as a string that holds an object, or as null.
    WrappedArguments,
    Other,
}

/// What a character did to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    End,
    Wrong,
}

impl CallObject {
    pub(super) fn new(keys: Keys) -> CallObject {
        CallObject {
            state: State::Open,
            keys,
            kept: String::new(),
            name: None,
            arguments_begun: false,
            arguments: String::new(),
            undecided: 0,
        }
    }

    /// Takes characters until the object ends or one is wrong; returns the bytes taken.
    pub(super) fn push_all(&mut self, text: &str) -> (usize, Progress) {
        for (offset, c) in text.char_indices() {
            match self.push(c) {
                Progress::More => {}
                Progress::End => return (offset + c.len_utf8(), Progress::End),
                Progress::Wrong => return (offset, Progress::Wrong),
            }
        }
        (text.len(), Progress::More)
    }

    fn push(&mut self, c: char) -> Progress {
        if self.name.is_none() || !self.arguments_begun {
            self.undecided += 1;
            if self.undecided > UNDECIDED_MAX {
                return Progress::Wrong;
            }
        }
        let is_space = matches!(c, ' ' | '\t' | '\n' | '\r');
        match (std::mem::replace(&mut self.state, State::Next), c) {
            (State::Open, '{') => self.goes_on(State::FirstKey),
            (state @ (State::FirstKey | State::NextKey | State::Colon(_) | State::Before(_) | State::Next), _)
                if is_space =>
            {
                self.goes_on(state)
            }
            (State::FirstKey | State::Next, '}') => self.end(),
            (State::FirstKey | State::NextKey, '"') => {
                self.kept.clear();
                self.key(JsonScan::new(), c)
            }
            (State::Key(scan), _) => self.key(scan, c),
            (State::Colon(means), ':') => self.goes_on(State::Before(means)),
            (State::Before(means), _) => self.begin_value(means, c),
            (State::Value(holds, scan), _) => self.value(holds, scan, c),
            (State::Next, ',') => self.goes_on(State::NextKey),
            (State::Open | State::FirstKey | State::NextKey | State::Colon(_) | State::Next, _) => Progress::Wrong,
        }
    }

    fn key(&mut self, mut scan: JsonScan, c: char) -> Progress {
        match scan_char(&mut scan, c) {
            Step::More => self.keep(c, State::Key(scan)),
            Step::End => {
                self.kept.push(c);
                let means = match serde_json::from_str::<String>(&self.kept).as_deref() {
                    Ok("name") if self.name.is_none() => Means::Name,
                    Ok("arguments" | "parameters") if !self.arguments_begun => Means::Arguments,
                    // A second name or second arguments would contradict what has been passed on.
                    Ok("name" | "arguments" | "parameters") | Err(_) => return Progress::Wrong,
                    Ok(key) if self.keys == Keys::Any || matches!(key, "type" | "id") => Means::Other,
                    Ok(_) => return Progress::Wrong,
                };
                self.goes_on(State::Colon(means))
            }
            Step::EndBefore | Step::Wrong => Progress::Wrong,
        }
    }

    fn begin_value(&mut self, means: Means, c: char) -> Progress {
        let holds = match (means, c) {
            (Means::Name, '"') => Holds::Name,
            (Means::Arguments, '{') => {
                self.arguments_begun = true;
                Holds::Arguments
            }
            (Means::Arguments, '"' | 'n') => Holds::WrappedArguments,
            (Means::Name | Means::Arguments, _) => return Progress::Wrong,
            (Means::Other, _) => Holds::Other,
        };
        self.kept.clear();
        self.value(holds, JsonScan::new(), c)
    }

    fn value(&mut self, holds: Holds, mut scan: JsonScan, c: char) -> Progress {
        let step = scan_char(&mut scan, c);
        match (holds, step) {
            (_, Step::Wrong) => return Progress::Wrong,
            (_, Step::EndBefore) => {
                self.state = State::Next;
                return self.push(c);
            }
            (Holds::Arguments, Step::More | Step::End) => self.arguments.push(c),
            (Holds::Name | Holds::WrappedArguments, Step::More | Step::End) => {
                if self.keep(c, State::Next) == Progress::Wrong {
                    return Progress::Wrong;
                }
            }
            (Holds::Other, Step::More | Step::End) => {}
        }
        match (holds, step) {
            (_, Step::More) => self.goes_on(State::Value(holds, scan)),
            (Holds::Name, _) => match serde_json::from_str::<String>(&self.kept) {
                Ok(name) if !name.is_empty() => {
                    self.name = Some(name);
                    self.goes_on(State::Next)
                }
                Ok(_) | Err(_) => Progress::Wrong,
            },
            (Holds::WrappedArguments, _) => self.unwrap_arguments(),
            (Holds::Arguments | Holds::Other, _) => self.goes_on(State::Next),
        }
    }

    /// Takes arguments out of a string, as some models write them; null stands for none.
    fn unwrap_arguments(&mut self) -> Progress {
        match serde_json::from_str::<Option<String>>(&self.kept) {
            Ok(None) => self.arguments.push_str("{}"),
            Ok(Some(text)) if serde_json::from_str::<Map<String, Value>>(&text).is_ok() => {
                self.arguments.push_str(&text);
            }
            Ok(Some(_)) | Err(_) => return Progress::Wrong,
        }
        self.arguments_begun = true;
        self.goes_on(State::Next)
    }

    fn end(&mut self) -> Progress {
        if self.name.is_none() {
            return Progress::Wrong;
        }
        if !self.arguments_begun {
            self.arguments_begun = true;
            self.arguments.push_str("{}");
        }
        Progress::End
    }

    fn keep(&mut self, c: char, state: State) -> Progress {
        if self.kept.len() >= KEPT_BYTES_MAX {
            return Progress::Wrong;
        }
        self.kept.push(c);
        self.goes_on(state)
    }

    fn goes_on(&mut self, state: State) -> Progress {
        self.state = state;
        Progress::More
    }
}

/// Takes all bytes of a character. Only a string has characters of several bytes, and these never end it.
pub(super) fn scan_char(scan: &mut JsonScan, c: char) -> Step {
    let mut bytes = [0; 4];
    let mut step = Step::More;
    for byte in c.encode_utf8(&mut bytes).bytes() {
        step = scan.push(byte);
        if step != Step::More {
            break;
        }
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, String, usize), Option<String>> {
        let mut object = CallObject::new(Keys::Any);
        match object.push_all(text) {
            (taken, Progress::End) => Ok((object.name.unwrap(), object.arguments, taken)),
            (_, Progress::More | Progress::Wrong) => Err(object.name),
        }
    }

    #[test]
    fn keys_come_in_any_order_and_form() {
        let plain = r#"{"name": "f", "arguments": {"é": "}\"", "n": [1, {}]}}"#;
        let arguments = r#"{"é": "}\"", "n": [1, {}]}"#.to_owned();
        assert_eq!(read(&format!("{plain} more")), Ok(("f".into(), arguments.clone(), plain.len())));
        let turned = format!(r#"{{ "id" : 12 , "parameters" : {arguments} , "name" : "\u0066" }}"#);
        assert_eq!(read(&turned), Ok(("f".into(), arguments, turned.len())));
        for (text, arguments) in [
            (r#"{"name":"f"}"#, "{}"),
            (r#"{"name":"f","arguments":null}"#, "{}"),
            (r#"{"name":"f","arguments":"{\"a\": 1}"}"#, r#"{"a": 1}"#),
            (r#"{"type":"function","name":"f","parameters":{}}"#, "{}"),
        ] {
            assert_eq!(read(text), Ok(("f".into(), arguments.into(), text.len())), "{text}");
        }
    }

    #[test]
    fn other_values_are_wrong() {
        for text in [
            "[",
            "{}",
            r#"{"name": ""}"#,
            r#"{"name": 1}"#,
            r#"{"arguments": {}}"#,
            r#"{"name": "f", "name": "g"}"#,
            r#"{"name": "f", "arguments": [1]}"#,
            r#"{"name": "f", "arguments": "no"}"#,
            r#"{"name": "f", "arguments": {"a" 1}}"#,
            r#"{"name": "f" "arguments"}"#,
            r#"{"name": "f",}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
