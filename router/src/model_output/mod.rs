//! What a model says, taken apart: thoughts, content, tool calls; knows no HTTP and no worker.

mod call_object;
mod calls;
mod format;
mod free_text;
mod function;
mod grammar;
mod ids;
mod json_scan;
mod pieces;
mod reader;
mod script;
mod space;
mod thoughts;

pub use format::{ToolFormat, ToolFormatChoice};
pub use function::Function;
pub use grammar::{Arguments, Callable, Calls, Content, answer_grammar, arguments_grammar, unmatched_arguments};
pub use pieces::{CallPiece, CallStart, Pieces};
pub use reader::{CallReading, CallsPerTurn, NextSpeaker, Reader, Reading, ReasoningForm, Status};
pub use thoughts::{Begins, Tags};

#[cfg(test)]
mod calls_tests;
#[cfg(test)]
mod grammar_tests;
#[cfg(test)]
mod strict_tests;
