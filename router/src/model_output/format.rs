//! The forms in which models write tool calls, and how to tell which one a chat template uses; knows no reader.

use serde::{Deserialize, Serialize};

use super::ids::IdForm;
use super::script::{DEEPSEEK, Item, LIST, MISTRAL, OBJECTS, PARAMETERS, TAGGED};

/// Form in which a family of models writes calls; the names are those of vLLM's parsers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>` (Hermes, Qwen 2.5 and 3).
    Hermes,
    /// `{"name": …, "parameters": {…}}` at the start of the answer or after `<|python_tag|>` (Llama 3.1 and later).
    Llama3Json,
    /// `[TOOL_CALLS][{…}]` or `[TOOL_CALLS]name[ARGS]{…}`.
    Mistral,
    /// `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`.
    Qwen3Coder,
    /// `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>…` (V3, R1, V3.1).
    DeepseekV3,
    /// `<|tool_call|>[{…}]`.
    Granite,
}

/// Which tool format answers are read in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ToolFormatChoice {
    /// That of the chat template.
    #[default]
    Auto,
    /// None: calls stay in the text.
    None,
    /// This one.
    This(ToolFormat),
}

impl TryFrom<String> for ToolFormatChoice {
    type Error = String;

    fn try_from(word: String) -> Result<ToolFormatChoice, String> {
        match word.as_str() {
            "auto" => Ok(ToolFormatChoice::Auto),
            "none" => Ok(ToolFormatChoice::None),
            name => match ToolFormat::ALL.into_iter().find(|format| format.name() == name) {
                Some(format) => Ok(ToolFormatChoice::This(format)),
                None => Err(format!(
                    "must be auto, none, {}, but is {name:?}",
                    ToolFormat::ALL.map(ToolFormat::name).join(", ")
                )),
            },
        }
    }
}

impl From<ToolFormatChoice> for String {
    fn from(choice: ToolFormatChoice) -> String {
        match choice {
            ToolFormatChoice::Auto => "auto",
            ToolFormatChoice::None => "none",
            ToolFormatChoice::This(format) => format.name(),
        }
        .to_owned()
    }
}

/// Text that opens calls, and what follows.
#[derive(Debug)]
pub(super) struct Shape {
    /// Text that opens calls; never part of the content.
    pub(super) opens: &'static str,
    pub(super) calls: &'static [Item],
    pub(super) bare: Bare,
    pub(super) ids: IdForm,
    /// Further texts of the format that may be control tokens.
    pub(super) further: &'static [&'static str],
}

/// Whether calls may come without the text that opens them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bare {
    /// An answer that begins with the object of an offered tool is a call.
    Object,
    Never,
}

impl ToolFormat {
    /// All formats.
    pub const ALL: [ToolFormat; 6] = [
        ToolFormat::Hermes,
        ToolFormat::Llama3Json,
        ToolFormat::Mistral,
        ToolFormat::Qwen3Coder,
        ToolFormat::DeepseekV3,
        ToolFormat::Granite,
    ];

    /// Returns the name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ToolFormat::Hermes => "hermes",
            ToolFormat::Llama3Json => "llama3_json",
            ToolFormat::Mistral => "mistral",
            ToolFormat::Qwen3Coder => "qwen3_coder",
            ToolFormat::DeepseekV3 => "deepseek_v3",
            ToolFormat::Granite => "granite",
        }
    }

    /// Finds the format in which a template wrote a call of the function `called`, or else in which it tells the model
    /// to write calls.
    #[must_use]
    pub fn of_template(written: &str, called: &str) -> Option<ToolFormat> {
        let squeezed: String = written.split_whitespace().collect();
        if squeezed.contains("<tool_call><function=") {
            Some(ToolFormat::Qwen3Coder)
        } else if written.contains("<｜tool▁call▁begin｜>") {
            Some(ToolFormat::DeepseekV3)
        } else if written.contains("[TOOL_CALLS]") {
            Some(ToolFormat::Mistral)
        } else if squeezed.contains("<tool_call>{\"") {
            Some(ToolFormat::Hermes)
        } else if written.contains("<|tool_call|>") {
            Some(ToolFormat::Granite)
        } else if squeezed.contains(&format!("{{\"name\":\"{called}\",\"parameters\":{{")) {
            Some(ToolFormat::Llama3Json)
        } else {
            None
        }
    }

    pub(super) fn shape(self) -> &'static Shape {
        const PLAIN: Shape = Shape { opens: "", calls: &[], bare: Bare::Never, ids: IdForm::OpenAi, further: &[] };
        static HERMES: Shape = Shape { opens: "<tool_call>", calls: &TAGGED, further: &["</tool_call>"], ..PLAIN };
        static LLAMA: Shape = Shape { opens: "<|python_tag|>", calls: &OBJECTS, bare: Bare::Object, ..PLAIN };
        static MISTRAL_SHAPE: Shape = Shape {
            opens: "[TOOL_CALLS]",
            calls: &MISTRAL,
            ids: IdForm::Nine,
            further: &["[ARGS]", "[CALL_ID]"],
            ..PLAIN
        };
        static QWEN_CODER: Shape =
            Shape { opens: "<tool_call>", calls: &PARAMETERS, further: &["</tool_call>"], ..PLAIN };
        static DEEPSEEK_SHAPE: Shape = Shape {
            opens: "<｜tool▁calls▁begin｜>",
            calls: &DEEPSEEK,
            further: &["<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"],
            ..PLAIN
        };
        static GRANITE: Shape = Shape { opens: "<|tool_call|>", calls: &LIST, ..PLAIN };
        match self {
            ToolFormat::Hermes => &HERMES,
            ToolFormat::Llama3Json => &LLAMA,
            ToolFormat::Mistral => &MISTRAL_SHAPE,
            ToolFormat::Qwen3Coder => &QWEN_CODER,
            ToolFormat::DeepseekV3 => &DEEPSEEK_SHAPE,
            ToolFormat::Granite => &GRANITE,
        }
    }

    /// Texts around calls that may be control tokens, which the reader of calls must see.
    pub fn marks(self) -> impl Iterator<Item = &'static str> {
        let shape = self.shape();
        std::iter::once(shape.opens).chain(shape.further.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_only_look_alike_are_not_taken_for_known_ones() {
        for (written, format) in [
            ("<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>", Some(ToolFormat::Hermes)),
            ("<tool_call>\n<function=f>\n</function>\n</tool_call>", Some(ToolFormat::Qwen3Coder)),
            ("{\"name\": \"f\", \"parameters\": {}}", Some(ToolFormat::Llama3Json)),
            ("{\"name\": \"g\", \"parameters\": {}}", None),
            ("<tool_call>{function-name}\n<arg_key>a</arg_key></tool_call>", None),
            ("<seed:tool_call>\n<function=f>\n</function>\n</seed:tool_call>", None),
            ("<tool_calls>[{\"name\": \"f\"}]</tool_calls>", None),
        ] {
            assert_eq!(ToolFormat::of_template(written, "f"), format, "{written}");
        }
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        for format in ToolFormat::ALL {
            let choice = ToolFormatChoice::try_from(format.name().to_owned()).unwrap();
            assert_eq!((choice, String::from(choice)), (ToolFormatChoice::This(format), format.name().to_owned()));
        }
        let error = ToolFormatChoice::try_from("pythonic".to_owned()).unwrap_err();
        assert!(error.contains("auto, none, hermes") && error.contains("\"pythonic\""), "{error}");
    }
}
