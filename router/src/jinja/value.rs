//! Values of a running template, with Python's types; knows no syntax.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::Error;
use super::ast;
use super::dict::Dict;
use super::meter;
use super::scope::Scope;
use super::text::{Origin, Text};

/// Value of a template. Cheap to clone; lists and dictionaries never change.
#[derive(Debug, Clone)]
pub enum Value {
    /// Missing value, with a message about what was asked for.
    Undefined(Rc<Missing>),
    /// `None`.
    None,
    /// `True` and `False`, which are also 1 and 0.
    Bool(bool),
    /// Integer. Python's have no bounds; a template that exceeds 127 bits fails.
    Int(i128),
    /// A float.
    Float(f64),
    /// A string.
    Str(Text),
    /// A list.
    List(Rc<Items>),
    /// A tuple.
    Tuple(Rc<Items>),
    /// A dictionary.
    Dict(Rc<Dict>),
    /// `range(…)`: start, step, length.
    Range(i128, i128, usize),
    /// Result of `keys()`, `values()` or `items()`.
    View(View, Rc<Dict>),
    /// Iterator: can be walked once and has no length.
    Once(Rc<Once>),
    /// `namespace(…)`, the only value that changes.
    Namespace(Rc<RefCell<Dict>>),
    /// Callable value.
    Callable(Rc<Callable>),
    /// The variable `loop`.
    Loop(Rc<Loop>),
    /// `cycler(…)`.
    Cycler(Rc<Cycler>),
}

/// The items of a list or tuple.
#[derive(Debug)]
pub struct Items {
    items: Vec<Value>,
    depth: u32,
}

impl Items {
    pub(super) fn new(items: Vec<Value>) -> Rc<Items> {
        meter::add(items.capacity() * size_of::<Value>());
        meter::charge(items.len());
        let depth = items.iter().map(Value::depth).max().map_or(0, |depth| depth + 1);
        Rc::new(Items { items, depth })
    }
}

impl Drop for Items {
    fn drop(&mut self) {
        meter::remove(self.items.capacity() * size_of::<Value>());
    }
}

impl std::ops::Deref for Items {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.items
    }
}

/// Reason why a value is missing.
#[derive(Debug)]
pub struct Missing {
    message: String,
}

/// Part of a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// `keys()`.
    Keys,
    /// `values()`.
    Values,
    /// `items()`.
    Items,
}

/// Items of an iterator until it is walked.
#[derive(Debug)]
pub struct Once {
    /// Python's name of the iterator.
    pub(super) kind: &'static str,
    items: RefCell<Option<Rc<Items>>>,
}

/// Callable value.
#[derive(Debug)]
pub enum Callable {
    /// A function of the environment.
    Function(Function),
    /// A method of a value.
    Method(Value, &'static str),
    /// Macro, or block of a `call`, with the scope in which it is defined.
    Macro(Arc<ast::Macro>, Rc<Scope>),
    /// `joiner(…)`: its text, and whether it has been called.
    Joiner(Text, Cell<bool>),
}

/// Functions that every template may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// `range`.
    Range,
    /// `dict`.
    Dict,
    /// `namespace`.
    Namespace,
    /// `cycler`.
    Cycler,
    /// `joiner`.
    Joiner,
    /// `lipsum`, whose text is random: the name is known, but a call is refused.
    Lipsum,
    /// `raise_exception`.
    RaiseException,
    /// `strftime_now`.
    StrftimeNow,
}

/// State of a `for`.
#[derive(Debug)]
pub struct Loop {
    pub(super) items: Rc<Items>,
    pub(super) index0: Cell<usize>,
    pub(super) depth0: usize,
    pub(super) changed: RefCell<Option<Vec<Value>>>,
    /// For recursive loops: the loop, and the scope in which it is defined.
    pub(super) recursive: Option<(Arc<ast::For>, Rc<Scope>)>,
}

/// State of a `cycler`.
#[derive(Debug)]
pub struct Cycler {
    pub(super) items: Rc<Items>,
    pub(super) at: Cell<usize>,
}

