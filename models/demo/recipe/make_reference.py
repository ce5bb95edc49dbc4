"""Writes `reference.json`: what transformers answers with the stored weights, for tests that have no Python.

Requirements: those of train.py. `python make_reference.py [--model DIR]`.
"""

import argparse
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

GREEDY_TOKENS = 32
CONVERSATIONS = {
    "greeting": [("user", "Hello!")],
    "capital": [("system", "You are a helpful assistant."), ("user", "What is the capital of France?")],
    "sum": [("user", "What is 7 plus 5?")],
    "story": [("user", "Tell me a short story about a fox.")],
    "baton": [("user", "What is a KV cache?")],
    "follow-up": [
        ("user", "My name is Clara."),
        ("assistant", "Nice to meet you, Clara!"),
        ("user", "Why is the sky blue?"),
        ("assistant", "Because air scatters blue light more than red light."),
        ("user", "What is my name?"),
    ],
}


@torch.no_grad()
def answer(model: torch.nn.Module, prompt_ids: list[int]) -> dict[str, object]:
    """Greedy ids from whole forward passes (no KV cache), the gap to the second choice, and the highest logits after the prompt."""
    ids, gaps, first = list(prompt_ids), [], None
    for _ in range(GREEDY_TOKENS):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        first = logits.topk(16) if first is None else first
        top = logits.topk(2)
        ids.append(int(top.indices[0]))
        gaps.append(round(float(top.values[0] - top.values[1]), 5))
    return {
        "prompt_ids": prompt_ids,
        "greedy_ids": ids[len(prompt_ids) :],
        "top2_gap": gaps,
        "last_top16_ids": first.indices.tolist(),
        "last_top16_logits": [round(x, 5) for x in first.values.tolist()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parent.parent)
    directory = parser.parse_args().model
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    prompts = []
    for name, turns in CONVERSATIONS.items():
        messages = [{"role": role, "content": content} for role, content in turns]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        result = answer(model, tokenizer(text, add_special_tokens=False).input_ids)
        prompts.append(
            {"name": name, "messages": messages, "prompt_text": text, "greedy_text": tokenizer.decode(result["greedy_ids"]), **result}
        )
    smallest = min(min(p["top2_gap"]) for p in prompts)
    whole = {
        "computed": "float32 from the stored bfloat16 weights, eager attention, no KV cache, end tokens ignored",
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "smallest_gap": smallest,
        "prompts": prompts,
    }
    (directory / "reference.json").write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print("smallest gap", smallest)


if __name__ == "__main__":
    main()
