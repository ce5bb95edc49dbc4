//! What a format writes around the parts of a call, as small scripts for the reader of calls; knows no text.

/// Step of a script.
#[derive(Debug)]
pub(super) enum Item {
    /// White space, or none.
    Space,
    /// These characters.
    Exactly(&'static str),
    /// The first branch whose text comes next.
    Fork(&'static [Branch]),
    /// A call as one JSON object.
    Object,
    /// A function's name, up to the branch that comes first.
    Name(&'static [Branch]),
    /// Text without meaning, up to the branch that comes first.
    Skip(&'static [Branch]),
    /// Arguments as a JSON object, which ends the call.
    Arguments,
    /// Start of a call whose arguments come one by one.
    Begin,
    /// The name of an argument, up to this text.
    Key(&'static str),
    /// The value of an argument, up to this text.
    Value(&'static str),
    /// End of a call whose arguments came one by one.
    End,
}

/// Way in which a script goes on.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) text: &'static str,
    pub(super) take: Take,
    pub(super) then: &'static [Item],
}

/// Whether the text of a branch belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// The text is passed over.
    Yes,
    /// The text is left for what follows.
    No,
}

const fn on(text: &'static str, then: &'static [Item]) -> Branch {
    Branch { text, take: Take::Yes, then }
}

const fn before(text: &'static str, then: &'static [Item]) -> Branch {
    Branch { text, take: Take::No, then }
}

const fn otherwise(then: &'static [Item]) -> Branch {
    Branch { text: "", take: Take::No, then }
}

/// After `<tool_call>`: an object and the closing tag.
pub(super) static TAGGED: [Item; 4] = [Item::Space, Item::Object, Item::Space, Item::Exactly("</tool_call>")];

/// Objects, with or without semicolons between them.
pub(super) static OBJECTS: [Item; 4] = [Item::Space, Item::Object, Item::Space, Item::Fork(&OBJECTS_NEXT)];
static OBJECTS_NEXT: [Branch; 3] = [on(";", &OBJECTS), before("{", &OBJECTS), otherwise(&[])];

/// A JSON list of objects.
pub(super) static LIST: [Item; 4] = [Item::Space, Item::Exactly("["), Item::Space, Item::Fork(&LIST_FIRST)];
static LIST_FIRST: [Branch; 2] = [on("]", &[]), otherwise(&LIST_ITEM)];
static LIST_ITEM: [Item; 4] = [Item::Space, Item::Object, Item::Space, Item::Fork(&LIST_NEXT)];
static LIST_NEXT: [Branch; 2] = [on(",", &LIST_ITEM), on("]", &[])];

/// After `[TOOL_CALLS]`: a list, or the newer form with the name before the arguments.
pub(super) static MISTRAL: [Item; 2] = [Item::Space, Item::Fork(&MISTRAL_FORMS)];
static MISTRAL_FORMS: [Branch; 3] = [before("[", &LIST), before("{", &OBJECTS), otherwise(&MISTRAL_NAMED)];
static MISTRAL_NAMED: [Item; 1] = [Item::Name(&MISTRAL_NAME)];
static MISTRAL_NAME: [Branch; 3] = [on("[ARGS]", &ARGUMENTS), on("[CALL_ID]", &MISTRAL_ID), before("{", &ARGUMENTS)];
static MISTRAL_ID: [Item; 1] = [Item::Skip(&MISTRAL_ID_END)];
static MISTRAL_ID_END: [Branch; 1] = [on("[ARGS]", &ARGUMENTS)];
static ARGUMENTS: [Item; 2] = [Item::Space, Item::Arguments];

/// After `<｜tool▁calls▁begin｜>`: calls, each in tags of its own. V3 and R1 put the kind first and the arguments into a
/// block of code; V3.1 has neither.
pub(super) static DEEPSEEK: [Item; 3] =
    [Item::Space, Item::Exactly("<｜tool▁call▁begin｜>"), Item::Name(&DEEPSEEK_NAME)];
static DEEPSEEK_NAME: [Branch; 1] = [on("<｜tool▁sep｜>", &DEEPSEEK_AFTER)];
static DEEPSEEK_AFTER: [Item; 2] = [Item::Space, Item::Fork(&DEEPSEEK_FORMS)];
static DEEPSEEK_FORMS: [Branch; 2] = [before("{", &DEEPSEEK_PLAIN), otherwise(&DEEPSEEK_FENCED)];
static DEEPSEEK_PLAIN: [Item; 5] =
    [Item::Arguments, Item::Space, Item::Exactly("<｜tool▁call▁end｜>"), Item::Space, Item::Fork(&DEEPSEEK_NEXT)];
static DEEPSEEK_FENCED: [Item; 1] = [Item::Name(&DEEPSEEK_FENCE)];
static DEEPSEEK_FENCE: [Branch; 1] = [on("\n```json", &DEEPSEEK_FENCED_ARGUMENTS)];
static DEEPSEEK_FENCED_ARGUMENTS: [Item; 7] = [
    Item::Space,
    Item::Arguments,
    Item::Space,
    Item::Exactly("```"),
    Item::Exactly("<｜tool▁call▁end｜>"),
    Item::Space,
    Item::Fork(&DEEPSEEK_NEXT),
];
static DEEPSEEK_NEXT: [Branch; 3] =
    [before("<｜tool▁call▁begin｜>", &DEEPSEEK), on("<｜tool▁calls▁end｜>", &[]), otherwise(&[])];

/// After `<tool_call>`: a function whose arguments stand in tags of their own.
pub(super) static PARAMETERS: [Item; 3] = [Item::Space, Item::Exactly("<function="), Item::Name(&FUNCTION_NAME)];
static FUNCTION_NAME: [Branch; 1] = [on(">", &FUNCTION)];
static FUNCTION: [Item; 3] = [Item::Begin, Item::Space, Item::Fork(&PARAMETER)];
static PARAMETER: [Branch; 2] = [on("<parameter=", &PARAMETER_REST), on("</function>", &FUNCTION_END)];
static PARAMETER_REST: [Item; 4] = [Item::Key(">"), Item::Value("</parameter>"), Item::Space, Item::Fork(&PARAMETER)];
static FUNCTION_END: [Item; 3] = [Item::End, Item::Space, Item::Exactly("</tool_call>")];
