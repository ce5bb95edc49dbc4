//! Runs a template's statements; `eval` evaluates expressions, `calls` runs calls.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::arguments::Call;
use super::ast::{Block, Expr, FilterCall, For, Node, Statement, Target};
use super::scope::{Cycles, Scope};
use super::text::{Builder, Text};
use super::value::{Callable, Loop};
use super::{Error, Value, filters, meter, repr};

/// Deepest nesting of statements, expressions and calls.
pub(super) const DEPTH_MAX: u32 = 1500;

/// Deepest nesting of values.
const VALUE_DEPTH_MAX: u32 = 200;

pub(super) struct Machine {
    pub(super) root: Rc<Scope>,
    pub(super) scope: Rc<Scope>,
    pub(super) now_unix_s: u64,
    /// Texts being written: the prompt, and captures inside it.
    outputs: Vec<Builder>,
    depth: u32,
    steps_max: u64,
    pub(super) cycles: Cycles,
}

/// Control flow after a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Reached its end.
    Next,
    Break,
    Continue,
}

impl Machine {
    pub(super) fn new(variables: Vec<(Arc<str>, Value)>, now_unix_s: u64, steps_max: u64) -> Machine {
        let root = Rc::new(Scope::default());
        for (name, value) in variables {
            root.set(name, value);
        }
        // `{% set %}` must not change the given variables, so the template's own have an inner scope.
        let scope = Scope::inside(&root);
        Machine {
            root: scope.clone(),
            scope,
            now_unix_s,
            outputs: vec![Builder::default()],
            depth: 0,
            steps_max,
            cycles: Cycles::default(),
        }
    }

    pub(super) fn run(mut self, body: &Block) -> Result<Text, Error> {
        self.block(body)?;
        self.outputs.pop().unwrap_or_default().finish()
    }

    pub(super) fn output(&mut self) -> &mut Builder {
        if self.outputs.is_empty() {
            self.outputs.push(Builder::default());
        }
        let last = self.outputs.len() - 1;
        &mut self.outputs[last]
    }

    /// Counts one step.
    pub(super) fn step(&self) -> Result<(), Error> {
        if meter::is_spent() {
            return Err(Error::Endless(self.steps_max));
        }
        if meter::is_stopped() {
            return Err(Error::Stopped);
        }
        meter::check(0)
    }

