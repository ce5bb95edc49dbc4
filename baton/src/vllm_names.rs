//! Options of `baton serve` under the names that vLLM gives them, and advice for those that it does not have; knows no
//! value's meaning.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, ValueEnum};
use toml::Value;

/// Settings under vLLM's names; each is one key of the configuration.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "As in vLLM")]
pub struct VllmNames {
    /// Names under which clients may call the model (engine.model_name, router.model_names).
    #[arg(long, value_name = "NAME", num_args = 1..)]
    served_model_name: Vec<String>,
    /// Longest sequence, prompt and output, in tokens (engine.context_max).
    #[arg(long, value_name = "TOKENS")]
    max_model_len: Option<u32>,
    /// Format of the weights (engine.dtype).
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Format of stored keys and values (engine.kv_dtype).
    #[arg(long, value_enum)]
    kv_cache_dtype: Option<Dtype>,
    /// Ranks that share every layer of a worker (engine.tp).
    #[arg(long, value_name = "RANKS", visible_alias = "tp")]
    tensor_parallel_size: Option<u32>,
    /// Groups of layers, each with its own ranks (engine.pp).
    #[arg(long, value_name = "STAGES", visible_alias = "pp")]
    pipeline_parallel_size: Option<u32>,
    /// Sequences that run at the same time in one worker (engine.sequences_max).
    #[arg(long, value_name = "SEQUENCES")]
    max_num_seqs: Option<u32>,
    /// Rows of one step (engine.step_tokens_max).
    #[arg(long, value_name = "TOKENS")]
    max_num_batched_tokens: Option<u32>,
    /// Tokens per KV block (engine.block_tokens).
    #[arg(long, value_name = "TOKENS")]
    block_size: Option<u32>,
    /// Reuse the KV of equal prefixes, as is the default (engine.prefix_cache).
    #[arg(long, overrides_with = "no_enable_prefix_caching")]
    enable_prefix_caching: bool,
    /// Do not.
    #[arg(long)]
    no_enable_prefix_caching: bool,
}

/// Number format, as vLLM and as the configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dtype {
    /// What the files have.
    Auto,
    /// 32 bits.
    #[value(alias = "f32", alias = "float")]
    Float32,
    /// 16 bits, the upper half of f32.
    #[value(alias = "bf16")]
    Bfloat16,
    /// 8 bits and scales.
    Int8,
}

impl Dtype {
    const fn key(self) -> &'static str {
        match self {
            Dtype::Auto => "auto",
            Dtype::Float32 => "f32",
            Dtype::Bfloat16 => "bf16",
            Dtype::Int8 => "int8",
        }
    }
}

impl VllmNames {
    /// Returns the settings, as `--set` takes them.
    #[must_use]
    pub fn settings(&self) -> Vec<String> {
        let number = |value: Option<u32>| value.map(|number| Value::Integer(number.into()));
        let word = |value: Option<&str>| value.map(Value::from);
        let prefix_cache = match (self.enable_prefix_caching, self.no_enable_prefix_caching) {
            (_, true) => Some("off"),
            (true, false) => Some("on"),
            (false, false) => None,
        };
        let names = (!self.served_model_name.is_empty()).then(|| Value::from(self.served_model_name.clone()));
        let settings = [
            ("engine.model_name", word(self.served_model_name.first().map(String::as_str))),
            ("router.model_names", names),
            ("engine.context_max", number(self.max_model_len)),
            ("engine.dtype", word(self.dtype.map(Dtype::key))),
            ("engine.kv_dtype", word(self.kv_cache_dtype.map(Dtype::key))),
            ("engine.tp", number(self.tensor_parallel_size)),
            ("engine.pp", number(self.pipeline_parallel_size)),
            ("engine.sequences_max", number(self.max_num_seqs)),
            ("engine.step_tokens_max", number(self.max_num_batched_tokens)),
            ("engine.block_tokens", number(self.block_size)),
            ("engine.prefix_cache", word(prefix_cache)),
        ];
        settings.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?))).collect()
    }
}

