//! Answers of models: their parts are the same however the text is cut; knows no token.
//!
//! Three bytes choose format, marks and cuts; the rest is the answer.

#![no_main]

use libfuzzer_sys::fuzz_target;
use router::model_output::{
    Begins, CallPiece, CallReading, CallsPerTurn, Function, NextSpeaker, Pieces, Reader, Reading, ReasoningForm,
    Status, Tags, ToolFormat,
};
use serde_json::json;

/// Thoughts, content, and name and arguments of each call.
type Parts = (String, String, Vec<(String, String)>);

fn reading(format: u8, marks: u8) -> Reading {
    let weather = json!({"properties": {"place": {"type": "string"}, "days": {"type": "integer"}}});
    let functions = [("weather", weather), ("clock", json!({}))]
        .map(|(name, schema)| Function::new(name, schema.as_object().expect("it is an object")));
    let limit = if marks & 1 == 0 { CallsPerTurn::Many } else { CallsPerTurn::One };
    let format = ToolFormat::ALL[usize::from(format) % ToolFormat::ALL.len()];
    let begins = [Begins::Unopened, Begins::Inside, Begins::Amid, Begins::Behind][usize::from(marks >> 1) % 4];
    let tags = Tags::KNOWN.get(usize::from(marks >> 3) % 8);
    Reading {
        thoughts: tags.map(|tags| (*tags, begins)),
        reasoning: ReasoningForm::Beside,
        calls: Some(CallReading { format, functions: functions.into(), limit, then: NextSpeaker::Tools }),
        shown: [].into(),
    }
}

fn read<'t>(reading: &Reading, pieces: impl Iterator<Item = &'t str>) -> Parts {
    let mut reader = Reader::new(reading, 7);
    let (mut content, mut reasoning, mut calls) = (String::new(), String::new(), Vec::<CallPiece>::new());
    let mut out = Pieces { content: &mut content, reasoning: &mut reasoning, calls: &mut calls };
    for piece in pieces {
        if reader.push(piece, &mut out) == Status::Complete {
            break;
        }
    }
    reader.finish(&mut out);
    let mut whole: Vec<(String, String)> = Vec::new();
    for piece in calls {
        if let Some(start) = piece.start {
            whole.push((start.name, String::new()));
        }
        whole.last_mut().expect("a call's pieces follow its start").1.push_str(&piece.arguments);
    }
    (reasoning, content, whole)
}

fuzz_target!(|data: &[u8]| {
    let [format, marks, size, text @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let reading = reading(*format, *marks);
    let size = usize::from(*size % 16) + 1;
    let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).step_by(size).chain([text.len()]).collect();
    let cut = ends.windows(2).map(|ends| &text[ends[0]..ends[1]]);
    assert_eq!(read(&reading, cut), read(&reading, std::iter::once(text)));
});
