//! Text to content and tool calls, piece by piece; knows no token and no thought.

use std::sync::Arc;

use super::call_object::{CallObject, Keys, Progress, scan_char};
use super::format::{Bare, Shape, ToolFormat};
use super::ids::CallIds;
use super::json_scan::{JsonScan, Step};
use super::pieces::Pieces;
use super::script::{Branch, Item, OBJECTS, Take};
use super::space::{begun_mark, held_back, trailing_space};
use super::{CallsPerTurn, Function};

/// Most bytes of what may become a call that are kept.
const KEPT_BYTES_MAX: usize = 256 << 10;
/// Most bytes of a name, an id or a key.
const NAME_BYTES_MAX: usize = 256;
/// Most white space before the start of a call that is not opened by a text.
const LEAD_BYTES_MAX: usize = 64;

/// Takes an answer apart. How the text is cut into pieces does not matter for the joined result; no part of the text
/// that opens calls is given out as content; what does not become a call is given back as content.
#[derive(Debug)]
pub(super) struct CallReader {
    shape: &'static Shape,
    functions: Arc<[Function]>,
    limit: CallsPerTurn,
    ids: CallIds,
    /// Text that is not decided yet.
    held: String,
    place: Place,
    /// Text since the last sure place, which becomes content if no call comes of it.
    raw: String,
    work: Work,
    call: Call,
    /// Calls begun.
    count: u32,
    /// Bytes of the held text in which the end of a value is not.
    searched: usize,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// At the start of the answer.
    Start,
    /// In content.
    Content,
    /// Behind a call, where white space is not content.
    Behind,
    /// In calls, with what is still to come.
    Script(&'static [Item]),
}

/// Value in progress.
#[derive(Debug)]
enum Work {
    None,
    Object(CallObject),
    Arguments(JsonScan),
    /// Inside a string that is an argument.
    Text,
    /// The next character is wrong.
    Broken,
}

/// Call in progress.
#[derive(Debug)]
enum Call {
    None,
    Named(String),
    /// Begun for the client; `keys` arguments came one by one.
    Begun {
        name: String,
        keys: u32,
        key: String,
    },
}

/// Whether more calls are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    Wanted,
    /// The only call is complete.
    Over,
}

enum Advance {
    /// Goes on behind so many bytes.
    By(usize),
    Wait,
    /// This is no call.
    Broken,
}

impl CallReader {
    pub(super) fn new(format: ToolFormat, functions: Arc<[Function]>, limit: CallsPerTurn, seed: u64) -> CallReader {
        let shape = format.shape();
        CallReader {
            shape,
            functions,
            limit,
            ids: CallIds::new(seed, shape.ids),
            held: String::new(),
            place: Place::Start,
            raw: String::new(),
            work: Work::None,
            call: Call::None,
            count: 0,
            searched: 0,
        }
    }

    /// Takes more text and gives out what is certain.
    pub(super) fn push(&mut self, text: &str, out: &mut Pieces<'_>) -> More {
        let mut held = std::mem::take(&mut self.held);
        held.push_str(text);
        let mut at = 0;
        while let Some(rest) = held.get(at..) {
            if self.is_over() {
                return More::Over;
            }
            match self.advance(rest, out) {
                Advance::By(bytes) => at += bytes,
                Advance::Wait => break,
                Advance::Broken => self.give_back(out),
            }
        }
        held.drain(..at);
        self.held = held;
        if self.is_over() { More::Over } else { More::Wanted }
    }

    /// Ends the text. A call that is not complete stays as it is if it has begun for the client, and is content
    /// otherwise.
    pub(super) fn finish(&mut self, out: &mut Pieces<'_>) {
        if self.is_over() {
            return;
        }
        let rest = std::mem::take(&mut self.raw) + &std::mem::take(&mut self.held);
        let is_around_a_call = self.count > 0 && !matches!(self.place, Place::Content);
        if !(is_around_a_call && rest.trim().is_empty()) {
            out.content.push_str(&rest);
        }
    }

    /// Returns true if a call has begun.
    pub(super) fn has_called(&self) -> bool {
        self.count > 0
    }

    fn is_over(&self) -> bool {
        self.limit == CallsPerTurn::One && self.count > 0 && matches!(self.call, Call::None)
    }

