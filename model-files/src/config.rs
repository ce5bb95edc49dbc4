//! config.json: the family of a model, and its keys with that family's defaults; knows no shape.

use std::path::Path;

use serde_json::Value;

use crate::keys::{self, Table, Unknown};
use crate::{CONTEXT_MAX, Family, Fields, ModelFileError, VOCAB_MAX};

/// A config.json that asks only for what is built.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// Family of the model.
    pub family: Family,
    /// Keys of config.json, with the defaults of the family's class for absent ones.
    pub fields: Fields,
    /// Keys that are in no table.
    pub unknown: Unknown,
}

impl ModelConfig {
    /// Reads config.json of a model folder. Fails if it is missing, unreadable, or has a key that asks for what is not
    /// built.
    pub fn read(folder: &Path) -> Result<ModelConfig, ModelFileError> {
        let file = folder.join("config.json");
        let missing = || ModelFileError::Read { file: file.clone(), reason: "there is no such file".to_owned() };
        ModelConfig::of(Fields::read(&file)?.ok_or_else(missing)?)
    }

    /// Reads the same from the object of a config.json. Fails if a key asks for what is not built.
    pub fn of(fields: Fields) -> Result<ModelConfig, ModelFileError> {
        let family = family(&fields)?;
        let table = Table::config(family);
        let unknown = table.check(&fields)?;
        let fields = fields.with_defaults(keys::defaults(&table));
        Ok(ModelConfig { family, fields, unknown })
    }

    /// Size of the vocabulary: every token id is below. Fails if the value is of another type or out of range.
    pub fn vocab(&self) -> Result<u32, ModelFileError> {
        self.fields.count_to("vocab_size", VOCAB_MAX)
    }

    /// Longest sequence that the model was made for, in tokens. Fails if the value is of another type or out of range.
    pub fn context_tokens(&self) -> Result<u32, ModelFileError> {
        self.fields.count_to("max_position_embeddings", CONTEXT_MAX)
    }
}

/// Family by `architectures`, or else by `model_type`. transformers uses the type, so the two must not disagree.
fn family(fields: &Fields) -> Result<Family, ModelFileError> {
    let model_type = fields.text_opt("model_type")?;
    let by_type = model_type.and_then(|name| Family::ALL.into_iter().find(|family| family.model_type() == name));
    let Some(named) = fields.texts_opt("architectures")?.filter(|named| !named.is_empty()) else {
        return match (by_type, model_type) {
            (Some(family), _) => Ok(family),
            (None, Some(name)) => {
                Err(fields.problem("model_type", unsupported(&format!("{name:?}"), Family::model_type)))
            }
            (None, None) => Err(fields.problem("architectures", "is missing")),
        };
    };
    let by_name = named.iter().find_map(|name| Family::ALL.into_iter().find(|family| family.architecture() == *name));
    let Some(family) = by_name else {
        return Err(fields.problem("architectures", unsupported(&shown(&named), Family::architecture)));
    };
    match model_type {
        Some(name) if by_type != Some(family) => {
            let problem = format!("is {name:?}, but architectures names {}", family.architecture());
            Err(fields.problem("model_type", problem))
        }
        Some(_) | None => Ok(family),
    }
}

fn shown(named: &[&str]) -> String {
    const NAMES_MAX: usize = 4;
    let named: Vec<Value> = named.iter().take(NAMES_MAX).map(|name| Value::from(*name)).collect();
    Value::from(named).to_string()
}

fn unsupported(found: &str, name: fn(Family) -> &'static str) -> String {
    format!("{found} is not supported; supported are {}", Family::ALL.map(name).join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(config: &Value) -> Result<ModelConfig, ModelFileError> {
        ModelConfig::of(Fields::parse(Path::new("config.json"), &config.to_string()).unwrap())
    }

    #[test]
    fn the_family_is_named_by_either_key() {
        let mistral = of(&json!({"architectures": ["MistralForCausalLM"]})).unwrap();
        assert_eq!(
            (mistral.family, mistral.vocab(), mistral.context_tokens()),
            (Family::Mistral, Ok(32_000), Ok(131_072))
        );
        assert_eq!(of(&json!({"model_type": "opt", "architectures": []})).unwrap().family, Family::Opt);
    }

    #[test]
    fn names_that_disagree_or_are_unknown_are_refused() {
        let refused = |config: Value| of(&config).unwrap_err().to_string();
        let both = refused(json!({"architectures": ["LlamaForCausalLM"], "model_type": "mistral"}));
        assert_eq!(both, "config.json: model_type is \"mistral\", but architectures names LlamaForCausalLM");
        assert!(
            refused(json!({"model_type": "gemma3"}))
                .contains("model_type \"gemma3\" is not supported; supported are llama")
        );
        assert!(
            refused(json!({"architectures": ["BertModel"]})).contains("architectures [\"BertModel\"] is not supported")
        );
        assert_eq!(refused(json!({})), "config.json: architectures is missing");
        assert!(
            refused(json!({"architectures": "LlamaForCausalLM"})).contains("architectures must be a list of strings")
        );
    }

    #[test]
    fn keys_of_another_family_are_refused_when_they_ask_for_something() {
        let llama = |key: &str, value: Value| {
            of(&json!({"architectures": ["LlamaForCausalLM"], key: value})).map(|config| config.unknown)
        };
        let said = llama("do_layer_norm_before", json!(true)).unwrap_err().to_string();
        assert_eq!(said, "config.json: do_layer_norm_before is true, which this family of models does not have");
        assert_eq!(llama("do_layer_norm_before", json!(false)), Ok(vec!["do_layer_norm_before".to_owned()]));
        assert_eq!(llama("brand_new_key", json!({"a": 1})), Ok(vec!["brand_new_key".to_owned()]));
    }
}
