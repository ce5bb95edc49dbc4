//! Keys of the files behind a tokenizer, as transformers 5.24.0 reads them beside a tokenizer.json.

use super::{Key, Table, ignored, nullable, refused};

/// Keys of tokenizer_config.json.
pub const TOKENIZER_CONFIG: Table =
    Table { file: "tokenizer_config.json", groups: &[NAMED, TOKENS, CONFIG], endings: ENDINGS, classes: &[] };

/// Keys of special_tokens_map.json, which is read if tokenizer_config.json has no `added_tokens_decoder`, and then wins
/// over tokenizer_config.json.
pub const SPECIAL_TOKENS_MAP: Table =
    Table { file: "special_tokens_map.json", groups: &[NAMED, TOKENS], endings: ENDINGS, classes: &[] };

/// Keys of added_tokens.json, which are tokens; read if tokenizer_config.json has no `added_tokens_decoder`.
pub const ADDED_TOKENS: Table = Table { file: "added_tokens.json", groups: &[], endings: ADDED, classes: &[] };

/// Keys of tokenizer.json.
pub const TOKENIZER: Table = Table { file: "tokenizer.json", groups: &[JSON], endings: &[], classes: &[] };

const TEMPLATE: &str = "a variable of chat templates, and a control token";

const NAMED: &[Key] = &[
    nullable("bos_token", "null", TEMPLATE),
    nullable("eos_token", "null", "a variable of chat templates, a control token, and ends answers"),
    nullable("unk_token", "null", TEMPLATE),
    nullable("sep_token", "null", TEMPLATE),
    nullable("pad_token", "null", "as `bos_token`; without it the one of `padding` in tokenizer.json"),
    nullable("cls_token", "null", TEMPLATE),
    nullable("mask_token", "null", TEMPLATE),
];

const TOKENS: &[Key] = &[
    nullable(
        "extra_special_tokens",
        "null",
        "control tokens; where they have names, these are variables of chat templates",
    ),
    nullable("additional_special_tokens", "null", "the older name of `extra_special_tokens`"),
    nullable(
        "model_specific_special_tokens",
        "null",
        "control tokens with names, which are variables of chat templates",
    ),
];

const ENDINGS: &[Key] = &[nullable("_token", "null", "any such name with a token: as `bos_token`")];

const ADDED: &[Key] =
    &[nullable("", "null", "every key is a token, its value the id: added where tokenizer.json does not have it")];

const BUILT: &str = "how a tokenizer.json is made; it is there already";
const PYTHON: &str = "how Python calls it";

const CONFIG: &[Key] = &[
    nullable(
        "chat_template",
        "null",
        "a template, or several by name, of which `default` counts; chat_template.jinja wins",
    ),
    nullable("added_tokens_decoder", "null", "tokens by id: added where tokenizer.json does not have them so"),
    refused("split_special_tokens", &["false", "null"], "control tokens in texts would be cut to pieces"),
    refused("fix_mistral_regex", &["false", "null"], "another pre-tokenizer than that of tokenizer.json"),
    refused("do_lower_case", &["false", "null"], "the normalizer of tokenizer.json counts"),
    ignored("tokenizer_class", "tokenizer.json says all"),
    ignored("model_max_length", "`max_position_embeddings` and `engine.context_max` bound a request"),
    ignored("max_len", "as `model_max_length`"),
    ignored("add_bos_token", "the post-processor of tokenizer.json says what frames a text"),
    ignored("add_eos_token", "the post-processor of tokenizer.json says what frames a text"),
    ignored("add_prefix_space", BUILT),
    ignored("legacy", BUILT),
    ignored("from_slow", BUILT),
    ignored("sp_model_kwargs", BUILT),
    ignored("vocab_file", BUILT),
    ignored("merges_file", BUILT),
    ignored("tokenizer_file", BUILT),
    ignored("special_tokens_map_file", BUILT),
    ignored("name_or_path", BUILT),
    ignored("init_inputs", BUILT),
    ignored("use_fast", BUILT),
    ignored("backend", BUILT),
    ignored("is_local", BUILT),
    ignored("local_files_only", BUILT),
    ignored("auto_map", "code of the folder is never run"),
    ignored("trust_remote_code", "code of the folder is never run"),
    ignored("processor_class", ""),
    ignored("device_map", ""),
    ignored("errors", PYTHON),
    ignored("clean_up_tokenization_spaces", "answers have the spaces that their tokens have"),
    ignored("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", "as before"),
    ignored("spaces_between_special_tokens", "answers have the spaces that their tokens have"),
    ignored("use_default_system_prompt", "the template says it"),
    ignored("model_input_names", PYTHON),
    ignored("padding_side", "nothing is padded"),
    ignored("pad_token_type_id", "nothing is padded"),
    ignored("pad_to_multiple_of", "nothing is padded"),
    ignored("padding", "nothing is padded"),
    ignored("truncation_side", "nothing is cut"),
    ignored("truncation", "nothing is cut"),
    ignored("truncation_strategy", "nothing is cut"),
    ignored("stride", "nothing is cut"),
    ignored("max_length", "nothing is cut"),
    ignored("verbose", PYTHON),
    ignored("response_template", "how Python takes answers apart"),
    ignored("response_schema", "how Python takes answers apart"),
    ignored("chat_control_tokens", "which tokens are control tokens is said by the tokens themselves"),
];

const JSON: &[Key] = &[
    nullable("added_tokens", "null", "tokens that are taken out of texts first"),
    nullable("normalizer", "null", "may make a text 64 times longer at most"),
    nullable("pre_tokenizer", "null", ""),
    nullable(
        "model",
        "null",
        "BPE, WordPiece, WordLevel or Unigram; must be there; draws no lots (`dropout`, `alpha`)",
    ),
    nullable("post_processor", "null", "what frames a text"),
    nullable("decoder", "null", "must turn tokens into bytes one by one"),
    nullable("padding", "null", "nothing is padded, but its token is the default of `pad_token`"),
    ignored("truncation", "no prompt is cut silently"),
    ignored("version", ""),
];