    fn advance(&mut self, rest: &str, out: &mut Pieces<'_>) -> Advance {
        match self.place {
            Place::Start => self.start(rest),
            Place::Content | Place::Behind => self.content(rest, out),
            Place::Script([]) => {
                self.place = Place::Behind;
                self.raw.clear();
                Advance::By(0)
            }
            Place::Script([item, then @ ..]) => {
                let (begun, was_in_call) = (self.count, matches!(self.call, Call::Begun { .. }));
                let advance = self.item(item, then, rest, out);
                if was_in_call || self.count != begun {
                    self.raw.clear();
                } else if let Advance::By(bytes) = advance {
                    self.raw.push_str(rest.get(..bytes).unwrap_or_default());
                }
                advance
            }
        }
    }

    /// Looks for a call without the text that opens calls.
    fn start(&mut self, rest: &str) -> Advance {
        let lead = rest.len() - rest.trim_start().len();
        match (self.shape.bare, rest.get(lead..).unwrap_or_default().chars().next()) {
            (Bare::Object, None) if lead <= LEAD_BYTES_MAX => return Advance::Wait,
            (Bare::Object, Some('{')) if lead <= LEAD_BYTES_MAX => self.place = Place::Script(&OBJECTS),
            (Bare::Object | Bare::Never, _) => self.place = Place::Content,
        }
        Advance::By(0)
    }

    fn content(&mut self, rest: &str, out: &mut Pieces<'_>) -> Advance {
        let opens = self.shape.opens;
        if let Some(at) = rest.find(opens) {
            let content = rest.get(..at).unwrap_or_default();
            let (content, space) = content.split_at(content.len() - trailing_space(content));
            out.content.push_str(content);
            self.raw = [space, opens].concat();
            self.place = Place::Script(self.shape.calls);
            return Advance::By(at + opens.len());
        }
        let sure = rest.len() - held_back(rest, opens);
        let content = rest.get(..sure).unwrap_or_default();
        out.content.push_str(content);
        if content.is_empty() {
            return Advance::Wait;
        }
        self.place = Place::Content;
        Advance::By(sure)
    }

    fn item(&mut self, item: &'static Item, then: &'static [Item], rest: &str, out: &mut Pieces<'_>) -> Advance {
        match item {
            Item::Space => match rest.len() - rest.trim_start().len() {
                all if all == rest.len() && all == 0 => Advance::Wait,
                all if all == rest.len() => Advance::By(all),
                bytes => self.go(then, bytes),
            },
            Item::Exactly(text) if rest.starts_with(text) => self.go(then, text.len()),
            Item::Exactly(text) if text.starts_with(rest) => Advance::Wait,
            Item::Exactly(_) => Advance::Broken,
            Item::Fork(branches) => self.fork(branches, rest),
            Item::Object => self.object(then, rest, out),
            Item::Name(branches) => self.until(branches, rest, Found::Name),
            Item::Skip(branches) => self.until(branches, rest, Found::Nothing),
            Item::Arguments => self.arguments(then, rest, out),
            Item::Begin => {
                if !self.begin(out) {
                    return Advance::Broken;
                }
                self.go(then, 0)
            }
            Item::Key(end) => self.key(end, then, rest),
            Item::Value(end) => self.value(end, then, rest, out),
            Item::End => {
                let keys = if let Call::Begun { keys, .. } = &self.call { *keys } else { 0 };
                self.pass_on(if keys == 0 { "{}" } else { "}" }, out);
                self.call = Call::None;
                self.go(then, 0)
            }
        }
    }

    fn go(&mut self, then: &'static [Item], bytes: usize) -> Advance {
        self.place = Place::Script(then);
        Advance::By(bytes)
    }

    fn fork(&mut self, branches: &'static [Branch], rest: &str) -> Advance {
        for branch in branches {
            if rest.starts_with(branch.text) {
                return self.go(branch.then, branch.taken());
            }
            if branch.text.starts_with(rest) {
                return Advance::Wait;
            }
        }
        Advance::Broken
    }

