//! Tokens that a model's files name or add beside tokenizer.json, as transformers reads them; knows no template.
//!
//! tokenizer_config.json comes first. Where it has no `added_tokens_decoder`, special_tokens_map.json wins over it, and
//! added_tokens.json adds to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use model_files::keys::{ADDED_TOKENS, Effect, SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, say_unknown};
use model_files::{Fields, ModelFileError};
use serde_json::Value;
use tokenizers::AddedToken;

/// Token names that every tokenizer has and every template may use.
pub const STANDARD: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Tokens that the files name or list.
#[derive(Debug, Clone, Default)]
pub struct SpecialTokens {
    /// Tokens with a name, by which templates know them, in the order of the files.
    named: Vec<(String, AddedToken)>,
    /// Control tokens without a name.
    extra: Vec<AddedToken>,
    /// Tokens by the id that the files give them.
    listed: BTreeMap<u32, Listed>,
}

/// Token with an id, and the file that says so.
#[derive(Debug, Clone)]
struct Listed {
    token: AddedToken,
    file: &'static str,
}

impl SpecialTokens {
    /// Reads the three files of `folder`; `config` is tokenizer_config.json.
    ///
    /// # Errors
    /// When a file or a key is wrong.
    pub fn read(folder: &Path, config: Option<&Fields>) -> Result<SpecialTokens, ModelFileError> {
        let mut tokens = SpecialTokens::default();
        if let Some(config) = config {
            say_unknown(config.file(), &TOKENIZER_CONFIG.check(config)?);
            tokens.take(config)?;
            if tokens.extra.is_empty() {
                tokens.take_extra(config, "additional_special_tokens")?;
            }
            if let Some(listed) = config.object("added_tokens_decoder")? {
                return tokens.with_listed(&listed);
            }
        }
        if let Some(map) = Fields::read(&folder.join(SPECIAL_TOKENS_MAP.file))? {
            say_unknown(map.file(), &SPECIAL_TOKENS_MAP.check(&map)?);
            tokens.take(&map)?;
            if tokens.extra.is_empty() {
                tokens.take_extra(&map, "additional_special_tokens")?;
            }
        }
        if let Some(added) = Fields::read(&folder.join(ADDED_TOKENS.file))? {
            tokens.take_added(&added)?;
        }
        Ok(tokens)
    }

    /// Returns the tokens with a name, in the order of the files.
    pub fn named(&self) -> impl Iterator<Item = (&str, &AddedToken)> {
        self.named.iter().map(|(name, token)| (name.as_str(), token))
    }

