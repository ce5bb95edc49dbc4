//! Documents made by chance: words, sentences, and JSON of a schema; knows no grammar.

use serde_json::{Map, Value, json};

pub(crate) const WORDS: [&str; 40] = [
    "river", "mountain", "the", "of", "engine", "blue", "window", "theory", "market", "garden", "station", "paper",
    "and", "music", "history", "bridge", "summer", "number", "a", "teacher", "silver", "planet", "kitchen", "to",
    "journey", "forest", "letter", "in", "cloud", "harbour", "is", "winter", "language", "machine", "was", "village",
    "question", "answer", "for", "mirror",
];

/// Numbers by chance (SplitMix64).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

pub(crate) fn word(chance: &mut Chance) -> &'static str {
    WORDS[chance.below(WORDS.len() as u64) as usize]
}

/// A sentence of so many words, with the marks, quotes and accents that texts have.
pub(crate) fn sentence(chance: &mut Chance, words: u64) -> String {
    let said: Vec<String> = (0..words)
        .map(|_| match chance.below(12) {
            0 => format!("\"{}\"", word(chance)),
            1 => format!("{},", word(chance)),
            2 => format!("{}.\n", word(chance)),
            3 => "naïve café".to_owned(),
            4 => chance.below(3000).to_string(),
            _ => word(chance).to_owned(),
        })
        .collect();
    said.join(" ")
}

/// A value of a schema, made of the keywords that the kinds use.
pub(crate) fn of_schema(schema: &Value, root: &Value, chance: &mut Chance) -> Value {
    if let Some(Value::String(path)) = schema.get("$ref") {
        return of_schema(root.pointer(path.trim_start_matches('#')).unwrap_or(&Value::Null), root, chance);
    }
    let list = |key: &str| schema.get(key).and_then(Value::as_array).filter(|list| !list.is_empty());
    if let Some(values) = list("enum").or_else(|| list("examples")) {
        return values[chance.below(values.len() as u64) as usize].clone();
    }
    if let Some(parts) = list("anyOf") {
        return of_schema(&parts[chance.below(parts.len() as u64) as usize], root, chance);
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let made =
                properties.into_iter().flatten().map(|(name, part)| (name.clone(), of_schema(part, root, chance)));
            Value::Object(made.collect::<Map<String, Value>>())
        }
        Some("array") => {
            let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
            let count = least + chance.below(3);
            let items = schema.get("items").unwrap_or(&Value::Null);
            (0..count).map(|_| of_schema(items, root, chance)).collect()
        }
        Some("integer") => json!(chance.below(100_000) as i64 - 1000),
        Some("number") => json!(chance.below(1_000_000) as f64 / 128.0),
        Some("boolean") => json!(chance.below(2) == 0),
        Some("string") => {
            let most = schema.get("maxLength").and_then(Value::as_u64).unwrap_or(200) as usize;
            let words = 3 + chance.below(12);
            json!(sentence(chance, words).chars().take(most).collect::<String>())
        }
        _ => Value::Null,
    }
}

/// The value as text: in one line, or indented as models often write it, as deep as the server lets them.
pub(crate) fn written(value: &Value, seed: u64) -> String {
    let indented = serde_json::to_string_pretty(value).unwrap_or_default();
    let is_deep = indented.lines().any(|line| line.starts_with("                 "));
    if seed.is_multiple_of(2) || is_deep { value.to_string() } else { indented }
}
