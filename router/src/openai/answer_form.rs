//! One interface to the forms in which APIs write an answer; knows none of them, no request and no socket.

use super::{ApiError, Choice, Delta, Repeated, Usage};

/// Form of one answer, whole or streamed. Streams may have state; a form writes one stream at most.
pub trait AnswerForm: Send {
    /// Appends the start of choice `index`, before its first token; with `usage` where every chunk has token counts.
    fn open(&mut self, index: u32, prompt: Repeated<'_>, usage: Option<Usage>, out: &mut Vec<u8>);

    /// Appends new text and tokens of a choice; with `usage` where every chunk has token counts.
    fn delta(&mut self, delta: &Delta, usage: Option<Usage>, out: &mut Vec<u8>);

    /// Appends the end of a stream that went well; with `usage` where the client wants token counts.
    fn end(&mut self, usage: Option<Usage>, out: &mut Vec<u8>);

    /// Appends the end of a stream that failed.
    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>);

    /// Returns the whole answer: every choice with what it repeats of its prompt.
    fn whole(&self, choices: &[(&Choice, Repeated<'_>)], usage: Usage) -> Vec<u8>;

    /// How often a whole answer repeats what it repeats of a prompt that has this many choices.
    fn repeats(&self, choices: usize) -> usize;

    /// Estimates the bytes of what every answer repeats of its request.
    fn asked_bytes(&self) -> usize {
        0
    }

    /// Estimates the bytes that a stream keeps of a delta until its end.
    fn kept_bytes(&self, _: &Delta) -> usize {
        0
    }
}
