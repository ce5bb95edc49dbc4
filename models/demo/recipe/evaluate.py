"""Asks the finished model: prints its answers to natural prompts and counts how many sums, capitals and names are right.

Requirements: those of train.py. `python evaluate.py [--model DIR]`.
"""

import argparse
import os
import random
import re
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import facts
from stories import NAMES, invented_name

PROMPTS = [
    "Hello!",
    "Who are you?",
    "What is the capital of France?",
    "What is 7 plus 5?",
    "Why is the sky blue?",
    "Tell me a short story about a fox.",
    "What is Baton?",
    "What is a KV cache?",
    "What is the difference between prefill and decode?",
    "Tell me about elephants.",
    "Name three fruits.",
    "Count to 10.",
    "Write a poem about the sea.",
    "How do I make tea?",
    "What is the opposite of hot?",
    "Tell me a joke.",
    "What is the weather like?",
    "Write me a story about a robot named Max.",
    "I am sad.",
    "How many days are in a week?",
    "Thank you!",
    "What colour is a banana?",
    "Explain gravity.",
    "Can you write Python code?",
    "What is the meaning of life?",
    "Which is bigger, a mouse or an elephant?",
    "hi",
    "Tell me something interesting.",
    "Give me a plan for learning to swim.",
    "What do you think about politics?",
    "Who won the world cup in 1998?",
    "Translate good morning to French.",
]
CONVERSATION = [
    "Hi, my name is Clara and I live in Rome.",
    "Tell me a story about a mouse.",
    "What is my name?",
    "Where do I live?",
    "What is 6 times 7?",
    "Goodbye!",
]


class Chat:
    """The model behind its chat template."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(directory)
        self._model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()

    @torch.no_grad()
    def answer(self, messages: list[dict[str, str]], temperature: float = 0.0, tokens_max: int = 300) -> str:
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([self._tokenizer(text, add_special_tokens=False).input_ids])
        how = (
            {"do_sample": True, "temperature": temperature, "top_p": 0.9}
            if temperature
            else {"do_sample": False, "temperature": None, "top_p": None}
        )
        out = self._model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens_max, **how)
        return self._tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    def one(self, prompt: str, temperature: float = 0.0, tokens_max: int = 300) -> str:
        return self.answer([{"role": "user", "content": prompt}], temperature, tokens_max)


def score(chat: Chat) -> None:
    """Counts right answers to questions with one right answer."""
    rng = random.Random(99)
    for top in (12, 30, 99):
        pairs = [(rng.randint(0, top), rng.randint(0, top)) for _ in range(100)]
        right = sum(re.findall(r"\d+", chat.one(f"What is {a} plus {b}?", tokens_max=16))[-1:] == [str(a + b)] for a, b in pairs)
        print(f"sums up to {top} plus {top}: {right} of {len(pairs)}")
    countries = facts.countries()
    right = sum(row[1] in chat.one(f"What is the capital of {row[0]}?", tokens_max=20) for row in countries)
    print(f"capitals: {right} of {len(countries)}")
    names = [rng.choice(NAMES) if i % 2 else invented_name(rng) for i in range(60)]
    right = 0
    for name in names:
        messages = [
            {"role": "user", "content": f"My name is {name}."},
            {"role": "assistant", "content": f"Nice to meet you, {name}!"},
            {"role": "user", "content": "What is my name?"},
        ]
        right += chat.answer(messages, tokens_max=12) == f"Your name is {name}."
    print(f"names remembered: {right} of {len(names)}")


def converse(chat: Chat) -> None:
    """One conversation in which later questions need earlier messages."""
    messages: list[dict[str, str]] = []
    for text in CONVERSATION:
        messages.append({"role": "user", "content": text})
        messages.append({"role": "assistant", "content": chat.answer(messages)})
    print("\n".join(f"{m['role']:>9}: {m['content']}" for m in messages))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parent.parent)
    args = parser.parse_args()
    torch.manual_seed(5)
    chat = Chat(args.model)
    for prompt in PROMPTS:
        print(f"> {prompt}\n  greedy:  {chat.one(prompt)!r}\n  sampled: {chat.one(prompt, temperature=0.8)!r}")
    converse(chat)
    score(chat)


if __name__ == "__main__":
    main()
