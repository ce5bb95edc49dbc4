//! Meaning of a line of a conversation: a question, or a command to the program.

pub(super) const HELP: &str = "\
/bye                        ends (also Ctrl-D)
/clear                      forgets what was said
/set parameter NAME VALUE   temperature, top_p, top_k, min_p, seed, max_tokens, repetition_penalty,
                            presence_penalty, frequency_penalty, stop; `default` as the value takes it back
/set system TEXT            another system prompt
/show                       the parameters that are set
/help                       this
\"\"\"                         begins and ends a text of several lines
Ctrl-C                      stops an answer, or clears the line";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words<'a> {
    /// An empty line.
    Nothing,
    /// For the model.
    Question(&'a str),
    /// End the conversation.
    Leave,
    Help,
    /// Forget what was said.
    Clear,
    Show,
    Set {
        name: &'a str,
        value: &'a str,
    },
    /// Set another system prompt.
    System(&'a str),
    /// No known command.
    Unknown(&'a str),
}

impl Words<'_> {
    /// Parses `line`. Only a single line can be a command, as a pasted text may begin with a path.
    pub(super) fn of(line: &str) -> Words<'_> {
        let line = line.trim();
        if line.is_empty() {
            return Words::Nothing;
        }
        if !line.starts_with('/') || line.contains('\n') {
            return Words::Question(line);
        }
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match (command, rest) {
            ("/bye" | "/exit" | "/quit", "") => Words::Leave,
            ("/help" | "/?", _) => Words::Help,
            ("/clear", "") => Words::Clear,
            ("/show", _) => Words::Show,
            ("/set", rest) => Words::setting(rest),
            // A path is a question.
            (command, _) if command[1..].contains('/') => Words::Question(line),
            (command, _) => Words::Unknown(command),
        }
    }

    fn setting(rest: &str) -> Words<'_> {
        let (what, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        match what {
            "parameter" => {
                let (name, value) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
                Words::Set { name, value: value.trim() }
            }
            "system" => Words::System(rest.trim()),
            _ => Words::Unknown("/set without parameter or system"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        assert_eq!(Words::of("  "), Words::Nothing);
        assert_eq!(Words::of("hello /bye"), Words::Question("hello /bye"));
        assert_eq!(Words::of(" /bye "), Words::Leave);
        assert_eq!(Words::of("/?"), Words::Help);
        assert_eq!(Words::of("/clear"), Words::Clear);
        let set = Words::Set { name: "temperature", value: "0.5" };
        assert_eq!(Words::of("/set parameter  temperature   0.5"), set);
        assert_eq!(Words::of("/set parameter stop a b"), Words::Set { name: "stop", value: "a b" });
        assert_eq!(Words::of("/set parameter"), Words::Set { name: "", value: "" });
        assert_eq!(Words::of("/set system You are brief."), Words::System("You are brief."));
        assert_eq!(Words::of("/sing"), Words::Unknown("/sing"));
        assert_eq!(Words::of("/etc/passwd is what?"), Words::Question("/etc/passwd is what?"));
        assert_eq!(Words::of("/bye\nsaid the fox"), Words::Question("/bye\nsaid the fox"));
    }
}