    fn until(&mut self, branches: &'static [Branch], rest: &str, found: Found) -> Advance {
        let next = branches.iter().filter_map(|branch| Some((rest.find(branch.text)?, branch)));
        match next.min_by_key(|(at, _)| *at) {
            Some((at, branch)) if at <= NAME_BYTES_MAX => {
                let name = rest.get(..at).unwrap_or_default().trim();
                match found {
                    Found::Name if !is_name(name) => return Advance::Broken,
                    Found::Name => self.call = Call::Named(name.to_owned()),
                    Found::Nothing => {}
                }
                self.go(branch.then, at + branch.taken())
            }
            None if rest.len() <= 2 * NAME_BYTES_MAX => Advance::Wait,
            Some(_) | None => Advance::Broken,
        }
    }

    fn object(&mut self, then: &'static [Item], rest: &str, out: &mut Pieces<'_>) -> Advance {
        let mut object = match std::mem::replace(&mut self.work, Work::None) {
            Work::Object(object) => object,
            Work::Broken => return Advance::Broken,
            Work::None | Work::Text | Work::Arguments(_) => {
                CallObject::new(if self.is_bare() { Keys::OfCalls } else { Keys::Any })
            }
        };
        let (taken, progress) = object.push_all(rest);
        if let (Call::None, Some(name)) = (&self.call, &object.name) {
            if self.is_bare() && !self.functions.iter().any(|function| function.name == *name) {
                return Advance::Broken;
            }
            if object.arguments_begun {
                self.call = Call::Named(name.clone());
                self.begin(out);
            }
        }
        if let Call::Begun { .. } = self.call {
            self.pass_on(&std::mem::take(&mut object.arguments), out);
        }
        self.work = match progress {
            Progress::More if rest.is_empty() => {
                self.work = Work::Object(object);
                return Advance::Wait;
            }
            Progress::More => Work::Object(object),
            Progress::End => {
                self.call = Call::None;
                return self.go(then, taken);
            }
            Progress::Wrong => Work::Broken,
        };
        Advance::By(taken)
    }

    fn arguments(&mut self, then: &'static [Item], rest: &str, out: &mut Pieces<'_>) -> Advance {
        let mut scan = match std::mem::replace(&mut self.work, Work::None) {
            Work::Arguments(scan) => scan,
            Work::Broken => return Advance::Broken,
            Work::None | Work::Text | Work::Object(_) => match rest.chars().next() {
                None => return Advance::Wait,
                Some('{') if self.begin(out) => JsonScan::new(),
                Some(_) => return Advance::Broken,
            },
        };
        let (taken, step) = scan_all(&mut scan, rest);
        self.pass_on(rest.get(..taken).unwrap_or_default(), out);
        self.work = match step {
            Step::End => {
                self.call = Call::None;
                return self.go(then, taken);
            }
            Step::More if rest.is_empty() => {
                self.work = Work::Arguments(scan);
                return Advance::Wait;
            }
            Step::More => Work::Arguments(scan),
            Step::EndBefore | Step::Wrong => Work::Broken,
        };
        Advance::By(taken)
    }

    fn key(&mut self, end: &str, then: &'static [Item], rest: &str) -> Advance {
        match rest.find(end) {
            Some(at) if at <= NAME_BYTES_MAX => {
                if let Call::Begun { key, .. } = &mut self.call {
                    rest.get(..at).unwrap_or_default().trim().clone_into(key);
                }
                self.go(then, at + end.len())
            }
            None if rest.len() <= NAME_BYTES_MAX => Advance::Wait,
            Some(_) | None => Advance::Broken,
        }
    }

    /// Takes the value of an argument, as the function's schema says: a string as it comes, anything else when it is
    /// whole.
    fn value(&mut self, end: &str, then: &'static [Item], rest: &str, out: &mut Pieces<'_>) -> Advance {
        let Call::Begun { name, key, .. } = &self.call else { return Advance::Broken };
        let function = self.functions.iter().find(|function| function.name == *name);
        if function.is_none_or(|function| function.is_text(key)) {
            return self.text_value(end, then, rest, out);
        }
        let from = self.searched.min(rest.len());
        let found = rest.get(from..).and_then(|unsearched| unsearched.find(end)).map(|at| from + at);
        let Some(at) = found.filter(|at| *at <= KEPT_BYTES_MAX) else {
            // The end may have begun; what comes before was searched.
            self.searched = rest.len() - begun_mark(rest, end);
            return if found.is_some() || self.searched > KEPT_BYTES_MAX { Advance::Broken } else { Advance::Wait };
        };
        self.searched = 0;
        let text = rest.get(..at).unwrap_or_default();
        let text = text.strip_prefix('\n').unwrap_or(text);
        let text = text.strip_suffix('\n').unwrap_or(text);
        let value = serde_json::from_str(text.trim()).unwrap_or_else(|_| serde_json::Value::from(text));
        self.open_argument(out);
        self.pass_on(&value.to_string(), out);
        self.go(then, at + end.len())
    }

