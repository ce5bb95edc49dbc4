//! `GET /openapi.json`: the description of the API; knows no request. Tests compare it with what the code takes.

/// The description, without the version of the software.
const DOCUMENT: &str = include_str!("openapi.json");

/// Returns the description as JSON.
#[must_use]
pub fn openapi() -> Vec<u8> {
    DOCUMENT.replacen("\"VERSION\"", concat!("\"", env!("CARGO_PKG_VERSION"), "\""), 1).into_bytes()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::super::known::{HONOURED, HONOURED_BY_CHAT, HONOURED_BY_COMPLETION, HONOURED_BY_RESPONSES};
    use super::super::refused::RESPONSES;
    use super::*;

    fn document() -> Value {
        serde_json::from_slice(&openapi()).unwrap()
    }

    #[test]
    fn it_describes_every_honoured_field_and_no_other() {
        let document = document();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        for (schema, own) in [("ChatRequest", HONOURED_BY_CHAT), ("CompletionRequest", HONOURED_BY_COMPLETION)] {
            let properties = document["components"]["schemas"][schema]["properties"].as_object().unwrap();
            let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            let honoured: BTreeSet<&str> = HONOURED.iter().chain(own).copied().collect();
            assert_eq!(described, honoured, "openapi.json, schema {schema}");
        }
        let properties = document["components"]["schemas"]["ResponsesRequest"]["properties"].as_object().unwrap();
        let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        let honoured: BTreeSet<&str> = shared_with_responses().chain(HONOURED_BY_RESPONSES.iter().copied()).collect();
        assert_eq!(described, honoured, "openapi.json, schema ResponsesRequest");
    }

    /// Returns the fields of both kinds of completion that responses honour, too.
    fn shared_with_responses() -> impl Iterator<Item = &'static str> {
        let is_refused = |name: &str| RESPONSES.iter().any(|refused| refused.name == name);
        HONOURED.iter().copied().filter(move |name| !is_refused(name))
    }

    /// Returns the notes of docs/api.md about the fields under a heading, without links.
    pub(crate) fn notes(heading: &str) -> BTreeMap<String, String> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
        let text = std::fs::read_to_string(path).unwrap();
        let section = text.split("\n### ").find(|section| section.starts_with(&format!("{heading}\n"))).unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "));
        rows.map(|(name, note)| (name.to_owned(), unlinked(note))).collect()
    }

    fn unlinked(note: &str) -> String {
        match note.split_once('[').and_then(|(before, rest)| Some((before, rest.split_once("](")?))) {
            Some((before, (text, rest))) => {
                let after = rest.split_once(')').map_or("", |(_, after)| after);
                format!("{before}{text}{}", unlinked(after))
            }
            None => note.to_owned(),
        }
    }

    #[test]
    fn it_says_of_each_field_what_the_docs_say() {
        let document = document();
        let both = notes("Honoured by both");
        for (schema, heading) in
            [("ChatRequest", "Honoured by chat completions"), ("CompletionRequest", "Honoured by completions")]
        {
            let properties = &document["components"]["schemas"][schema]["properties"];
            for (name, note) in both.iter().chain(&notes(heading)) {
                assert_eq!(properties[name]["description"], note.as_str(), "openapi.json, {schema}, {name}");
            }
        }
        let properties = &document["components"]["schemas"]["ResponsesRequest"]["properties"];
        let own = notes("Honoured by responses");
        for name in shared_with_responses().chain(HONOURED_BY_RESPONSES.iter().copied()) {
            let note = own.get(name).or(both.get(name)).unwrap();
            assert_eq!(properties[name]["description"], note.as_str(), "openapi.json, ResponsesRequest, {name}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            if let Some(name) = value.get("$ref").and_then(Value::as_str) {
                let schema = document.pointer(name.trim_start_matches('#'));
                assert!(schema.is_some(), "{name}");
            }
            open.extend(value.as_array().into_iter().flatten());
            open.extend(value.as_object().into_iter().flat_map(|map| map.values()));
        }
    }
}
