//! Kinds of grammars as clients ask for them, with documents of each; knows no matcher.

mod documents;

use router::model_output::{
    Arguments, Begins, Callable, Calls, CallsPerTurn, Content, Tags, ToolFormat, answer_grammar,
};
use router::openai::{ChatRequest, Limits};
use router::text::Tokenizer;
use sched::TokenId;
use serde_json::{Map, Value, json};

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
    let schemas = schemas().into_iter().map(|(name, schema)| of_schema(name, schema));
    let mut kinds: Vec<Kind> = schemas.collect();
    kinds.extend([object(), choice(), regex(), gbnf()]);
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

/// Schema of the objects that have these properties and no others.
fn closed(properties: Value) -> Value {
    let names: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    let mut schema = json!({"type": "object", "required": names, "additionalProperties": false});
    schema["properties"] = properties;
    schema
}

fn schemas() -> Vec<(&'static str, Value)> {
    let text = json!({"type": "string"});
    let whole = json!({"type": "integer", "minimum": -9007199254740991_i64, "maximum": 9007199254740991_i64});
    let mut of_sdk = closed(json!({"name": text, "age": whole, "tags": {"type": "array", "items": text}}));
    of_sdk["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    let mut nested = closed(json!({"leaf": text, "count": {"type": "integer"}}));
    for _ in 0..5 {
        nested = closed(json!({"title": text, "inner": nested, "done": {"type": "boolean"}}));
    }
    let words: Vec<String> = (0..1000).map(|number| format!("{}_{number}", documents::WORDS[number % 40])).collect();
    let line = closed(json!({"article": text, "amount": {"type": "integer"}, "price": {"type": "number"}}));
    let shape = |kind: &str, size: &str| closed(json!({"kind": {"const": kind}, size: {"type": "number"}}));
    let patterns = closed(json!({
        "id": {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}$", "examples": ["0a1b2c3d-4e5f-6071"]},
        "phone": {"type": "string", "pattern": "^\\+[0-9]{1,3} [0-9]{4,12}$", "examples": ["+49 73112345"]},
        "at": {"type": "string", "format": "date-time", "examples": ["2026-11-30T12:34:56Z"]},
        "mail": {"type": "string", "format": "email", "examples": ["ada@example.org"]},
    }));
    let many = (0..100).map(|number| (format!("{}_{number}", documents::WORDS[number % 40]), text.clone()));
    let many = closed(Value::Object(many.collect()));
    let node =
        closed(json!({"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}));
    let mut tree = node.clone();
    tree["$defs"] = json!({"node": node});
    vec![
        ("AI SDK: $schema, ±2^53", of_sdk),
        ("6 objects nested", nested),
        ("enum of 1,000", closed(json!({"word": {"enum": words}, "other": {"enum": words}}))),
        ("list of objects", closed(json!({"lines": {"type": "array", "items": line, "minItems": 5, "maxItems": 20}}))),
        ("list of numbers", json!({"type": "array", "items": {"type": "number"}, "minItems": 40, "maxItems": 80})),
        (
            "anyOf of objects",
            closed(json!({"shapes": {"type": "array", "minItems": 4, "items": {"anyOf": [
                shape("circle", "radius"), shape("square", "side"), shape("line", "length"), {"type": "null"},
            ]}}})),
        ),
        ("patterns and formats", patterns),
        (
            "strings of bounded length",
            closed(json!({
                "short": {"type": "string", "maxLength": 20}, "long": {"type": "string", "minLength": 5, "maxLength": 400},
            })),
        ),
        ("100 properties", many),
        ("recursive", tree),
    ]
}

fn object() -> Kind {
    let schema = closed(
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

fn gbnf() -> Kind {
    let grammar = r#"root ::= "SELECT " columns " FROM " name (" WHERE " test (" AND " test)*)? ";"
columns ::= "*" | name (", " name)*
test ::= name " " ("=" | "<" | ">" | "LIKE") " " value
value ::= [0-9]+ | "'" [^']* "'"
name ::= [a-z_]+ ("." [a-z_]+)?
"#;
    let document = |seed| {
        let mut chance = Chance::new(seed);
        let mut name = || documents::word(&mut chance);
        format!(
            "SELECT {}, {} FROM {} WHERE {} = {seed} AND {} LIKE '{}%';",
            name(),
            name(),
            name(),
            name(),
            name(),
            name()
        )
    };
    Kind {
        name: "EBNF, SQL",
        grammar: grammar_of(json!({"structured_outputs": {"grammar": grammar}})),
        document: Box::new(document),
    }
}

/// An answer that talks first and then calls one of two tools, the first of which is strict.
fn strict(
    name: &'static str,
    format: ToolFormat,
    begins: Option<Begins>,
    control: &dyn Fn(&str) -> Option<TokenId>,
) -> Kind {
    let schema =
        closed(json!({"place": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}}));
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