    /// Takes the value of an argument that is a string. The line feeds next to its tags do not belong to it.
    fn text_value(&mut self, end: &str, then: &'static [Item], rest: &str, out: &mut Pieces<'_>) -> Advance {
        if !matches!(self.work, Work::Text) {
            let Some(first) = rest.chars().next() else { return Advance::Wait };
            self.open_argument(out);
            self.pass_on("\"", out);
            self.work = Work::Text;
            return Advance::By(usize::from(first == '\n'));
        }
        if let Some(at) = rest.find(end) {
            let text = rest.get(..at).unwrap_or_default();
            self.pass_on(&escaped(text.strip_suffix('\n').unwrap_or(text)), out);
            self.pass_on("\"", out);
            self.work = Work::None;
            return self.go(then, at + end.len());
        }
        let before_end = rest.len() - begun_mark(rest, end);
        let line_feed = rest.get(..before_end).is_some_and(|text| text.ends_with('\n'));
        match before_end - usize::from(line_feed) {
            0 => Advance::Wait,
            sure => {
                self.pass_on(&escaped(rest.get(..sure).unwrap_or_default()), out);
                Advance::By(sure)
            }
        }
    }

    /// Begins the next argument of a call whose arguments come one by one.
    fn open_argument(&mut self, out: &mut Pieces<'_>) {
        let Call::Begun { keys, key, .. } = &mut self.call else { return };
        let separator = if *keys == 0 { "{" } else { ", " };
        *keys += 1;
        let opened = format!("{separator}{}: ", serde_json::Value::from(key.as_str()));
        self.pass_on(&opened, out);
    }

    /// Begins the named call for the client. Returns false if none is named.
    fn begin(&mut self, out: &mut Pieces<'_>) -> bool {
        let Call::Named(name) = std::mem::replace(&mut self.call, Call::None) else { return false };
        out.begin(self.count, self.ids.next(), name.clone());
        self.count += 1;
        self.call = Call::Begun { name, keys: 0, key: String::new() };
        true
    }

    /// Gives text back of which no call came.
    fn give_back(&mut self, out: &mut Pieces<'_>) {
        out.content.push_str(&std::mem::take(&mut self.raw));
        self.work = Work::None;
        self.call = Call::None;
        self.searched = 0;
        self.place = Place::Content;
    }

    fn pass_on(&self, arguments: &str, out: &mut Pieces<'_>) {
        out.arguments(self.count.saturating_sub(1), arguments);
    }

    /// Returns true if the call came without the text that opens calls.
    fn is_bare(&self) -> bool {
        // A name or a value may contain what opens calls.
        self.shape.bare == Bare::Object && self.count == 0 && !self.raw.trim_start().starts_with(self.shape.opens)
    }
}

/// Use of a text that has been found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Name,
    Nothing,
}

impl Branch {
    fn taken(&self) -> usize {
        match self.take {
            Take::Yes => self.text.len(),
            Take::No => 0,
        }
    }
}

/// Returns true if `text` may be a function's name, and not a sentence.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/'))
}

/// Returns the text as it is inside a string of JSON.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}

/// Takes characters until the value ends or one is wrong; returns the bytes taken.
fn scan_all(scan: &mut JsonScan, text: &str) -> (usize, Step) {
    for (offset, c) in text.char_indices() {
        match scan_char(scan, c) {
            Step::More => {}
            Step::End => return (offset + c.len_utf8(), Step::End),
            step @ (Step::EndBefore | Step::Wrong) => return (offset, step),
        }
    }
    (text.len(), Step::More)
}
