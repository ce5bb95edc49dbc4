//! Anthropic's wire format: bytes to typed requests, typed answers to bytes; knows no socket, worker or tokenizer state.

mod answer;
mod blocks;
mod count;
mod error_body;
mod events;
mod known;
mod messages;
mod output;
mod thinking;
mod tools;
mod turns;
mod usage;

pub use answer::MessagesAnswer;
pub use count::{CountRequest, counted};
pub use error_body::error_body;
pub use messages::MessagesRequest;

#[cfg(test)]
mod request_tests;
#[cfg(test)]
mod transcript_tests;
#[cfg(test)]
mod turn_tests;
