"""Writes `held_out.txt`: documents that training has not drawn, as the chat template writes them.

`python held_out.py`. Needs only Python; the engine's `quality` example measures on it.
"""

import random
from pathlib import Path

import corpus

# Training draws from the seeds 1, 2, 3 and 20,000, the tokenizer from 10,000.
SEED = 30_000
DOCUMENTS = 240


def as_text(document: corpus.Document) -> str:
    """A document with its special tokens spelt out."""
    if isinstance(document, str):
        return f"<|bos|>{document}<|eos|>"
    return "<|bos|>" + "".join(f"<|im_start|>{m['role']}\n{m['content'].strip()}<|im_end|>\n" for m in document)


def main() -> None:
    rng = random.Random(SEED)
    text = "".join(as_text(corpus.document(rng)) for _ in range(DOCUMENTS))
    (Path(__file__).resolve().parent / "held_out.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
