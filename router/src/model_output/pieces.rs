//! Parts of an answer as they become certain; knows no text that is not.

/// Where the parts of an answer go.
#[derive(Debug)]
pub struct Pieces<'a> {
    /// What the model says.
    pub content: &'a mut String,
    /// What the model thinks before.
    pub reasoning: &'a mut String,
    /// Calls of tools.
    pub calls: &'a mut Vec<CallPiece>,
}

/// Start of a call, more of its arguments, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallPiece {
    /// Number of the call in its answer.
    pub index: u32,
    /// Name of the call and of its function; only in the first piece.
    pub start: Option<CallStart>,
    /// More of the arguments, which are JSON.
    pub arguments: String,
}

/// Start of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallStart {
    /// Name of the call, with which its result comes back.
    pub id: String,
    /// Name of the function.
    pub name: String,
    /// Bytes of content before the call, so that the order of both is known.
    pub content_before: usize,
}

impl Pieces<'_> {
    /// Begins call `index`.
    pub(super) fn begin(&mut self, index: u32, id: String, name: String) {
        let start = Some(CallStart { id, name, content_before: self.content.len() });
        self.calls.push(CallPiece { index, start, arguments: String::new() });
    }

    /// Adds to the arguments of call `index`.
    pub(super) fn arguments(&mut self, index: u32, more: &str) {
        match self.calls.last_mut() {
            _ if more.is_empty() => {}
            Some(piece) if piece.index == index => piece.arguments.push_str(more),
            Some(_) | None => self.calls.push(CallPiece { index, start: None, arguments: more.to_owned() }),
        }
    }
}
