//! One answer's way from text to its parts: thoughts first, then content and calls; knows no token but those to show.

use std::sync::Arc;

use sched::TokenId;

use super::calls::{CallReader, More};
use super::pieces::Pieces;
use super::thoughts::{Begins, Tags, ThoughtReader};
use super::{Function, ToolFormat};

/// How an answer is to be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Marks of thoughts, and where the answer begins; `None` where thoughts stay in the text.
    pub thoughts: Option<(Tags, Begins)>,
    /// What becomes of the thoughts.
    pub reasoning: ReasoningForm,
    /// Calls to look for.
    pub calls: Option<CallReading>,
    /// Control tokens that show in the text, as they mark thoughts or calls.
    pub shown: Arc<[TokenId]>,
}

impl Reading {
    /// Bytes that are kept until the answer has ended.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let functions = self.calls.iter().flat_map(|calls| calls.functions.iter());
        size_of_val::<[TokenId]>(&self.shown) + functions.map(Function::bytes).sum::<usize>()
    }
}

/// Calls to look for.
#[derive(Debug, Clone, PartialEq)]
pub struct CallReading {
    /// Form in which the model writes them.
    pub format: ToolFormat,
    /// Functions that the model may call.
    pub functions: Arc<[Function]>,
    /// Number of calls in one turn.
    pub limit: CallsPerTurn,
    /// Who speaks after an answer with calls.
    pub then: NextSpeaker,
}

/// Who is to speak after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NextSpeaker {
    /// The user.
    #[default]
    User,
    /// The tools that were called.
    Tools,
}

/// What becomes of thoughts that were split off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningForm {
    /// They are sent beside the content.
    Beside,
    /// They are left out.
    Omitted,
}

/// Number of calls that a model may make in one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallsPerTurn {
    /// Any number.
    Many,
    /// One; the turn ends with it.
    One,
}

/// Whether an answer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// More text is welcome.
    Open,
    /// The only call that the client wants is complete.
    Complete,
}

/// Takes one answer apart.
#[derive(Debug)]
pub struct Reader {
    thoughts: Option<ThoughtReader>,
    reasoning: ReasoningForm,
    calls: Option<CallReader>,
    then: NextSpeaker,
}

impl Reader {
    /// Starts an answer. `seed` decides the names of its calls.
    #[must_use]
    pub fn new(reading: &Reading, seed: u64) -> Reader {
        let calls = reading.calls.as_ref();
        Reader {
            thoughts: reading.thoughts.map(|(tags, begins)| ThoughtReader::new(tags, begins)),
            reasoning: reading.reasoning,
            calls: calls.map(|calls| CallReader::new(calls.format, Arc::clone(&calls.functions), calls.limit, seed)),
            then: calls.map_or(NextSpeaker::User, |calls| calls.then),
        }
    }

    /// Takes more text and gives out what is certain.
    pub fn push(&mut self, text: &str, out: &mut Pieces<'_>) -> Status {
        match &mut self.thoughts {
            Some(thoughts) if !thoughts.is_behind() => {
                let mut reasoning = String::new();
                let behind = thoughts.push(text, &mut reasoning);
                self.think(&reasoning, out);
                self.push_behind(&behind, out)
            }
            Some(_) | None => self.push_behind(text, out),
        }
    }

    fn push_behind(&mut self, text: &str, out: &mut Pieces<'_>) -> Status {
        match &mut self.calls {
            Some(calls) => match calls.push(text, out) {
                More::Wanted => Status::Open,
                More::Over => Status::Complete,
            },
            None => {
                out.content.push_str(text);
                Status::Open
            }
        }
    }

    /// Ends the answer and gives out what was held back.
    pub fn finish(&mut self, out: &mut Pieces<'_>) {
        if let Some(thoughts) = &mut self.thoughts {
            let mut reasoning = String::new();
            let behind = thoughts.finish(&mut reasoning);
            self.think(&reasoning, out);
            self.push_behind(&behind, out);
        }
        if let Some(calls) = &mut self.calls {
            calls.finish(out);
        }
    }

    /// Returns true if the text so far ends inside the thoughts.
    #[must_use]
    pub fn is_thinking(&self) -> bool {
        self.thoughts.as_ref().is_some_and(ThoughtReader::is_inside)
    }

    /// Returns who is to speak after the answer so far.
    #[must_use]
    pub fn next_speaker(&self) -> NextSpeaker {
        match &self.calls {
            Some(calls) if calls.has_called() => self.then,
            Some(_) | None => NextSpeaker::User,
        }
    }

    fn think(&self, thoughts: &str, out: &mut Pieces<'_>) {
        match self.reasoning {
            ReasoningForm::Beside => out.reasoning.push_str(thoughts),
            ReasoningForm::Omitted => {}
        }
    }
}
