//! Jinja2 as in Python, in the sandbox in which transformers renders chat templates; knows no chat.
//!
//! The output is the prompt of a chat, so it follows Python exactly: types, truth, printing, undefined values, scopes,
//! every filter and test. Beyond Python, each byte of the output is marked as the template's own or as given from
//! outside (`Text`), and a run has bounds in steps, memory and depth.

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
mod stack;
mod string_methods;
mod tests;
mod text;
mod text_filters;
mod value;

use std::ops::Range;
use std::sync::Arc;

use sched::contained::contained;

pub use error::Error;
pub use meter::Watch;
pub use text::Origin;
pub use value::Value;

/// Compiled template. It holds no values and may be shared.
#[derive(Debug)]
pub struct Template {
    body: ast::Block,
}

/// Output of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Rendered text.
    pub text: String,
    /// Sorted, disjoint byte ranges that were given from outside, on character boundaries.
    pub given: Vec<Range<usize>>,
}

impl Template {
    /// Parses a template with `trim_blocks`, `lstrip_blocks`, loop controls and `{% generation %}`.
    ///
    /// # Errors
    /// When the source is no template, with the line.
    pub fn compile(source: &str) -> Result<Template, Error> {
        on_own_stack(|| parser::parse(source)).map(|body| Template { body })
    }

    /// Renders the template. `variables` is called on the stack of the run.
    ///
    /// # Errors
    /// When the template raises, fails, or exceeds `steps_max` steps or the bounds on memory and depth.
    pub fn render(
        &self,
        variables: impl FnOnce() -> Vec<(Arc<str>, Value)>,
        now_unix_s: u64,
        steps_max: u64,
    ) -> Result<Rendered, Error> {
        self.render_watched(variables, now_unix_s, steps_max, Box::new(|| true))
    }

    /// Renders like `render`, as long as `watch` lets it go on.
    ///
    /// # Errors
    /// As `render`, and when the run was stopped.
    pub fn render_watched(
        &self,
        variables: impl FnOnce() -> Vec<(Arc<str>, Value)>,
        now_unix_s: u64,
        steps_max: u64,
        watch: Watch,
    ) -> Result<Rendered, Error> {
        on_own_stack(|| {
            let _run = meter::begin(steps_max, watch);
            let text = machine::Machine::new(variables(), now_unix_s, steps_max).run(&self.body)?;
            Ok(Rendered { text: text.as_str().to_owned(), given: text.given().to_vec() })
        })
    }
}

/// Runs `work` on a large enough stack. A panic stays there.
fn on_own_stack<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let failed = |_| Err(Error::fault("the template engine failed; this is a bug of this server"));
    stack::on_large_stack(|| contained(work).unwrap_or_else(failed))
}
