//! Evaluates a template's expressions; `machine` runs statements.

use std::rc::Rc;

use super::arguments::Call;
use super::ast::{Arguments, Expr, FilterCall, Step};
use super::dict::Dict;
use super::machine::Machine;
use super::text::{Builder, Text};
use super::value::{Callable, Function};
use super::{Error, Value, access, filters, ops, repr, tests};

impl Machine {
    pub(super) fn eval(&mut self, expr: &Expr) -> Result<Value, Error> {
        match expr {
            Expr::None => Ok(Value::None),
            Expr::Bool(flag) => Ok(Value::Bool(*flag)),
            Expr::Int(value) => Ok(Value::Int(*value)),
            Expr::Float(value) => Ok(Value::Float(*value)),
            Expr::Str(text) => Ok(Value::own(&**text)),
            Expr::Name(name) => Ok(self.lookup(name)),
            nested => self.deeper(|machine| machine.eval_nested(nested)),
        }
    }

    fn eval_nested(&mut self, expr: &Expr) -> Result<Value, Error> {
        match expr {
            Expr::List(items) => Machine::checked(Value::list(self.eval_all(items)?)),
            Expr::Tuple(items) => Machine::checked(Value::tuple(self.eval_all(items)?)),
            Expr::Dict(entries) => self.dict(entries),
            Expr::Steps(value, steps) => {
                let mut value = self.eval(value)?;
                for step in steps {
                    value = self.apply(step, &value)?;
                }
                Ok(value)
            }
            Expr::Not(value) => Ok(Value::Bool(!self.eval(value)?.is_true())),
            Expr::Negative(value) => ops::negative(&self.eval(value)?),
            Expr::Positive(value) => ops::positive(&self.eval(value)?),
            Expr::And(operands) => self.first(operands, |value| !value.is_true()),
            Expr::Or(operands) => self.first(operands, Value::is_true),
            Expr::Choice(both, otherwise) => {
                let [value, condition] = &**both;
                match (self.eval(condition)?.is_true(), otherwise) {
                    (true, _) => self.eval(value),
                    (false, Some(otherwise)) => self.eval(otherwise),
                    (false, None) => Ok(Value::undefined(
                        "the inline if-expression evaluated to false and no else section was defined.",
                    )),
                }
            }
            Expr::Binary(first, rest) => {
                let mut value = self.eval(first)?;
                for (operator, operand) in rest {
                    let operand = self.eval(operand)?;
                    value = Machine::checked(ops::binary(*operator, &value, &operand)?)?;
                }
                Ok(value)
            }
            Expr::Concat(operands) => {
                let mut out = Builder::default();
                for operand in operands {
                    repr::write_str(&self.eval(operand)?, &mut out)?;
                }
                Ok(Value::Str(out.finish()?))
            }
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first)?;
                for (comparison, right) in rest {
                    let right = self.eval(right)?;
                    if !ops::compare(*comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            // Handled in `eval`.
            Expr::None | Expr::Bool(_) | Expr::Int(_) | Expr::Float(_) | Expr::Str(_) | Expr::Name(_) => {
                Ok(Value::None)
            }
        }
    }

    fn eval_all(&mut self, items: &[Expr]) -> Result<Vec<Value>, Error> {
        items.iter().map(|item| self.eval(item)).collect()
    }

    fn dict(&mut self, entries: &[(Expr, Expr)]) -> Result<Value, Error> {
        let mut dict = Dict::default();
        for (key, value) in entries {
            let key = self.eval(key)?;
            dict.insert(key, self.eval(value)?)?;
        }
        Machine::checked(Value::Dict(Rc::new(dict)))
    }

    /// Returns the first operand for which `decides` holds, or the last.
    fn first(&mut self, operands: &[Expr], decides: fn(&Value) -> bool) -> Result<Value, Error> {
        let mut value = Value::None;
        for operand in operands {
            value = self.eval(operand)?;
            if decides(&value) {
                break;
            }
        }
        Ok(value)
    }

    fn apply(&mut self, step: &Step, value: &Value) -> Result<Value, Error> {
        self.step()?;
        match step {
            Step::Attribute(name) => access::attribute(value, name),
            Step::Item(key) => access::item(value, &self.eval(key)?),
            Step::Slice(bounds) => {
                let mut evaluated = [None, None, None];
                for (slot, bound) in evaluated.iter_mut().zip(bounds.iter()) {
                    *slot = bound.as_ref().map(|bound| self.eval(bound)).transpose()?;
                }
                access::slice(value, &evaluated)
            }
            Step::Call(arguments) => {
                let call = self.arguments(arguments)?;
                Machine::checked(self.call(value, call)?)
            }
            Step::Filter(FilterCall { name, arguments }) => {
                let call = self.arguments(arguments)?;
                Machine::checked(filters::apply(name, value, call)?)
            }
            Step::Test(FilterCall { name, arguments }) => {
                let call = self.arguments(arguments)?;
                Ok(Value::Bool(tests::apply(name, value, call)?))
            }
            Step::NotTest(FilterCall { name, arguments }) => {
                let call = self.arguments(arguments)?;
                Ok(Value::Bool(!tests::apply(name, value, call)?))
            }
        }
    }

    /// Evaluates a call, with arguments that `add` appends.
    pub(super) fn eval_call(&mut self, expr: &Expr, add: impl FnOnce(&mut Call)) -> Result<Value, Error> {
        let (callee, arguments) = match expr {
            Expr::Steps(value, steps) => match steps.split_last() {
                Some((Step::Call(arguments), before)) => {
                    let mut value = self.eval(value)?;
                    for step in before {
                        value = self.apply(step, &value)?;
                    }
                    (value, arguments)
                }
                Some(_) | None => return Err(Error::fault("expected call")),
            },
            _ => return Err(Error::fault("expected call")),
        };
        let mut call = self.arguments(arguments)?;
        add(&mut call);
        self.call(&callee, call)
    }

    pub(super) fn arguments(&mut self, arguments: &Arguments) -> Result<Call, Error> {
        let mut call = Call::of(self.eval_all(&arguments.positional)?);
        for (name, value) in &arguments.named {
            call.named.push((Text::own(&**name), self.eval(value)?));
        }
        if let Some(spread) = &arguments.spread {
            let items = self.eval(spread)?.iterate()?;
            call.positional.extend(items.iter().cloned());
        }
        if let Some(spread) = &arguments.spread_named {
            let Value::Dict(dict) = self.eval(spread)? else {
                return Err(Error::fault("argument after ** must be a mapping"));
            };
            for (key, value) in dict.iter() {
                let Value::Str(name) = key else { return Err(Error::fault("keywords must be strings")) };
                call.named.push((name.clone(), value.clone()));
            }
        }
        Ok(call)
    }

    /// Returns the variable `name`, or the function of that name.
    fn lookup(&self, name: &str) -> Value {
        self.scope.get(name).unwrap_or_else(|| {
            let function = match name {
                "range" => Function::Range,
                "dict" => Function::Dict,
                "namespace" => Function::Namespace,
                "cycler" => Function::Cycler,
                "joiner" => Function::Joiner,
                "lipsum" => Function::Lipsum,
                "raise_exception" => Function::RaiseException,
                "strftime_now" => Function::StrftimeNow,
                _ => return Value::undefined(format!("'{name}' is undefined")),
            };
            Value::callable(Callable::Function(function))
        })
    }
}
