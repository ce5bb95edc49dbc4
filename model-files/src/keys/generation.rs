//! Keys of generation_config.json, as transformers 5.24.0 has them.
//!
//! These are the model authors' settings for what a client leaves open. A setting that would change answers and cannot
//! be honoured is refused; a setting of how Python computes has no effect.

use super::{Key, Table, ignored, nullable, refused};

/// Keys of generation_config.json; without that file, config.json takes its place.
pub const GENERATION: Table =
    Table { file: "generation_config.json", groups: &[HONOURED, REFUSED, IGNORED], endings: &[], classes: &[] };

const HONOURED: &[Key] = &[
    nullable("eos_token_id", "null", "ends answers; a number or a list. Without it `eos_token_id` of config.json does"),
    nullable("do_sample", "null", "false is greedy, whatever the temperature"),
    nullable("temperature", "null", "default of `temperature`"),
    nullable("top_k", "null", "default of `top_k`"),
    nullable("top_p", "null", "default of `top_p`"),
    nullable("min_p", "null", "default of `min_p`"),
    nullable("repetition_penalty", "null", "default of `repetition_penalty`"),
    nullable("max_new_tokens", "null", "default of `max_tokens`"),
    nullable(
        "max_length",
        "null",
        "without `max_new_tokens`: most tokens of prompt and answer together, for requests without `max_tokens`; 20 is transformers' own default and says nothing",
    ),
    nullable("min_new_tokens", "null", "default of `min_tokens`"),
    nullable(
        "min_length",
        "null",
        "without `min_new_tokens`: fewest tokens of prompt and answer together, for requests without `min_tokens`",
    ),
];

const REFUSED: &[Key] = &[
    refused("num_beams", &["1", "null"], "beam search"),
    refused("num_beam_groups", &["1", "null"], "beam search"),
    refused("constraints", &["null", "[]"], "beam search"),
    refused("force_words_ids", &["null", "[]"], "beam search"),
    refused("penalty_alpha", &["0", "null"], "contrastive search"),
    refused("dola_layers", &["null"], "decoding by contrasting layers"),
    refused("typical_p", &["1", "null"], "typical sampling"),
    refused("top_h", &["null"], "sampling by entropy"),
    refused("epsilon_cutoff", &["0", "null"], "cut-off by probability"),
    refused("eta_cutoff", &["0", "null"], "cut-off by entropy"),
    refused("no_repeat_ngram_size", &["0", "null"], "a ban on repeated n-grams"),
    refused("encoder_no_repeat_ngram_size", &["0", "null"], "a ban on n-grams of the prompt"),
    refused("encoder_repetition_penalty", &["1", "null"], "a reward for tokens of the prompt"),
    refused("bad_words_ids", &["null", "[]"], "a ban on words"),
    refused("suppress_tokens", &["null", "[]"], "a ban on tokens"),
    refused("begin_suppress_tokens", &["null", "[]"], "a ban on first tokens"),
    refused("sequence_bias", &["null", "{}", "[]"], "a bias for sequences"),
    refused("forced_bos_token_id", &["null"], "a first token that is always the same"),
    refused("forced_eos_token_id", &["null"], "a last token that is always the same"),
    refused("exponential_decay_length_penalty", &["null"], "a reward for the end token"),
    refused("stop_strings", &["null", "[]"], "send `stop` with the request"),
    refused("max_time", &["null"], "a time limit on answers"),
    refused("token_healing", &["false", "null"], "a change of the prompt's last token"),
    refused("guidance_scale", &["1", "null"], "classifier-free guidance"),
    refused("watermarking_config", &["null"], "a watermark"),
];

const COMPUTES: &str = "how Python computes";
const GIVES: &str = "what Python code gets back";
const GUESSES: &str = "guessing ahead, which changes no answer";
const BEAMS: &str = "counts with beams only";

const IGNORED: &[Key] = &[
    ignored("bos_token_id", "the tokenizer says what begins a text"),
    ignored("pad_token_id", "nothing is padded"),
    ignored("decoder_start_token_id", "for encoder-decoders"),
    ignored("transformers_version", ""),
    ignored("_from_model_config", ""),
    ignored("_commit_hash", ""),
    ignored("_original_object_hash", ""),
    ignored("num_return_sequences", "a client asks with `n`"),
    ignored("renormalize_logits", "what is sampled from is always normalised"),
    ignored("remove_invalid_values", "values that are no numbers end a request"),
    ignored("early_stopping", BEAMS),
    ignored("length_penalty", BEAMS),
    ignored("diversity_penalty", BEAMS),
    ignored("low_memory", BEAMS),
    ignored("use_cache", COMPUTES),
    ignored("cache_implementation", COMPUTES),
    ignored("cache_config", COMPUTES),
    ignored("max_cache_len", COMPUTES),
    ignored("prefill_chunk_size", COMPUTES),
    ignored("compile_config", COMPUTES),
    ignored("disable_compile", COMPUTES),
    ignored("continuous_batching_config", COMPUTES),
    ignored("output_attentions", GIVES),
    ignored("output_hidden_states", GIVES),
    ignored("output_scores", GIVES),
    ignored("output_logits", GIVES),
    ignored("return_dict_in_generate", GIVES),
    ignored("use_mtp", GUESSES),
    ignored("is_assistant", GUESSES),
    ignored("num_assistant_tokens", GUESSES),
    ignored("num_assistant_tokens_schedule", GUESSES),
    ignored("assistant_confidence_threshold", GUESSES),
    ignored("prompt_lookup_num_tokens", GUESSES),
    ignored("max_matching_ngram_size", GUESSES),
    ignored("assistant_early_exit", GUESSES),
    ignored("assistant_lookbehind", GUESSES),
    ignored("target_lookbehind", GUESSES),
    ignored("assistant_ensemble_weight", GUESSES),
    ignored("speculation_type", GUESSES),
];
