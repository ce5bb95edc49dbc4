//! Arguments of a call and their binding to a function's parameters; knows no function.

use super::text::Text;
use super::{Error, Value};

#[derive(Debug, Default)]
pub(super) struct Call {
    pub positional: Vec<Value>,
    pub named: Vec<(Text, Value)>,
}

impl Call {
    pub(super) fn of(positional: Vec<Value>) -> Call {
        Call { positional, named: Vec::new() }
    }

    /// Binds the arguments to the parameters `names` of `function`; `None` for a parameter left out. Fails if there are
    /// too many, unknown or repeated arguments.
    pub(super) fn bind<const N: usize>(self, function: &str, names: [&str; N]) -> Result<[Option<Value>; N], Error> {
        let given = self.positional.len();
        if given > N {
            return Err(Error::fault(format!("{function}() takes at most {N} arguments ({given} given)")));
        }
        let mut bound = [const { None }; N];
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let Some(place) = names.iter().position(|known| *known == name.as_str()) else {
                let name = name.as_str();
                return Err(Error::fault(format!("{function}() got an unexpected keyword argument '{name}'")));
            };
            if bound[place].replace(value).is_some() {
                let name = name.as_str();
                return Err(Error::fault(format!("{function}() got multiple values for argument '{name}'")));
            }
        }
        Ok(bound)
    }

    pub(super) fn nothing(self, function: &str) -> Result<(), Error> {
        self.bind(function, []).map(|_: [Option<Value>; 0]| ())
    }

    pub(super) fn take_named(&mut self, name: &str) -> Option<Value> {
        let place = self.named.iter().position(|(known, _)| known.as_str() == name)?;
        Some(self.named.remove(place).1)
    }
}

/// Returns a required argument.
pub(super) fn needed(value: Option<Value>, function: &str, name: &str) -> Result<Value, Error> {
    value.ok_or_else(|| Error::fault(format!("{function}() missing 1 required positional argument: '{name}'")))
}

pub(super) fn text(value: Option<Value>, function: &str, name: &str) -> Result<Text, Error> {
    match needed(value, function, name)? {
        Value::Str(text) => Ok(text),
        other => Err(Error::fault(format!("{function}() argument must be str, not {}", other.type_name()))),
    }
}

pub(super) fn optional_text(value: Option<Value>, function: &str, name: &str) -> Result<Option<Text>, Error> {
    match value {
        None | Some(Value::None) => Ok(None),
        some => text(some, function, name).map(Some),
    }
}

/// Returns an integer argument, or `default` if it is absent.
pub(super) fn int(value: Option<Value>, default: i128) -> Result<i128, Error> {
    let Some(value) = value else { return Ok(default) };
    value.require()?;
    value
        .as_int()
        .ok_or_else(|| Error::fault(format!("'{}' object cannot be interpreted as an integer", value.type_name())))
}

/// Returns the truth of an argument; false if it is absent.
pub(super) fn flag(value: Option<&Value>) -> bool {
    value.is_some_and(Value::is_true)
}
