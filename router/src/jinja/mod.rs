//! Jinja2 as Python has it, in the sandbox that transformers renders chat templates in; knows no chat.
//!
//! The prompt of a chat is what this makes, so it follows Python to the letter: types, truth, printing, undefined
//! values, scopes, every filter and test. Beyond Python, each byte of the result is marked as the template's own or as
//! given from outside (`Text`), and a run has bounds in steps, memory and depth.

mod access;
#[cfg(test)]
mod against_python;
mod arguments;
mod ast;
mod calendar;
mod calls;
mod cuts;
mod dict;
mod error;
mod eval;
mod expressions;
mod filters;
mod format;
mod json;
mod lexer;
mod list_filters;
mod literal;
mod machine;
mod meter;
mod methods;
mod numbers;
mod ops;
mod parser;
mod repr;
mod scope;
mod string_methods;
mod tests;
mod text;
mod text_filters;
mod value;

use std::ops::Range;
use std::sync::Arc;

pub use error::Error;
pub use meter::Watch;
pub use text::Origin;
pub use value::Value;

/// A template that was read. It holds no values and may be shared.
#[derive(Debug)]
pub struct Template {
    body: ast::Block,
}

/// What a template made of its variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The bytes of it that were given from outside; sorted, apart from each other, on character boundaries.
    pub given: Vec<Range<usize>>,
}

/// The stack of a run. Depth is bounded by count; this is what that count needs in a build without optimisation.
const STACK_BYTES: usize = 32 << 20;

impl Template {
    /// Reads a template: `trim_blocks` and `lstrip_blocks`, loop controls, `{% generation %}`.
    ///
    /// # Errors
    /// When it is none, with the line.
    pub fn compile(source: &str) -> Result<Template, Error> {
        on_own_stack(|| parser::parse(source)).map(|body| Template { body })
    }

    /// Renders it. `variables` are made where they are used, for values belong to one thread.
    ///
    /// # Errors
    /// When the template raises, fails, or takes more than `steps_max` steps or the bounds on memory and depth.
    pub fn render(
        &self,
        variables: impl FnOnce() -> Vec<(Arc<str>, Value)> + Send,
        now_unix_s: u64,
        steps_max: u64,
    ) -> Result<Rendered, Error> {
        self.render_watched(variables, now_unix_s, steps_max, || Box::new(|| true))
    }

    /// As `render`; what `watch` makes on the thread of the run is asked now and then whether to go on, and lives as long.
    ///
    /// # Errors
    /// As those of `render`, and when it was stopped.
    pub fn render_watched(
        &self,
        variables: impl FnOnce() -> Vec<(Arc<str>, Value)> + Send,
        now_unix_s: u64,
        steps_max: u64,
        watch: impl FnOnce() -> Watch + Send,
    ) -> Result<Rendered, Error> {
        on_own_stack(|| {
            meter::begin(steps_max, watch());
            let text = machine::Machine::new(variables(), now_unix_s, steps_max).run(&self.body);
            meter::end();
            let text = text?;
            Ok(Rendered { text: text.as_str().to_owned(), given: text.given().to_vec() })
        })
    }
}

/// Runs `work` on a thread whose stack is known to suffice.
fn on_own_stack<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".to_owned()).stack_size(STACK_BYTES);
        match thread.spawn_scoped(scope, work).map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(Error::fault("the template engine failed; this is a bug of this server")),
            Err(error) => Err(Error::NoThread(error.to_string())),
        }
    })
}