    /// Runs `run` one level deeper.
    pub(super) fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.step()?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::Deep(DEPTH_MAX));
        }
        let done = run(self);
        self.depth -= 1;
        done
    }

    /// Checks that a value made by the template is not too deep.
    pub(super) fn checked(value: Value) -> Result<Value, Error> {
        if value.depth() > VALUE_DEPTH_MAX { Err(Error::Deep(VALUE_DEPTH_MAX)) } else { Ok(value) }
    }

    pub(super) fn within<T>(
        &mut self,
        scope: Rc<Scope>,
        run: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let outer = std::mem::replace(&mut self.scope, scope);
        let done = run(self);
        self.scope = outer;
        done
    }

    fn inner<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let scope = Scope::inside(&self.scope);
        self.within(scope, run)
    }

    /// Returns the text that `run` writes.
    pub(super) fn capture(&mut self, run: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<Text, Error> {
        self.outputs.push(Builder::default());
        let done = run(self);
        let written = self.outputs.pop().unwrap_or_default();
        done?;
        written.finish()
    }

    /// Runs a block that no `break` leaves.
    pub(super) fn whole(&mut self, block: &Block) -> Result<(), Error> {
        self.block(block).map(|_| ())
    }

    fn block(&mut self, block: &Block) -> Result<Flow, Error> {
        for node in block {
            let flow = self.deeper(|machine| machine.statement(node)).map_err(|error| error.at(node.line))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, node: &Node) -> Result<Flow, Error> {
        match &node.what {
            Statement::Data(data) => {
                meter::charge_bytes(data.len());
                self.output().push_own(data);
            }
            Statement::Print(values) => self.print(values)?,
            Statement::If(branches, otherwise) => return self.branch(branches, otherwise),
            Statement::For(definition) => {
                let over = self.eval(&definition.over)?;
                self.iterate(definition, &over, 0)?;
            }
            Statement::Set(target, value) => {
                let value = Machine::checked(self.eval(value)?)?;
                self.assign(target, value)?;
            }
            Statement::SetBlock(target, filters, body) => {
                let text = self.inner(|machine| machine.capture(|machine| machine.whole(body)))?;
                let value = self.filtered(Value::Str(text), filters)?;
                self.assign(target, value)?;
            }
            Statement::With(bindings, body) => self.with(bindings, body)?,
            Statement::Scope(body) => self.inner(|machine| machine.whole(body))?,
            Statement::NamedBlock(body) => {
                let scope = Scope::inside(&self.root);
                self.within(scope, |machine| machine.whole(body))?;
            }
            Statement::FilterBlock(filters, body) => {
                let text = self.inner(|machine| machine.capture(|machine| machine.whole(body)))?;
                let value = self.filtered(Value::Str(text), filters)?;
                repr::write_str(&value, self.output())?;
            }
            Statement::Macro(definition) => {
                self.cycles.add_scope(&self.scope);
                let value = Value::callable(Callable::Macro(definition.clone(), self.scope.clone()));
                self.scope.set(definition.name.clone(), value);
            }
            Statement::Call(call, block) => {
                self.cycles.add_scope(&self.scope);
                let caller = Value::callable(Callable::Macro(block.clone(), self.scope.clone()));
                let value = self.eval_call_with(call, caller)?;
                repr::write_str(&value, self.output())?;
            }
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
            Statement::Foreign => return Err(Error::fault("no loader for this environment specified")),
        }
        Ok(Flow::Next)
    }

    fn print(&mut self, values: &[Expr]) -> Result<(), Error> {
        for value in values {
            let value = self.eval(value)?;
            if let Value::Str(text) = &value {
                meter::charge_bytes(text.len());
            }
            repr::write_str(&value, self.output())?;
        }
        // The prompt counts as held memory too.
        match self.output().is_full() {
            true => Err(Error::Large(meter::TEXT_BYTES_MAX)),
            false => meter::check(self.output().len()),
        }
    }

    fn branch(&mut self, branches: &[(Expr, Block)], otherwise: &Block) -> Result<Flow, Error> {
        for (condition, block) in branches {
            if self.eval(condition)?.is_true() {
                return self.block(block);
            }
        }
        self.block(otherwise)
    }

    fn with(&mut self, bindings: &[(Target, Expr)], body: &Block) -> Result<(), Error> {
        let values: Vec<Value> = bindings.iter().map(|(_, value)| self.eval(value)).collect::<Result<_, _>>()?;
        self.inner(|machine| {
            for ((target, _), value) in bindings.iter().zip(values) {
                machine.assign(target, value)?;
            }
            machine.whole(body)
        })
    }

    pub(super) fn filtered(&mut self, mut value: Value, filters: &[FilterCall]) -> Result<Value, Error> {
        for filter in filters {
            let call = self.arguments(&filter.arguments)?;
            value = Machine::checked(filters::apply(&filter.name, &value, call)?)?;
        }
        Ok(value)
    }

    pub(super) fn iterate(&mut self, definition: &Arc<For>, over: &Value, depth0: usize) -> Result<(), Error> {
        let mut items = over.iterate()?;
        if let Some(condition) = &definition.condition {
            let mut kept = Vec::new();
            for item in items.iter() {
                let holds = self.inner(|machine| {
                    machine.assign(&definition.target, item.clone())?;
                    Ok(machine.eval(condition)?.is_true())
                })?;
                if holds {
                    kept.push(item.clone());
                }
            }
            items = super::value::Items::new(kept);
        }
        if items.is_empty() {
            return self.inner(|machine| machine.whole(&definition.otherwise));
        }
        let state = Rc::new(Loop {
            items,
            index0: Cell::new(0),
            depth0,
            changed: RefCell::new(None),
            recursive: definition.recursive.then(|| (definition.clone(), self.scope.clone())),
        });
        let done = self.rounds(definition, &state);
        // `changed` may hold the loop itself.
        state.changed.replace(None);
        done
    }

    fn rounds(&mut self, definition: &Arc<For>, state: &Rc<Loop>) -> Result<(), Error> {
        let name: Arc<str> = Arc::from("loop");
        for (index, item) in state.items.iter().enumerate() {
            state.index0.set(index);
            self.step()?;
            let flow = self.inner(|machine| {
                machine.scope.set(name.clone(), Value::Loop(state.clone()));
                machine.assign(&definition.target, item.clone())?;
                machine.block(&definition.body)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn assign(&mut self, target: &Target, value: Value) -> Result<(), Error> {
        match target {
            Target::Name(name) => self.scope.set(name.clone(), value),
            Target::Attribute(object, name) => {
                let Some(Value::Namespace(namespace)) = self.scope.get(object) else {
                    return Err(Error::fault("cannot assign attribute on non-namespace object"));
                };
                namespace.borrow_mut().insert_text(Text::own(&**name), value);
            }
            Target::Tuple(targets) => {
                if !value.is_iterable() {
                    let kind = value.type_name();
                    return Err(Error::fault(format!("cannot unpack non-iterable {kind} object")));
                }
                let items = value.iterate()?;
                if items.len() != targets.len() {
                    let (wanted, got) = (targets.len(), items.len());
                    return Err(Error::fault(format!("expected {wanted} values to unpack, got {got}")));
                }
                for (target, item) in targets.iter().zip(items.iter()) {
                    self.assign(target, item.clone())?;
                }
            }
        }
        Ok(())
    }

    /// Evaluates a call whose block is the argument `caller`.
    fn eval_call_with(&mut self, call: &Expr, caller: Value) -> Result<Value, Error> {
        self.eval_call(call, |call: &mut Call| call.named.push((Text::own("caller"), caller)))
    }
}
