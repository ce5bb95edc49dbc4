//! The chat templates among a model's files: where they may be, and which are used; knows no conversation.

use std::collections::BTreeMap;
use std::path::Path;

use model_files::{Fields, JSON_BYTES_MAX, ModelFileError, read_text};
use serde_json::Value;
use vocabulary::SpecialTokens;

use super::ChatTemplate;
use super::template::TemplateError;
use crate::Error;

/// Name of the template for conversations with tools.
const TOOL_USE: &str = "tool_use";
const CHAT_TEMPLATE: &str = "chat_template";

/// Returns the default template, and the one for conversations with tools where the model has both. Prefers
/// `chat_template.jinja` and `additional_chat_templates/` to `tokenizer_config.json`.
pub(super) fn load_templates(
    folder: &Path,
    config: Option<&Fields>,
    specials: &SpecialTokens,
) -> Result<(Option<ChatTemplate>, Option<ChatTemplate>), Error> {
    let tokens: BTreeMap<String, String> =
        specials.named().map(|(name, token)| (name.to_owned(), token.content.clone())).collect();
    let from_file = |path: &Path| match read_text(path, JSON_BYTES_MAX)? {
        Some(source) => {
            let wrong =
                |error: TemplateError| ModelFileError::File { file: path.to_path_buf(), problem: error.to_string() };
            compile(&source, tokens.clone(), wrong).map(Some)
        }
        None => Ok(None),
    };
    let default = from_file(&folder.join("chat_template.jinja"))?;
    let for_tools = from_file(&folder.join("additional_chat_templates").join(format!("{TOOL_USE}.jinja")))?;
    if default.is_some() {
        return Ok((default, for_tools));
    }
    let Some(config) = config else { return Ok((None, for_tools)) };
    let compile_named = |source: Option<&str>| {
        let wrong = |error| config.problem(CHAT_TEMPLATE, format!("cannot be used: {error}"));
        source.map(|source| compile(source, tokens.clone(), wrong)).transpose()
    };
    let sources = template_sources(config)?;
    Ok((
        compile_named(sources.default)?,
        for_tools.map_or_else(|| compile_named(sources.tool_use), |one| Ok(Some(one)))?,
    ))
}

fn compile(
    source: &str,
    tokens: BTreeMap<String, String>,
    wrong: impl FnOnce(TemplateError) -> ModelFileError,
) -> Result<ChatTemplate, Error> {
    ChatTemplate::compile(source, tokens).map_err(|error| match error {
        TemplateError::Lack(lack) => Error::Lack(lack.to_string()),
        error => wrong(error).into(),
    })
}

/// Templates of `tokenizer_config.json` that are used.
#[derive(Debug, Default)]
struct Sources<'a> {
    default: Option<&'a str>,
    tool_use: Option<&'a str>,
}

/// Returns the only template, or `default` and `tool_use` among several: a list of names and templates, or an object of
/// them.
fn template_sources(config: &Fields) -> Result<Sources<'_>, ModelFileError> {
    const EXPECTED: &str = "a string, an object of strings by name, or a list of objects with name and template";
    let mut named: Vec<(&str, &str)> = Vec::new();
    match config.get(CHAT_TEMPLATE) {
        None => return Ok(Sources::default()),
        Some(Value::String(source)) => return Ok(Sources { default: Some(source), tool_use: None }),
        Some(Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                let wrong =
                    || config.wrong(&format!("{CHAT_TEMPLATE}[{index}]"), "an object with name and template", value);
                let text = |key: &str| value.get(key).and_then(Value::as_str);
                let both = text("name").zip(text("template"));
                named.push(both.ok_or_else(wrong)?);
            }
        }
        Some(Value::Object(map)) => {
            for (name, value) in map {
                let wrong = || config.wrong(&format!("{CHAT_TEMPLATE}.{name}"), "a string", value);
                named.push((name, value.as_str().ok_or_else(wrong)?));
            }
        }
        Some(other) => return Err(config.wrong(CHAT_TEMPLATE, EXPECTED, other)),
    }
    let find = |wanted: &str| named.iter().find(|(name, _)| *name == wanted).map(|(_, source)| *source);
    if find("default").is_none() && !named.is_empty() {
        let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
        return Err(config.problem(CHAT_TEMPLATE, format!("has no template called default, only {}", names.join(", "))));
    }
    Ok(Sources { default: find("default"), tool_use: find(TOOL_USE) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::super::model_text::tests::Dir;
    use super::super::{GenerationPrompt, ModelText, Tooling};

    fn shown(files: &[(&str, &str)], tooling: Tooling) -> String {
        let dir = Dir::with("templates", &[]);
        std::fs::create_dir_all(dir.0.join("additional_chat_templates")).unwrap();
        for (file, text) in files {
            std::fs::write(dir.0.join(file), text).unwrap();
        }
        let model = ModelText::load(&dir.0).unwrap();
        let template = model.template_for(tooling).unwrap();
        template.render(&[], GenerationPrompt::Add, &Map::new()).unwrap().text
    }

    #[test]
    fn conversations_with_tools_have_a_template_of_their_own_where_the_model_has_one() {
        let both = json!({"chat_template": [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]});
        let both = both.to_string();
        let config = ("tokenizer_config.json", both.as_str());
        let folder = ("additional_chat_templates/tool_use.jinja", "folder");
        let file = ("chat_template.jinja", "file");
        assert_eq!(shown(&[config], Tooling::Offered), "tools");
        assert_eq!(shown(&[config], Tooling::Absent), "plain");
        assert_eq!(shown(&[config, folder], Tooling::Offered), "folder");
        assert_eq!(shown(&[file, config], Tooling::Offered), "file", "the file stands for all of the configuration");
        assert_eq!(shown(&[file, folder], Tooling::Offered), "folder");
        assert_eq!(shown(&[file, folder], Tooling::Absent), "file");
        assert_eq!(shown(&[("tokenizer_config.json", r#"{"chat_template": "one"}"#)], Tooling::Offered), "one");
    }
}