    /// Returns the token of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&AddedToken> {
        self.named().find(|(known, _)| *known == name).map(|(_, token)| token)
    }

    /// Gives the name `name` to `token`, or removes the name.
    pub fn name(&mut self, name: &str, token: Option<AddedToken>) {
        let known = self.named.iter().position(|(known, _)| known == name);
        match (known, token) {
            (Some(index), Some(token)) => self.named[index].1 = token,
            (Some(index), None) => drop(self.named.remove(index)),
            (None, Some(token)) => self.named.push((name.to_owned(), token)),
            (None, None) => {}
        }
    }

    fn take(&mut self, fields: &Fields) -> Result<(), ModelFileError> {
        for (key, value) in fields.entries() {
            let is_standard = STANDARD.contains(&key);
            let is_told = value.is_string() || value.is_object();
            if is_standard || (key.ends_with("_token") && is_told && !is_switch(key)) {
                self.name(key, token(fields, key, value, Special::Yes)?);
            }
        }
        self.take_extra(fields, "extra_special_tokens")?;
        if let Some(named) = fields.object("model_specific_special_tokens")? {
            self.take_named(&named)?;
        }
        Ok(())
    }

    /// Takes control tokens under `key`, with names or without.
    fn take_extra(&mut self, fields: &Fields, key: &str) -> Result<(), ModelFileError> {
        match fields.get(key) {
            None => Ok(()),
            Some(Value::Object(_)) => match fields.object(key)? {
                Some(named) => self.take_named(&named),
                None => Ok(()),
            },
            Some(Value::Array(list)) => {
                for value in list {
                    let token = token(fields, key, value, Special::Yes)?;
                    let token = token.ok_or_else(|| fields.wrong(key, "a list of tokens", value))?;
                    if !self.extra.iter().any(|known| known.content == token.content) {
                        self.extra.push(token);
                    }
                }
                Ok(())
            }
            Some(other) => Err(fields.wrong(key, "a list of tokens or an object of named tokens", other)),
        }
    }

    fn take_named(&mut self, named: &Fields) -> Result<(), ModelFileError> {
        for (name, value) in named.entries() {
            if let Some(token) = token(named, name, value, Special::Yes)? {
                self.name(name, Some(token));
            }
        }
        Ok(())
    }

    fn with_listed(mut self, listed: &Fields) -> Result<SpecialTokens, ModelFileError> {
        for (key, value) in listed.entries() {
            let wrong = || listed.problem(key, "must have a token id as its name");
            let id = key.parse::<u32>().map_err(|_| wrong())?;
            let token = value.is_object().then(|| token(listed, key, value, Special::No)).transpose()?.flatten();
            let token = token.ok_or_else(|| listed.wrong(key, "an object with the content of a token", value))?;
            list(&mut self.listed, id, Listed { token, file: TOKENIZER_CONFIG.file }, (listed, key))?;
        }
        Ok(self)
    }

    fn take_added(&mut self, added: &Fields) -> Result<(), ModelFileError> {
        let special: BTreeSet<&str> =
            self.named().map(|(_, token)| token).chain(&self.extra).map(|token| token.content.as_str()).collect();
        let mut listed = BTreeMap::new();
        for (content, value) in added.entries() {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| added.wrong(content, "a token id", value))?;
            let token = AddedToken::from(content, special.contains(content));
            list(&mut listed, id, Listed { token, file: ADDED_TOKENS.file }, (added, content))?;
        }
        self.listed.extend(listed);
        Ok(())
    }

    /// Adds the missing tokens to `tokenizer` in the order of transformers: by id, then by name, then the rest.
    ///
    /// # Errors
    /// When the tokenizer refuses a token.
    pub fn add_to(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<(), String> {
        let has: BTreeSet<String> =
            tokenizer.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
        let is_new = |token: &&AddedToken| !has.contains(&token.content);
        let standard = STANDARD.iter().filter_map(|name| self.get(name));
        let others = self.named().filter(|(name, _)| !STANDARD.contains(name)).map(|(_, token)| token);
        let named = standard.chain(others);
        let listed: BTreeSet<&str> = self.listed.values().map(|listed| listed.token.content.as_str()).collect();
        let unlisted = |token: &&AddedToken| !listed.contains(token.content.as_str());
        let rest = named.chain(&self.extra).filter(is_new).filter(unlisted);
        let adding = self.listed.values().map(|listed| &listed.token).chain(rest).map(|token| self.flagged(token));
        // The library skips tokens that exist with the same flags.
        tokenizer.add_tokens(adding).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Marks every token with a name as a control token, whatever the list says.
    fn flagged(&self, token: &AddedToken) -> AddedToken {
        let is_named = self.named().any(|(_, named)| named.content == token.content);
        AddedToken { special: token.special || is_named, ..token.clone() }
    }

    /// Warns of tokens whose id differs from the files: tokenizer.json decides, as in transformers.
    pub fn say_moved(&self, tokenizer: &tokenizers::Tokenizer) {
        for (id, Listed { token, file }) in &self.listed {
            match tokenizer.token_to_id(&token.content) {
                Some(found) if found != *id => tracing::warn!(
                    file,
                    token = token.content,
                    said = id,
                    id = found,
                    "a token has another id in the tokenizer, which counts"
                ),
                Some(_) | None => {}
            }
        }
    }
}

/// Gives `token` its id. Fails if another token has this id, as one of the two would be lost.
fn list(
    listed: &mut BTreeMap<u32, Listed>,
    id: u32,
    token: Listed,
    (fields, key): (&Fields, &str),
) -> Result<(), ModelFileError> {
    match listed.get(&id) {
        None => {
            listed.insert(id, token);
            Ok(())
        }
        Some(other) => {
            Err(fields.problem(key, format!("has the token id {id}, which {:?} has already", other.token.content)))
        }
    }
}

/// Returns true for a switch like `add_bos_token`, which only ends like the name of a token.
fn is_switch(key: &str) -> bool {
    TOKENIZER_CONFIG.key(key).is_some_and(|key| key.effect == Effect::Ignored)
}

/// Whether a token without flags is a control token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    Yes,
    No,
}

