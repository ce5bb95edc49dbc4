//! generation_config.json: settings by a model's authors that hold if a client sets none; knows no request.

use std::path::Path;

use crate::keys::{self, GENERATION, Unknown};
use crate::{Fields, ModelConfig, ModelFileError};

/// Keys of text generation.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The keys, from generation_config.json or, without that file, from config.json.
    pub fields: Fields,
    /// Keys that are in no table.
    pub unknown: Unknown,
}

impl Generation {
    /// Reads generation_config.json of a model folder, or, as in transformers, the same keys of config.json if that
    /// file is missing. Fails if a file cannot be read or asks for what is not built; the error names the key.
    pub fn read(folder: &Path, config: &ModelConfig) -> Result<Generation, ModelFileError> {
        Generation::of(Fields::read(&folder.join(GENERATION.file))?, config)
    }

    /// Reads the same from the object of the file, if there is one; the error names a key that asks for what is not
    /// built.
    pub fn of(file: Option<Fields>, config: &ModelConfig) -> Result<Generation, ModelFileError> {
        let fields = file.unwrap_or_else(|| Fields::of(config.fields.file(), keys::known(&GENERATION, &config.fields)));
        let unknown = GENERATION.check(&fields)?;
        Ok(Generation { fields, unknown })
    }

    /// Sorted tokens that end an output, from these keys or else config.json. Fails if one is not of this vocabulary.
    pub fn end_tokens(&self, config: &ModelConfig) -> Result<Vec<u32>, ModelFileError> {
        const KEY: &str = "eos_token_id";
        let (named, mut ids) = match self.fields.token_ids(KEY)? {
            ids if ids.is_empty() => (&config.fields, config.fields.token_ids(KEY)?),
            ids => (&self.fields, ids),
        };
        let vocab = config.vocab()?;
        if let Some(id) = ids.iter().find(|id| **id >= vocab) {
            return Err(named.problem(KEY, format!("names token {id}, the vocabulary has {vocab} entries")));
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(config: &str, generation: Option<&str>) -> Result<Vec<u32>, String> {
        let fields = |name: &str, text: &str| Fields::parse(Path::new(name), text).unwrap();
        let config = ModelConfig::of(fields("config.json", config)).unwrap();
        let generation = generation.map(|text| fields("generation_config.json", text));
        let generation = Generation::of(generation, &config).map_err(|error| error.to_string())?;
        generation.end_tokens(&config).map_err(|error| error.to_string())
    }

    const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 100, "eos_token_id": 1}"#;

    #[test]
    fn the_generation_file_wins_where_it_names_any() {
        assert_eq!(ends(CONFIG, Some(r#"{"eos_token_id": [9, 7, 9]}"#)), Ok(vec![7, 9]));
        assert_eq!(ends(CONFIG, Some("{}")), Ok(vec![1]));
        assert_eq!(ends(CONFIG, Some(r#"{"eos_token_id": []}"#)), Ok(vec![1]));
        assert_eq!(ends(CONFIG, None), Ok(vec![1]));
        assert_eq!(ends(r#"{"model_type": "llama"}"#, None), Ok(vec![]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file() {
        let said = ends(CONFIG, Some(r#"{"eos_token_id": 5000}"#)).unwrap_err();
        assert_eq!(said, "generation_config.json: eos_token_id names token 5000, the vocabulary has 100 entries");
        let said = ends(r#"{"model_type": "llama", "vocab_size": 100, "eos_token_id": 100}"#, Some("{}")).unwrap_err();
        assert_eq!(said, "config.json: eos_token_id names token 100, the vocabulary has 100 entries");
        let said = ends(CONFIG, Some(r#"{"eos_token_id": "</s>"}"#)).unwrap_err();
        assert!(said.ends_with("eos_token_id must be a token id or a list of token ids, found \"</s>\""), "{said}");
    }

    #[test]
    fn without_the_file_config_json_is_asked() {
        let beams = r#"{"model_type": "llama", "num_beams": 4}"#;
        assert!(ends(beams, None).unwrap_err().starts_with("config.json: num_beams 4 is not supported (beam search)"));
        assert_eq!(ends(beams, Some("{}")), Ok(vec![]));
    }
}
