"""Makes the bundled model: the tokenizer, the weights and their configuration, in the folder above this one.

Requirements: torch==2.15.0 transformers==5.23.0 tokenizers safetensors (CPU is enough).
`python train.py [--out DIR] [--stage N]`. Knows nothing about what the corpus says.
"""

import argparse
import json
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # A spinning thread is slow on a machine that others use too.

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

import corpus

BOS, EOS, IM_START, IM_END, PAD = range(5)
SPECIAL = ["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
VOCAB = 2048
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('the demo model knows the roles system, user and assistant, not ' + message['role']) }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Lengths of the rows of a step and how often each is drawn.
ROW_TOKENS = [256, 512, 1024]
ROW_WEIGHTS = [0.72, 0.2, 0.08]


def make_tokenizer(seed: int) -> Tokenizer:
    """A byte-level BPE in which every digit stands alone, trained on the corpus."""
    rng = random.Random(seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = (
        text if isinstance(text, str) else "\n".join(m["content"] for m in text) for text in (corpus.document(rng) for _ in range(20_000))
    )
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", BOS)])
    return tokenizer


@dataclass(frozen=True)
class Stage:
    """One pass of training: what is read (given how much of the stage is done), how much of it, and how fast the weights move."""

    document: Callable[[random.Random, float, bool], corpus.Document]
    steps: int
    step_tokens: int
    matrix_rate: float
    other_rate: float
    flat: float
    seed: int


# The first stage learns the language and the facts. Looking back and copying (names above all) hardly begins in it, because few tokens
# of ordinary text depend on it; the second stage makes many tokens depend on it. It forgets facts on the way, which the last one restores.
STAGES = [
    Stage(lambda rng, _, longest: corpus.document(rng, longest), 1300, 4096, 0.02, 4e-3, flat=0.0, seed=1),
    Stage(corpus.copying_document, 1000, 2048, 0.02, 3e-3, flat=0.4, seed=2),
    Stage(lambda rng, _, longest: corpus.settling_document(rng, longest), 700, 4096, 0.02, 3e-3, flat=0.0, seed=3),
]


class Encoder:
    """Turns documents into token ids and says which of them the loss counts: plain text, and what the assistant says."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._newline = self._ids("\n")
        self._assistant = [IM_START, *self._ids("assistant\n")]

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def __call__(self, document: list[dict[str, str]] | str) -> tuple[list[int], list[bool]]:
        if isinstance(document, str):
            ids = self._ids(document)
            return [BOS, *ids, EOS], [False] + [True] * (len(ids) + 1)
        ids, counted = [BOS], [False]
        for message in document:
            if message["role"] == "assistant":
                said = [*self._ids(message["content"]), IM_END]
                part, counts = self._assistant + said + self._newline, [False] * len(self._assistant) + [True] * len(said) + [False] * len(
                    self._newline
                )
            else:
                part = [IM_START, *self._ids(f"{message['role']}\n{message['content']}"), IM_END, *self._newline]
                counts = [False] * len(part)
            ids, counted = ids + part, counted + counts
        return ids, counted


class Batches:
    """Packs whole documents into rows; a token sees only its own document."""

    def __init__(self, encoder: Encoder, stage: Stage, seed: int) -> None:
        self._encoder, self._stage, self._rng = encoder, stage, random.Random(seed)
        self._spare: list[tuple[list[int], list[bool]]] = []
        self._progress = 0.0

    def next(self, progress: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids, targets (-100 where the loss does not count) and the attention mask of one step."""
        self._progress = progress
        tokens = self._rng.choices(ROW_TOKENS, ROW_WEIGHTS)[0]
        rows = self._stage.step_tokens // tokens
        ids, targets = torch.full((rows, tokens), PAD), torch.full((rows, tokens), -100)
        owner = torch.full((rows, tokens), -1)
        for row in range(rows):
            self._fill(ids[row], targets[row], owner[row], tokens)
        visible = torch.tril(torch.ones(tokens, tokens, dtype=torch.bool)) & (owner[:, None, :] == owner[:, :, None])
        return ids, targets, visible[:, None]

    def _fill(self, ids: torch.Tensor, targets: torch.Tensor, owner: torch.Tensor, tokens: int) -> None:
        at, number = 0, 0
        while (found := self._fitting(tokens - at, tokens)) is not None:
            document, counted = found
            end = at + len(document)
            ids[at:end] = torch.tensor(document)
            targets[at : end - 1] = torch.tensor([t if c else -100 for t, c in zip(document[1:], counted[1:], strict=True)])
            owner[at:end] = number
            at, number = end, number + 1

    def _fitting(self, room: int, tokens: int) -> tuple[list[int], list[bool]] | None:
        """A document for the room that is left: at the start of a row any that fits, later the longest that fits."""
        self._refill(shortest_row=ROW_TOKENS[0])
        if tokens > ROW_TOKENS[0] and room == tokens:
            document = self._drawn(longest=True)
            if len(document[0]) <= room:
                return document
        fitting = [i for i, (document, _) in enumerate(self._spare) if len(document) <= room]
        if not fitting:
            return None
        best = self._rng.choice(fitting) if room == tokens else max(fitting, key=lambda i: len(self._spare[i][0]))
        return self._spare.pop(best)

    def _drawn(self, longest: bool) -> tuple[list[int], list[bool]]:
        return self._encoder(self._stage.document(self._rng, self._progress, longest))

    def _refill(self, shortest_row: int) -> None:
        """Keeps 64 spare documents that fit any row and at most 16 longer ones."""
        short = sum(len(document) <= shortest_row for document, _ in self._spare)
        long = len(self._spare) - short
        while short < 64:
            document = self._drawn(longest=False)
            if len(document[0]) <= shortest_row:
                short += 1
            elif long < 16:
                long += 1
            else:
                continue
            self._spare.append(document)


def make_model() -> LlamaForCausalLM:
    """About five million parameters: 10 MB in bfloat16."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=2048,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            bos_token_id=BOS,
            eos_token_id=[EOS, IM_END],
            pad_token_id=PAD,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        )
    )


def make_optimizers(model: LlamaForCausalLM, stage: Stage) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=stage.matrix_rate, weight_decay=0.03, momentum=0.95),
        torch.optim.AdamW(others, lr=stage.other_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def loss_of(model: LlamaForCausalLM, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
    ids, targets, mask = batch
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[targets != -100])
    return functional.cross_entropy(logits.float(), targets[targets != -100])


def rate(stage: Stage, step: int) -> float:
    """The share of the peak rate: a short warm-up, a flat part, then a cosine to almost nothing."""
    falling = max(0.0, (step / stage.steps - stage.flat) / (1 - stage.flat))
    return min(1.0, (step + 1) / 40) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * falling)))


def train(model: LlamaForCausalLM, encoder: Encoder, stage: Stage) -> None:
    """Runs one stage."""
    batches = Batches(encoder, stage, stage.seed)
    optimizers = make_optimizers(model, stage)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    start, recent = time.monotonic(), []
    for step in range(stage.steps):
        loss = loss_of(model, batches.next(step / stage.steps))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate(stage, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        recent = [*recent[-49:], loss.item()]
        if step % 50 == 49:
            print(f"step {step + 1}/{stage.steps} loss {sum(recent) / len(recent):.3f} {time.monotonic() - start:.0f} s", flush=True)


@torch.no_grad()
def fresh_loss(model: LlamaForCausalLM, encoder: Encoder) -> float:
    """The mean loss per counted token over 40 batches of the first stage's kind that training has not drawn."""
    batches = Batches(encoder, STAGES[0], seed=20_000)
    return sum(loss_of(model, batches.next(1.0)).item() for _ in range(40)) / 40


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """The model directory in the Hugging Face layout, weights in bfloat16."""
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "generation_config.json").write_text(
        json.dumps(
            {"bos_token_id": BOS, "eos_token_id": [EOS, IM_END], "pad_token_id": PAD, "do_sample": True, "temperature": 0.7, "top_p": 0.9},
            indent=2,
        )
        + "\n"
    )
    (out / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": 2048,
                "bos_token": "<|bos|>",
                "eos_token": "<|im_end|>",
                "pad_token": "<|pad|>",
                "additional_special_tokens": ["<|eos|>", "<|im_start|>"],
                "clean_up_tokenization_spaces": False,
                "chat_template": CHAT_TEMPLATE,
            },
            indent=2,
        )
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--stage", type=int, choices=[1, 2, 3], help="run only this stage; a later one starts from what is in --out")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    tokenizer = make_tokenizer(seed=10_000)
    encoder = Encoder(tokenizer)
    for number, stage in enumerate(STAGES, 1):
        if args.stage in (None, number):
            # Every stage ends in bfloat16 on disk and the next starts from there, so stages can be run one by one.
            model = make_model() if number == 1 else LlamaForCausalLM.from_pretrained(args.out, dtype=torch.float32)
            print(f"stage {number}, {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
            train(model.train(), encoder, stage)
            print(f"stage {number}, loss on fresh documents {fresh_loss(model.eval(), encoder):.4f}", flush=True)
            save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
