//! OpenAI's Responses API: the request, its answer whole and as a stream of events; knows no socket and no worker.

mod answer;
mod asked;
mod content;
mod input;
mod output;
mod request;
mod tools;
mod wire;

pub use answer::ResponseAnswer;
pub use request::ResponsesRequest;

#[cfg(test)]
mod answer_tests;
#[cfg(test)]
mod request_tests;
