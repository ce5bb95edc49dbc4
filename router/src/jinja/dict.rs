//! Dictionaries in insertion order, with Python's keys; knows no syntax.

use std::hash::{Hash, Hasher};

use indexmap::{Equivalent, IndexMap};

use super::meter;
use super::text::Text;
use super::{Error, Value};

/// A dictionary.
#[derive(Debug, Default, Clone)]
pub struct Dict {
    map: IndexMap<Key, (Value, Value)>,
    counted: Counted,
    depth: u32,
}

/// Bytes of a dictionary that the meter counts.
#[derive(Debug, Default)]
struct Counted(usize);

impl Clone for Counted {
    fn clone(&self) -> Counted {
        meter::add(self.0);
        Counted(self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        meter::remove(self.0);
    }
}

/// Bytes of one entry: key, value, hash and place.
const ENTRY_BYTES: usize = size_of::<Key>() + 2 * size_of::<Value>() + 24;

/// Form of a key in which equal values are one: `1`, `1.0` and `True`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    None,
    Int(i128),
    /// Bits of a float that is no integer.
    Float(u64),
    Str(Text),
    Tuple(Vec<Key>),
    Undefined,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Key::Str(text) => text.as_str().hash(state),
            Key::Int(value) => value.hash(state),
            Key::Float(bits) => bits.hash(state),
            Key::Tuple(keys) => keys.hash(state),
            Key::None | Key::Undefined => 0u8.hash(state),
        }
    }
}

/// String to look up without making a `Text`.
struct Name<'a>(&'a str);

impl Hash for Name<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Equivalent<Key> for Name<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        matches!(key, Key::Str(text) if text.as_str() == self.0)
    }
}

impl Key {
    fn of(value: &Value) -> Result<Key, Error> {
        Ok(match value {
            Value::None => Key::None,
            Value::Undefined(_) => Key::Undefined,
            Value::Bool(flag) => Key::Int(i128::from(*flag)),
            Value::Int(value) => Key::Int(*value),
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e30 => Key::Int(*value as i128),
            Value::Float(value) => Key::Float(value.to_bits()),
            Value::Str(text) => Key::Str(text.clone()),
            Value::Tuple(items) => Key::Tuple(items.iter().map(Key::of).collect::<Result<_, _>>()?),
            other => return Err(Error::fault(format!("unhashable type: '{}'", other.type_name()))),
        })
    }
}

impl Dict {
    /// Sets `key` to `value`; an equal key keeps its place and its first form. Fails if `key` is not hashable.
    pub(super) fn insert(&mut self, key: Value, value: Value) -> Result<(), Error> {
        let hashed = Key::of(&key)?;
        self.insert_hashed(hashed, key, value);
        Ok(())
    }

    /// Sets the key `name` to `value`.
    pub fn insert_text(&mut self, name: Text, value: Value) {
        self.insert_hashed(Key::Str(name.clone()), Value::Str(name), value);
    }

    fn insert_hashed(&mut self, hashed: Key, key: Value, value: Value) {
        self.depth = self.depth.max(key.depth() + 1).max(value.depth() + 1);
        match self.map.get_mut(&hashed) {
            Some((_, old)) => *old = value,
            None => {
                self.map.insert(hashed, (key, value));
                self.counted.0 += ENTRY_BYTES;
                meter::add(ENTRY_BYTES);
            }
        }
    }

    pub(super) fn get(&self, key: &Value) -> Result<Option<&Value>, Error> {
        if let Value::Str(text) = key {
            return Ok(self.get_name(text.as_str()));
        }
        Ok(self.map.get(&Key::of(key)?).map(|(_, value)| value))
    }

    pub(super) fn get_name(&self, name: &str) -> Option<&Value> {
        self.map.get(&Name(name)).map(|(_, value)| value)
    }

    /// Nesting depth of the values.
    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&Value, &Value)> {
        self.map.values().map(|(key, value)| (key, value))
    }

    pub(super) fn keys(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.map.values().map(|(key, _)| key)
    }

    pub(super) fn values(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.map.values().map(|(_, value)| value)
    }
}

/// Returns for each key whether no earlier one equals it.
pub(super) fn distinct(keys: &[Value]) -> Result<Vec<bool>, Error> {
    let mut seen = IndexMap::new();
    keys.iter().map(|key| Ok(seen.insert(Key::of(key)?, ()).is_none())).collect()
}
