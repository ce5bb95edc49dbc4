//! Writes the tables as a section of `docs/models.md`; knows no more than the tables.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{ADDED_TOKENS, Effect, GENERATION, Key, SPECIAL_TOKENS_MAP, TOKENIZER, TOKENIZER_CONFIG, Table};
use crate::Family;

/// Tables of all files, for the place between the two marks of the page.
#[must_use]
pub fn markdown() -> String {
    let mut text = config();
    for table in [GENERATION, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS, TOKENIZER] {
        text.push_str(&of_file(&table));
    }
    text
}

fn config() -> String {
    let mut by_name: BTreeMap<&str, Vec<(Family, &Key)>> = BTreeMap::new();
    for family in Family::ALL {
        for key in Table::config(family).keys() {
            by_name.entry(key.name).or_default().push((family, key));
        }
    }
    let mut text = "### config.json\n\n| key | what it does | |\n|---|---|---|\n".to_owned();
    for (name, keys) in &by_name {
        let mut effects: Vec<(String, Vec<Family>)> = Vec::new();
        let mut notes: Vec<&str> = Vec::new();
        for (family, key) in keys {
            let effect = told(key);
            match effects.iter_mut().find(|(known, _)| *known == effect) {
                Some((_, families)) => families.push(*family),
                None => effects.push((effect, vec![*family])),
            }
            if !key.note.is_empty() && !notes.contains(&key.note) {
                notes.push(key.note);
            }
        }
        let effects: Vec<String> = effects.iter().map(|(effect, families)| with_families(effect, families)).collect();
        row(&mut text, name, &effects.join("; "), &notes.join("; "));
    }
    text.push('\n');
    text
}

fn with_families(effect: &str, families: &[Family]) -> String {
    if families.len() == Family::ALL.len() {
        return effect.to_owned();
    }
    let names: Vec<&str> = families.iter().map(|family| family.model_type()).collect();
    format!("{}: {effect}", names.join(", "))
}

fn of_file(table: &Table) -> String {
    let mut text = format!("### {}\n\n| key | what it does | |\n|---|---|---|\n", table.file);
    for key in table.keys() {
        row(&mut text, key.name, &told(key), key.note);
    }
    for ending in table.endings {
        row(&mut text, &format!("…{}", ending.name), &told(ending), ending.note);
    }
    text.push('\n');
    text
}

fn row(text: &mut String, name: &str, effect: &str, note: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "| `{name}` | {effect} | {note} |");
}

fn told(key: &Key) -> String {
    match key.effect {
        Effect::Honoured { default: "null", .. } => "honoured".to_owned(),
        Effect::Honoured { default, .. } => format!("honoured, `{default}` if absent"),
        Effect::Refused { unless } => format!("refused unless `{}`", unless.join("` or `")),
        Effect::Ignored => "without effect".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BEGIN: &str = "<!-- keys: written by `UPDATE_EXPECT=1 cargo test -p model-files docs` -->\n";
    const END: &str = "<!-- end of keys -->\n";

    #[test]
    fn the_docs_show_the_tables() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/models.md");
        let text = std::fs::read_to_string(&page).unwrap();
        let start = text.find(BEGIN).expect("the mark that begins the tables") + BEGIN.len();
        let end = text.find(END).expect("the mark that ends the tables");
        let expected = format!("\n{}", markdown());
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&page, format!("{}{expected}{}", &text[..start], &text[end..])).unwrap();
            return;
        }
        assert!(text[start..end] == expected, "docs/models.md is not what the tables say: run with UPDATE_EXPECT=1");
    }
}
