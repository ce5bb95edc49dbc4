#!/usr/bin/env python3
"""Writes tokenizer.json for the vocabulary in a GGUF file; knows no model. Usage: gguf_vocabulary.py FILE FOLDER

For byte-level BPE (gpt2) only, such as ggml-vocab-llama-bpe.gguf in the source package llama_cpp_python.
"""

import json
import os
import struct
import sys

# Type of a value in GGUF: format of one, or None for strings and lists.
FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 8: None, 9: None, 10: "Q", 11: "q", 12: "d"}
STRING, LIST = 8, 9
CONTROL, USER_DEFINED = 3, 4


def value(file, kind):
    if kind == STRING:
        return file.read(number(file, "Q")).decode()
    if kind == LIST:
        of, count = number(file, "I"), number(file, "Q")
        return [value(file, of) for _ in range(count)]
    return number(file, FORMATS[kind])


def number(file, form):
    return struct.unpack("<" + form, file.read(struct.calcsize(form)))[0]


def metadata(path):
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            sys.exit(f"{path} is no GGUF file")
        number(file, "I")
        number(file, "Q")
        count = number(file, "Q")
        return {value(file, STRING): value(file, number(file, "I")) for _ in range(count)}


def main(path, folder):
    found = metadata(path)
    if found["tokenizer.ggml.model"] != "gpt2":
        sys.exit(f"{path}: the tokenizer is {found['tokenizer.ggml.model']}, not gpt2")
    tokens, kinds = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    added = [
        {"id": id, "content": token, "special": kind == CONTROL, "normalized": False,
         "single_word": False, "lstrip": False, "rstrip": False}
        for id, (token, kind) in enumerate(zip(tokens, kinds)) if kind in (CONTROL, USER_DEFINED)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    names = {token["content"] for token in added}
    vocab = {token: id for id, token in enumerate(tokens) if token not in names}
    merges = [merge.split(" ") for merge in found["tokenizer.ggml.merges"]]
    model = {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": True}
    file = {"version": "1.0", "added_tokens": added, "pre_tokenizer": byte_level, "decoder": byte_level, "model": model}
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as out:
        json.dump(file, out, ensure_ascii=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
