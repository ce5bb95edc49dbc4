//! Calls: functions of the environment, methods, macros and recursive loops.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::arguments::{Call, int, needed, text as text_argument};
use super::ast::{Expr, Macro};
use super::dict::Dict;
use super::machine::Machine;
use super::scope::Scope;
use super::text::Text;
use super::value::{Callable, Cycler, Function, Items, Loop};
use super::{Error, Value, calendar, methods, repr};

/// Most items of a `range`, as in Jinja's sandbox.
const RANGE_MAX: usize = 100_000;

impl Machine {
    pub(super) fn call(&mut self, callee: &Value, call: Call) -> Result<Value, Error> {
        callee.require()?;
        match callee {
            Value::Callable(callable) => match &**callable {
                Callable::Function(function) => self.function(*function, call),
                Callable::Method(object, name) => methods::call(object, name, call),
                Callable::Macro(definition, scope) => self.call_macro(definition, scope, call),
                Callable::Joiner(separator, used) => {
                    call.nothing("joiner")?;
                    Ok(if used.replace(true) { Value::Str(separator.clone()) } else { Value::own("") })
                }
            },
            Value::Loop(state) => self.call_loop(state, call),
            other => Err(Error::fault(format!("'{}' object is not callable", other.type_name()))),
        }
    }

    fn function(&mut self, function: Function, mut call: Call) -> Result<Value, Error> {
        match function {
            Function::Range => range(call),
            Function::Dict => Ok(Value::Dict(Rc::new(dict(call)?))),
            Function::Namespace => {
                let namespace = Rc::new(RefCell::new(dict(call)?));
                self.cycles.add_namespace(&namespace);
                Ok(Value::Namespace(namespace))
            }
            Function::Cycler => {
                if call.positional.is_empty() {
                    return Err(Error::fault("at least one item has to be provided"));
                }
                let items = Items::new(std::mem::take(&mut call.positional));
                Ok(Value::Cycler(Rc::new(Cycler { items, at: Cell::new(0) })))
            }
            Function::Joiner => {
                let [separator] = call.bind("joiner", ["sep"])?;
                let separator = separator.map_or_else(|| Ok(Text::own(", ")), |separator| repr::str(&separator))?;
                Ok(Value::callable(Callable::Joiner(separator, Cell::new(false))))
            }
            Function::Lipsum => Err(Error::fault("the function 'lipsum' is not supported")),
            Function::RaiseException => {
                let [message] = call.bind("raise_exception", ["message"])?;
                let message = repr::str(&needed(message, "raise_exception", "message")?)?;
                Err(Error::Raised(message.as_str().to_owned()))
            }
            Function::StrftimeNow => {
                let [format] = call.bind("strftime_now", ["format"])?;
                let format = text_argument(format, "strftime_now", "format")?;
                Ok(Value::own(calendar::strftime(format.as_str(), self.now_unix_s)))
            }
        }
    }

    /// Runs a recursive loop over other items.
    fn call_loop(&mut self, state: &Rc<Loop>, call: Call) -> Result<Value, Error> {
        let [items] = call.bind("loop", ["iterable"])?;
        let items = needed(items, "loop", "iterable")?;
        let Some((definition, scope)) = &state.recursive else {
            return Err(Error::fault("The loop must have the 'recursive' marker to be called recursively."));
        };
        let depth0 = state.depth0 + 1;
        let text = self.within(scope.clone(), |machine| {
            machine.deeper(|machine| machine.capture(|machine| machine.iterate(definition, &items, depth0)))
        })?;
        Ok(Value::Str(text))
    }

    fn call_macro(&mut self, definition: &Arc<Macro>, outer: &Rc<Scope>, mut call: Call) -> Result<Value, Error> {
        let scope = Scope::inside(outer);
        let name = &definition.name;
        let count = definition.parameters.len();
        if call.positional.len() > count && !definition.uses.varargs {
            return Err(Error::fault(format!("macro '{name}' takes not more than {count} argument(s)")));
        }
        let rest = call.positional.split_off(count.min(call.positional.len()));
        let mut given = std::mem::take(&mut call.positional).into_iter();
        let mut missing = Vec::new();
        let mut has_caller = false;
        for (parameter, default) in &definition.parameters {
            has_caller |= &**parameter == "caller";
            match given.next().or_else(|| call.take_named(parameter)) {
                Some(value) => scope.set(parameter.clone(), value),
                None => missing.push((parameter, default.as_ref())),
            }
        }
        if definition.uses.caller && !has_caller {
            let absent = || Value::undefined("No caller defined");
            scope.set(Arc::from("caller"), call.take_named("caller").unwrap_or_else(absent));
        }
        if definition.uses.kwargs {
            let mut named = Dict::default();
            std::mem::take(&mut call.named).into_iter().for_each(|(name, value)| named.insert_text(name, value));
            scope.set(Arc::from("kwargs"), Value::Dict(Rc::new(named)));
        }
        if let Some((unknown, _)) = call.named.first() {
            let unknown = unknown.as_str();
            return Err(Error::fault(format!("macro '{name}' takes no keyword argument '{unknown}'")));
        }
        if definition.uses.varargs {
            scope.set(Arc::from("varargs"), Value::tuple(rest));
        }
        let text = self.within(scope, |machine| {
            machine.deeper(|machine| {
                machine.defaults(&missing)?;
                machine.capture(|machine| machine.whole(&definition.body))
            })
        })?;
        Ok(Value::Str(text))
    }

    /// Sets parameters without an argument; a default may use the parameters before it.
    fn defaults(&mut self, missing: &[(&Arc<str>, Option<&Expr>)]) -> Result<(), Error> {
        for (parameter, default) in missing {
            let value = match default {
                Some(default) => self.eval(default)?,
                None => Value::undefined(format!("parameter '{parameter}' was not provided")),
            };
            self.scope.set((*parameter).clone(), value);
        }
        Ok(())
    }
}

fn range(call: Call) -> Result<Value, Error> {
    let numbers: Vec<i128> = call.positional.into_iter().map(|value| int(Some(value), 0)).collect::<Result<_, _>>()?;
    let (start, stop, step) = match numbers[..] {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] => (start, stop, step),
        _ => return Err(Error::fault("range expected 1 to 3 arguments")),
    };
    if step == 0 {
        return Err(Error::fault("range() arg 3 must not be zero"));
    }
    let distance = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    let length = if distance <= 0 { 0 } else { (distance - 1) / step.saturating_abs() + 1 };
    match usize::try_from(length).ok().filter(|length| *length <= RANGE_MAX) {
        Some(length) => Ok(Value::Range(start, step, length)),
        None => {
            Err(Error::fault(format!("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({RANGE_MAX}).")))
        }
    }
}

/// `dict(mapping or pairs, name=value, …)`.
fn dict(call: Call) -> Result<Dict, Error> {
    let mut dict = match call.positional.first() {
        None => Dict::default(),
        Some(Value::Dict(dict)) => Dict::clone(dict),
        Some(pairs) => {
            let mut dict = Dict::default();
            for pair in pairs.iterate()?.iter() {
                match &pair.iterate()?[..] {
                    [key, value] => dict.insert(key.clone(), value.clone())?,
                    _ => return Err(Error::fault("dictionary update sequence elements must be pairs")),
                }
            }
            dict
        }
    };
    if call.positional.len() > 1 {
        return Err(Error::fault("dict expected at most 1 argument"));
    }
    call.named.into_iter().for_each(|(name, value)| dict.insert_text(name, value));
    Ok(dict)
}
