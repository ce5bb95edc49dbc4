"""Writes a Llama-type model directory with a byte-level BPE tokenizer as a GGUF file in bf16 for llama.cpp.

usage: to_gguf.py MODEL_DIR OUT.gguf    needs the Python packages gguf and numpy
"""

import json
import struct
import sys
from pathlib import Path

import gguf
import numpy

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def main(source, target):
    source = Path(source)
    config = json.loads((source / "config.json").read_text())
    writer = gguf.GGUFWriter(target, "llama")
    describe(writer, config)
    vocabulary(writer, json.loads((source / "tokenizer.json").read_text()), config["vocab_size"])
    for name, values in tensors(source / "model.safetensors"):
        add(writer, named(name), values, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def describe(writer, config):
    heads, head_dim = config["num_attention_heads"], config["hidden_size"] // config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.get("rope_theta", 10_000.0))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)


def vocabulary(writer, tokenizer, size):
    words = {number: word for word, number in tokenizer["model"]["vocab"].items()}
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    words.update(special)
    kinds = [gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL for number in range(size)]
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([words.get(number, f"[unused{number}]") for number in range(size)])
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)


def tensors(path):
    """Names and values, as they lie in the file: bf16 as 16-bit words."""
    data = numpy.memmap(path, dtype=numpy.uint8, mode="r")
    (length,) = struct.unpack("<Q", data[:8].tobytes())
    for name, about in json.loads(data[8 : 8 + length].tobytes()).items():
        if name != "__metadata__":
            if about["dtype"] != "BF16":
                raise SystemExit(f"{name} is {about['dtype']}, expected BF16")
            begin, end = about["data_offsets"]
            yield name, data[8 + length + begin : 8 + length + end].view(numpy.uint16).reshape(about["shape"])


def named(name):
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def add(writer, name, values, config):
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config.get("num_key_value_heads")}
    kind = name.split(".")[-2]
    if heads.get(kind):
        # llama.cpp rotates neighbours, where the model has halves.
        rows, columns = values.shape
        values = values.reshape(heads[kind], 2, rows // heads[kind] // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    if values.ndim == 1:
        wide = (values.astype(numpy.uint32) << 16).view(numpy.float32)
        return writer.add_tensor(name, wide)
    words = numpy.ascontiguousarray(values)
    writer.add_tensor(name, words.view(numpy.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