/// Options of vLLM and its like that Baton does not have, and what to do instead.
const ADVICE: [(&str, &str); 26] = [
    ("--allowed-origins", "set router.allowed_origins"),
    ("--chat-template", "put it into the model's folder as chat_template.jinja"),
    ("--cpu-offload-gb", "leave it out: weights stay where the backend computes"),
    ("--data-parallel-size", "set serve.prefill_workers and serve.decode_workers"),
    ("--disable-log-requests", "leave it out: prompts are not logged"),
    ("--download-dir", "download the model first, for example with `hf download`, and name its folder"),
    ("--enable-auto-tool-choice", "leave it out: tools work where the model's template has them"),
    ("--enable-chunked-prefill", "leave it out: prompts are always computed in chunks"),
    ("--enable-lora", "merge the adapter into its base model; adapters are not served yet"),
    ("--enable-reasoning", "leave it out: reasoning is recognised from the model's template"),
    ("--enforce-eager", "leave it out: there are no captured graphs on this backend"),
    ("--gpu-memory-utilization", "set the size of the KV pool: --set engine.kv_pool=\"8 GiB\""),
    ("--guided-decoding-backend", "leave it out: there is one"),
    ("--kv-transfer-config", "set engine.transport; prefill and decode are placed by --mode"),
    ("--load-format", "leave it out: weights are read from safetensors files"),
    ("--max-logprobs", "leave it out: 20 alternatives can be asked for"),
    ("--model-path", "name it --model"),
    ("--quantization", "--dtype int8 rounds weights when they are loaded"),
    ("--reasoning-parser", "leave it out: reasoning is recognised from the model's template"),
    ("--revision", "download that revision first, and name its folder"),
    ("--seed", "send a seed with each request"),
    ("--swap-space", "leave it out: preempted requests are computed again"),
    ("--tokenizer", "leave it out: the tokenizer is read from the model's folder"),
    ("--tool-call-parser", "leave it out: the format of calls is recognised from the model's template"),
    ("--trust-remote-code", "leave it out: no code of a model's folder is run"),
    ("--uvicorn-log-level", "set telemetry.log"),
];

/// Returns what to do instead of an option that the command line has and Baton does not.
#[must_use]
pub fn advice(error: &clap::Error) -> Option<String> {
    let ContextValue::String(said) = error.get(ContextKind::InvalidArg)? else { return None };
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let option = said.split('=').next().unwrap_or_default().replace('_', "-");
    let (_, advice) = ADVICE.iter().find(|(known, _)| *known == option)?;
    Some(format!("baton has no {option}: {advice}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Arguments, Command};

    fn serve(options: &[&str]) -> Result<crate::config::BatonConfig, anyhow::Error> {
        let line = ["baton", "serve"].iter().chain(options);
        match Arguments::try_parse_from(line)?.command {
            Command::Serve(arguments) => arguments.config(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_name_sets_its_key() {
        let config = serve(&[
            "--served-model-name",
            "a",
            "b/c",
            "--max-model-len",
            "512",
            "--dtype",
            "bfloat16",
            "--kv-cache-dtype",
            "int8",
            "--tensor-parallel-size",
            "2",
            "--pp",
            "1",
            "--max-num-seqs",
            "7",
            "--max-num-batched-tokens",
            "64",
            "--block-size",
            "32",
            "--no-enable-prefix-caching",
        ])
        .unwrap();
        let engine = &config.engine;
        assert_eq!(
            (engine.model_name.as_str(), &config.router.model_names[..]),
            ("a", &["a".to_owned(), "b/c".to_owned()][..])
        );
        assert_eq!((engine.context_max, engine.tp, engine.pp), (512, 2, 1));
        assert_eq!((engine.dtype, engine.kv_dtype), (engine::WeightsDtype::Bf16, engine::KvDtypeChoice::Int8));
        assert_eq!((engine.sequences_max, engine.step_tokens_max, engine.block_tokens), (7, 64, 32));
        assert_eq!(engine.prefix_cache, engine::PrefixCacheChoice::Off);
        assert_eq!(serve(&["--set", "engine.tp=2", "--tp", "4"]).unwrap().engine.tp, 4, "the name wins over --set");
        assert_eq!(serve(&["--enable-prefix-caching"]).unwrap(), serve(&[]).unwrap());
    }

    #[test]
    fn what_does_not_exist_gets_advice() {
        for (option, known) in
            [("--gpu-memory-utilization=0.9", true), ("--tool_call_parser", true), ("--nonsense", false)]
        {
            let error = Arguments::try_parse_from(["baton", "serve", option]).unwrap_err();
            assert_eq!(advice(&error).is_some(), known, "{option}: {error}");
        }
        let error = Arguments::try_parse_from(["baton", "serve", "--dtype", "float16"]).unwrap_err();
        assert!(error.to_string().contains("possible values: auto, float32, bfloat16, int8"), "{error}");
        assert!(ADVICE.is_sorted(), "in alphabetical order");
    }
}