/// Reads a token from its text, or from an object with `content` and flags; `None` for null.
fn token(fields: &Fields, key: &str, value: &Value, special: Special) -> Result<Option<AddedToken>, ModelFileError> {
    const EXPECTED: &str = "a token: a string, or an object with content";
    let special = special == Special::Yes;
    let map = match value {
        Value::Null => return Ok(None),
        Value::String(content) => return Ok(Some(AddedToken::from(content.as_str(), special))),
        Value::Object(map) => map,
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => return Err(fields.wrong(key, EXPECTED, value)),
    };
    let content = map.get("content").and_then(Value::as_str).ok_or_else(|| fields.wrong(key, EXPECTED, value))?;
    let flag = |name: &str| match map.get(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(fields.wrong(&format!("{key}.{name}"), "true or false", other)),
    };
    let special = flag("special")?.unwrap_or(special);
    Ok(Some(AddedToken {
        content: content.to_owned(),
        single_word: flag("single_word")?.unwrap_or(false),
        lstrip: flag("lstrip")?.unwrap_or(false),
        rstrip: flag("rstrip")?.unwrap_or(false),
        normalized: flag("normalized")?.unwrap_or(!special),
        special,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(file: &str, text: &str) -> Fields {
        Fields::parse(Path::new(file), text).unwrap()
    }

    #[test]
    fn two_tokens_of_one_id_are_refused_by_file_and_key() {
        let added = fields("added_tokens.json", r#"{"<a>": 270, "<b>": 271, "<c>": 270}"#);
        let said = SpecialTokens::default().take_added(&added).unwrap_err().to_string();
        assert!(said.contains(r#"added_tokens.json: <c> has the token id 270, which "<a>" has already"#), "{said}");
        let listed = fields("tokenizer_config.json", r#"{"270": {"content": "<a>"}, "0270": {"content": "<b>"}}"#);
        let said = SpecialTokens::default().with_listed(&listed).unwrap_err().to_string();
        assert!(
            said.contains(r#"tokenizer_config.json: 0270 has the token id 270, which "<a>" has already"#),
            "{said}"
        );
    }

    fn of_config(text: &str) -> SpecialTokens {
        SpecialTokens::read(Path::new("no such folder"), Some(&fields("tokenizer_config.json", text))).unwrap()
    }

    fn contents(tokens: &SpecialTokens) -> Vec<(&str, &str)> {
        tokens.named().map(|(name, token)| (name, token.content.as_str())).collect()
    }

    #[test]
    fn tokens_have_the_names_and_flags_of_the_file() {
        let tokens = of_config(
            r#"{"eos_token": "</s>", "bos_token": {"content": "<s>", "lstrip": true}, "pad_token": null,
                "add_bos_token": true, "image_token": "<image>", "extra_special_tokens": ["<x>", {"content": "<y>"}, "<x>"]}"#,
        );
        assert_eq!(contents(&tokens), [("eos_token", "</s>"), ("bos_token", "<s>"), ("image_token", "<image>")]);
        let begin = tokens.get("bos_token").unwrap();
        assert!(begin.lstrip && begin.special && !begin.normalized && !begin.rstrip);
        assert_eq!(tokens.extra.iter().map(|token| token.content.as_str()).collect::<Vec<_>>(), ["<x>", "<y>"]);
    }

    #[test]
    fn a_name_can_be_given_changed_and_taken() {
        let mut tokens = of_config(r#"{"eos_token": "</s>"}"#);
        tokens.name("eos_token", Some(AddedToken::from("<end>", true)));
        tokens.name("pad_token", Some(AddedToken::from("<pad>", true)));
        assert_eq!(contents(&tokens), [("eos_token", "<end>"), ("pad_token", "<pad>")]);
        tokens.name("eos_token", None);
        tokens.name("cls_token", None);
        assert_eq!(contents(&tokens), [("pad_token", "<pad>")]);
    }

    #[test]
    fn what_is_no_token_is_refused_by_its_key() {
        for (text, said) in [
            (r#"{"eos_token": 7}"#, "eos_token"),
            (r#"{"eos_token": {"content": "a", "lstrip": 1}}"#, "eos_token.lstrip"),
            (r#"{"extra_special_tokens": "a"}"#, "extra_special_tokens"),
            (r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#, "token id"),
            (r#"{"added_tokens_decoder": {"7": "a"}}"#, "content of a token"),
        ] {
            let config = fields("tokenizer_config.json", text);
            let error = SpecialTokens::read(Path::new("no such folder"), Some(&config)).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn tokens_are_added_by_id_then_by_name_and_those_with_a_name_are_control_tokens() {
        let tokens = of_config(
            r#"{"unk_token": "<u>", "eos_token": "<e>", "extra_special_tokens": ["<x>"],
                "added_tokens_decoder": {"9": {"content": "<late>"}, "3": {"content": "<u>"}}}"#,
        );
        let mut tokenizer = tokenizers::Tokenizer::new(tokenizers::models::bpe::BPE::default());
        tokens.add_to(&mut tokenizer).unwrap();
        let added: Vec<(String, bool)> = (0..4)
            .map(|id| tokenizer.get_added_tokens_decoder()[&id].clone())
            .map(|t| (t.content, t.special))
            .collect();
        let expected = [("<u>", true), ("<late>", false), ("<e>", true), ("<x>", true)];
        assert_eq!(added, expected.map(|(content, special)| (content.to_owned(), special)));
    }
}