impl Value {
    /// Converts JSON; its strings have the origin `origin`.
    pub fn of_json(json: &serde_json::Value, origin: Origin) -> Value {
        match json {
            serde_json::Value::Null => Value::None,
            serde_json::Value::Bool(flag) => Value::Bool(*flag),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Value::Int(i128::from(value)),
                (None, Some(value)) => Value::Int(i128::from(value)),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Value::Str(Text::of(text.as_str(), origin)),
            serde_json::Value::Array(list) => Value::list(list.iter().map(|item| Value::of_json(item, origin))),
            serde_json::Value::Object(map) => {
                let mut dict = Dict::default();
                for (name, value) in map {
                    dict.insert_text(Text::of(name.as_str(), origin), Value::of_json(value, origin));
                }
                Value::Dict(Rc::new(dict))
            }
        }
    }

    /// Makes a string of the template's own.
    pub fn own(text: impl Into<String>) -> Value {
        Value::Str(Text::own(text))
    }

    /// Makes a list.
    pub fn list(items: impl IntoIterator<Item = Value>) -> Value {
        Value::List(Items::new(items.into_iter().collect()))
    }

    /// Makes a dictionary whose names are the template's own.
    pub fn object<'n>(fields: impl IntoIterator<Item = (&'n str, Value)>) -> Value {
        let mut dict = Dict::default();
        fields.into_iter().for_each(|(name, value)| dict.insert_text(Text::own(name), value));
        Value::Dict(Rc::new(dict))
    }

    pub(super) fn tuple(items: impl IntoIterator<Item = Value>) -> Value {
        Value::Tuple(Items::new(items.into_iter().collect()))
    }

    pub(super) fn once(kind: &'static str, items: Vec<Value>) -> Value {
        Value::Once(Rc::new(Once { kind, items: RefCell::new(Some(Items::new(items))) }))
    }

    pub(super) fn undefined(message: impl Into<String>) -> Value {
        Value::Undefined(Rc::new(Missing { message: message.into() }))
    }

    pub(super) fn callable(callable: Callable) -> Value {
        Value::Callable(Rc::new(callable))
    }

    /// Nesting depth. Namespaces and macros, which live until the run ends, count as plain values.
    pub(super) fn depth(&self) -> u32 {
        match self {
            Value::List(items) | Value::Tuple(items) => items.depth,
            Value::Dict(dict) | Value::View(_, dict) => dict.depth(),
            Value::Once(once) => once.items.borrow().as_ref().map_or(0, |items| items.depth),
            Value::Loop(state) => state.items.depth,
            Value::Cycler(cycler) => cycler.items.depth,
            Value::Callable(callable) => match &**callable {
                Callable::Method(value, _) => value.depth() + 1,
                Callable::Function(_) | Callable::Macro(..) | Callable::Joiner(..) => 0,
            },
            Value::Undefined(_)
            | Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Str(_)
            | Value::Range(..)
            | Value::Namespace(_) => 0,
        }
    }

    /// Returns an integer, also for a flag.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(value) => Some(*value),
            Value::Bool(flag) => Some(i128::from(*flag)),
            _ => None,
        }
    }

    pub(super) fn as_text(&self) -> Option<&Text> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(flag) => *flag,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::List(items) | Value::Tuple(items) => !items.is_empty(),
            Value::Dict(dict) | Value::View(_, dict) => dict.len() > 0,
            Value::Range(_, _, length) => *length > 0,
            Value::Loop(state) => !state.items.is_empty(),
            Value::Once(_) | Value::Namespace(_) | Value::Callable(_) | Value::Cycler(_) => true,
        }
    }

    /// Name of the type in Python's messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::Range(..) => "range",
            Value::View(View::Keys, _) => "dict_keys",
            Value::View(View::Values, _) => "dict_values",
            Value::View(View::Items, _) => "dict_items",
            Value::Once(once) => once.kind,
            Value::Namespace(_) => "Namespace",
            Value::Callable(callable) => match &**callable {
                Callable::Function(_) | Callable::Method(..) => "builtin_function_or_method",
                Callable::Macro(..) => "Macro",
                Callable::Joiner(..) => "Joiner",
            },
            Value::Loop(_) => "LoopContext",
            Value::Cycler(_) => "Cycler",
        }
    }

    /// Fails if the value is missing.
    pub(super) fn require(&self) -> Result<(), Error> {
        match self {
            Value::Undefined(missing) => Err(Error::fault(missing.message.clone())),
            _ => Ok(()),
        }
    }

    pub(super) fn iterate(&self) -> Result<Rc<Items>, Error> {
        match self {
            Value::List(items) | Value::Tuple(items) => Ok(items.clone()),
            Value::Undefined(_) => Ok(Items::new(Vec::new())),
            Value::Str(text) => {
                // Every character becomes a text of its own.
                meter::check(text.len().saturating_mul(100))?;
                let ends = text.as_str().char_indices().map(|(start, c)| (start, start + c.len_utf8()));
                Ok(Items::new(ends.map(|(start, end)| Value::Str(text.part(start..end))).collect()))
            }
            Value::Dict(dict) => Ok(Items::new(dict.keys().cloned().collect())),
            Value::View(view, dict) => Ok(Items::new(match view {
                View::Keys => dict.keys().cloned().collect(),
                View::Values => dict.values().cloned().collect(),
                View::Items => dict.iter().map(|(key, value)| Value::tuple([key.clone(), value.clone()])).collect(),
            })),
            Value::Range(start, step, length) => {
                let mut next = *start;
                let items = (0..*length).map(|_| {
                    let value = Value::Int(next);
                    next = next.saturating_add(*step);
                    value
                });
                Ok(Items::new(items.collect()))
            }
            Value::Once(once) => Ok(once.items.borrow_mut().take().unwrap_or_else(|| Items::new(Vec::new()))),
            Value::Loop(state) => Ok(state.items.clone()),
            other => Err(Error::fault(format!("'{}' object is not iterable", other.type_name()))),
        }
    }

    pub(super) fn is_iterable(&self) -> bool {
        match self {
            Value::Undefined(_)
            | Value::Str(_)
            | Value::List(_)
            | Value::Tuple(_)
            | Value::Dict(_)
            | Value::Range(..)
            | Value::View(..)
            | Value::Once(_)
            | Value::Loop(_) => true,
            Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Namespace(_)
            | Value::Callable(_)
            | Value::Cycler(_) => false,
        }
    }

    pub(super) fn length(&self) -> Result<usize, Error> {
        match self {
            Value::Undefined(_) => Ok(0),
            Value::Str(text) => Ok(text.as_str().chars().count()),
            Value::List(items) | Value::Tuple(items) => Ok(items.len()),
            Value::Dict(dict) | Value::View(_, dict) => Ok(dict.len()),
            Value::Range(_, _, length) => Ok(*length),
            Value::Loop(state) => Ok(state.items.len()),
            other => Err(Error::fault(format!("object of type '{}' has no len()", other.type_name()))),
        }
    }

    /// Returns true if both are one object, as Python's `is` sees it.
    pub(super) fn is_same(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::None, Value::None) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b && (-5..=256).contains(a),
            (Value::Str(a), Value::Str(b)) => a.same(b) || (a == b && a.len() <= 1),
            (Value::List(a), Value::List(b)) => Rc::ptr_eq(a, b),
            (Value::Tuple(a), Value::Tuple(b)) => Rc::ptr_eq(a, b) || (a.is_empty() && b.is_empty()),
            (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
            (Value::Once(a), Value::Once(b)) => Rc::ptr_eq(a, b),
            (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
            (Value::Callable(a), Value::Callable(b)) => Rc::ptr_eq(a, b),
            (Value::Loop(a), Value::Loop(b)) => Rc::ptr_eq(a, b),
            (Value::Cycler(a), Value::Cycler(b)) => Rc::ptr_eq(a, b),
            (Value::Undefined(a), Value::Undefined(b)) => Rc::ptr_eq(a, b),
            _ => false,
        }
    }
}
