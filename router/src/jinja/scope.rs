//! Variables and their visibility; knows no syntax.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use super::Value;
use super::dict::Dict;
use super::meter;

/// Variables of one block, inside those of the block around it.
#[derive(Debug, Default)]
pub struct Scope {
    variables: RefCell<IndexMap<Arc<str>, Value>>,
    outer: Option<Rc<Scope>>,
}

impl Scope {
    pub(super) fn inside(outer: &Rc<Scope>) -> Rc<Scope> {
        Rc::new(Scope { variables: RefCell::default(), outer: Some(outer.clone()) })
    }

    pub(super) fn set(&self, name: Arc<str>, value: Value) {
        self.variables.borrow_mut().insert(name, value);
    }

    pub(super) fn get(&self, name: &str) -> Option<Value> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            let variables = here.variables.borrow();
            if let Some(value) = variables.get(name) {
                return Some(value.clone());
            }
            scope = here.outer.as_deref();
        }
        None
    }
}

/// Objects that may hold themselves: scopes with macros, and namespaces. They stay until the run ends and are then
/// taken apart one by one.
#[derive(Debug, Default)]
pub(super) struct Cycles {
    scopes: Vec<Rc<Scope>>,
    namespaces: Vec<Rc<RefCell<Dict>>>,
}

/// Bytes of one entry with the object itself.
const ENTRY_BYTES: usize = 128;

impl Cycles {
    pub(super) fn add_scope(&mut self, scope: &Rc<Scope>) {
        if !self.scopes.last().is_some_and(|last| Rc::ptr_eq(last, scope)) {
            meter::add(ENTRY_BYTES);
            self.scopes.push(scope.clone());
        }
    }

    pub(super) fn add_namespace(&mut self, namespace: &Rc<RefCell<Dict>>) {
        meter::add(ENTRY_BYTES);
        self.namespaces.push(namespace.clone());
    }
}

impl Drop for Cycles {
    fn drop(&mut self) {
        meter::remove((self.scopes.len() + self.namespaces.len()) * ENTRY_BYTES);
        for scope in &self.scopes {
            let variables = std::mem::take(&mut *scope.variables.borrow_mut());
            drop(variables);
        }
        for namespace in &self.namespaces {
            let dict = std::mem::take(&mut *namespace.borrow_mut());
            drop(dict);
        }
    }
}
