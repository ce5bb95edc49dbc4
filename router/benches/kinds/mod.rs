//! Kinds of grammars as clients ask for them, with documents of each; knows no matcher.

mod documents;
mod ebnf;
mod schemas;

use router::model_output::{
    Arguments, Begins, Callable, Calls, CallsPerTurn, Content, Tags, ToolFormat, answer_grammar,
};
use router::openai::{ChatRequest, Limits};
use router::text::Tokenizer;
use sched::TokenId;
use serde_json::{Value, json};

use documents::Chance;

/// A grammar and its documents.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) grammar: String,
    /// Makes the document of a seed.
    pub(crate) document: Box<dyn Fn(u64) -> String>,
}

/// All kinds; `tokenizer` says which marks are control tokens.
pub(crate) fn all(tokenizer: &Tokenizer) -> Vec<Kind> {
    let schemas = schemas::all().into_iter().map(|(name, schema)| of_schema(name, schema));
    let mut kinds: Vec<Kind> = schemas.collect();
    kinds.extend([object(), choice(), regex(), mail()]);
    kinds.extend(ebnf::all());
    let control = |mark: &str| tokenizer.token_id(mark).filter(|token| tokenizer.pieces().is_special(*token));
    kinds.extend([
        strict("strict tools, mark is text", ToolFormat::Hermes, None, &|_| None),
        strict("strict tools, mark is a token", ToolFormat::Llama3Json, None, &control),
        strict("strict tools after thoughts", ToolFormat::Hermes, Some(Begins::Inside), &|_| None),
    ]);
    kinds
}

/// The grammar that the server makes of fields of a request.
fn grammar_of(fields: Value) -> String {
    let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
    let (Value::Object(body_fields), Value::Object(fields)) = (&mut body, fields) else { return String::new() };
    body_fields.extend(fields);
    let limits = Limits { n_max: 1, prompts_max: 1, stop_max: 1, stop_bytes_max: 1, vocab_size: 1 << 20 };
    let request = ChatRequest::parse(body.to_string().as_bytes(), &limits).expect("the request is valid");
    request.generation.structure.expect("the request wants a structure").grammar.to_string()
}

fn of_schema(name: &'static str, schema: Value) -> Kind {
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}});
    let grammar = grammar_of(json!({"response_format": format}));
    let document =
        move |seed| documents::written(&documents::of_schema(&schema, &schema, &mut Chance::new(seed)), seed);
    Kind { name, grammar, document: Box::new(document) }
}

fn object() -> Kind {
    let schema = schemas::closed(
        json!({"name": {"type": "string"}, "of": {"type": "array", "items": {"type": "number"}, "minItems": 3}}),
    );
    let document =
        move |seed| documents::written(&documents::of_schema(&schema, &schema, &mut Chance::new(seed)), seed);
    Kind {
        name: "any JSON object",
        grammar: grammar_of(json!({"response_format": {"type": "json_object"}})),
        document: Box::new(document),
    }
}

fn choice() -> Kind {
    let choices: Vec<&str> = documents::WORDS[..20].to_vec();
    Kind {
        name: "choice of 20",
        grammar: grammar_of(json!({"structured_outputs": {"choice": choices}})),
        document: Box::new(|seed| documents::WORDS[(seed * 7 % 20) as usize].to_owned()),
    }
}

fn regex() -> Kind {
    let pattern = r"([A-Z][a-z]+ ){2,8}\([0-9]{4}\), [0-9]+ (km|mi)(, .*)?";
    Kind {
        name: "regular expression",
        grammar: grammar_of(json!({"structured_outputs": {"regex": pattern}})),
        document: Box::new(|seed| {
            format!(
                "Upper Danube Valley ({}), {} km, {}",
                1900 + seed,
                seed * 37,
                documents::sentence(&mut Chance::new(seed), 12).replace("\n", "")
            )
        }),
    }
}

fn mail() -> Kind {
    let pattern = r"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}";
    Kind {
        name: "regular expression, mail",
        grammar: grammar_of(json!({"structured_outputs": {"regex": pattern}})),
        document: Box::new(|seed| {
            let mut chance = Chance::new(seed);
            let mut word = || documents::word(&mut chance);
            format!("{}.{}@{}-{}.example.org", word(), word(), word(), word())
        }),
    }
}

/// An answer that talks first and then calls one of two tools, the first of which is strict.
fn strict(
    name: &'static str,
    format: ToolFormat,
    begins: Option<Begins>,
    control: &dyn Fn(&str) -> Option<TokenId>,
) -> Kind {
    let schema = schemas::closed(
        json!({"place": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}}),
    );
    let Value::Object(parameters) = schema.clone() else { unreachable!("it is an object") };
    let functions = [
        Callable { name: "weather", arguments: Arguments::Strict(&parameters) },
        Callable { name: "search", arguments: Arguments::Any },
    ];
    let calls = Calls { format, functions: &functions, limit: CallsPerTurn::Many };
    let thoughts = begins.map(|begins| (Tags::KNOWN[0], begins));
    let grammar = answer_grammar(Some(calls), Content::Free, thoughts, control).expect("strict calls have a grammar");
    let document = move |seed| {
        let mut chance = Chance::new(seed);
        let said = documents::sentence(&mut chance, 60);
        let arguments = documents::of_schema(&schema, &schema, &mut chance).to_string();
        let thought = if begins.is_some() {
            format!("{} 1 < 2 </think>\n\n", documents::sentence(&mut chance, 60))
        } else {
            String::new()
        };
        let call = match format {
            ToolFormat::Llama3Json => return format!("{thought}{said}\n\n{{}} [1] <b>"),
            _ => format!("<tool_call>\n{{\"name\": \"weather\", \"arguments\": {arguments}}}\n</tool_call>"),
        };
        format!("{thought}{said}\n\n{call}")
    };
    Kind { name, grammar, document: Box::new(document) }
}
