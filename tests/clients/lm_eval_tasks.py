"""lm-eval, on tasks of our own whose right answers are what the server says by itself: so a right server has every answer right.

usage: lm_eval_tasks.py FOLDER, the model folder, whose tokenizer is used
"""

import json
import math
import os
import sys
import tempfile

# Nothing is fetched from the hub: the data are written here, and the tokenizer is that of the model folder.
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
scratch = tempfile.TemporaryDirectory()
os.environ["HF_HOME"] = scratch.name

import lm_eval
import openai
from lm_eval.tasks import TaskManager

from served import MODEL, URL

client = openai.OpenAI(max_retries=0, timeout=60)
CONTEXTS = ["Once upon a time", "Once upon a time, a tiny dragon named", "Gladly. Once upon a time, a cat", "He crossed three rivers, slept under the"]
QUESTIONS = ["Hello! Who are you?", "What is a cat?", "Tell me a story."]


def evaluated(model, documents, settings, **task):
    """Scores one task over these documents; returns its metrics and what was said about each document."""
    path = os.path.join(scratch.name, f"{task['task']}.json")
    with open(path, "w") as file:
        file.writelines(json.dumps(document) + "\n" for document in documents)
    task = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": path}}, "test_split": "test", **task}
    found = lm_eval.simple_evaluate(
        model=model,
        model_args={"model": MODEL, "max_retries": 1, "timeout": 60, **settings},
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        apply_chat_template=model == "local-chat-completions",
    )
    return found["results"][task["task"]], found["samples"][task["task"]]


def completions(**settings):
    return {"base_url": URL + "/completions", "tokenizer": sys.argv[1], **settings}


def said_after(context, tokens, bos=True):
    """The likeliest tokens after a context, and the log-probability of all of them."""
    choice = client.completions.create(
        model=MODEL, prompt=context, max_tokens=tokens, temperature=0, logprobs=0, extra_body={"add_special_tokens": bos}
    ).choices[0]
    assert choice.finish_reason == "length", choice
    return choice.text, sum(choice.logprobs.token_logprobs)


def choices(bos, **settings):
    """Log-likelihoods of continuations: those of greedy ones are what the server gave when it wrote them."""
    said = {context: said_after(context, 3, bos) for context in CONTEXTS}
    documents = [{"context": context, "choices": [" xyzzy plugh", text], "gold": 1} for context, (text, _) in said.items()]
    metrics, samples = evaluated(
        "local-completions", documents, completions(add_bos_token=bos, **settings), task="choices", output_type="multiple_choice",
        doc_to_text="{{context}}", doc_to_choice="choices", doc_to_target="gold", target_delimiter="",
    )
    assert metrics["acc,none"] == 1, (metrics, samples)
    for sample in samples:
        (_, other_greedy), (greedy_sum, greedy) = sample["filtered_resps"]
        assert greedy and not other_greedy, sample
        assert math.isclose(greedy_sum, said[sample["doc"]["context"]][1], abs_tol=1e-4), (sample, said)


def perplexity(**settings):
    texts = [said_after(context, 24)[0] for context in CONTEXTS]
    metrics, _ = evaluated(
        "local-completions", [{"text": text} for text in texts], completions(**settings), task="rolling",
        output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}", metric_list=[{"metric": "byte_perplexity"}],
    )
    echoed = client.completions.create(model=MODEL, prompt=texts, max_tokens=0, echo=True, logprobs=0)
    surprise = -sum(sum(choice.logprobs.token_logprobs[1:]) for choice in echoed.choices)
    expected = math.exp(surprise / sum(len(text.encode()) for text in texts))
    assert math.isclose(metrics["byte_perplexity,none"], expected, rel_tol=1e-5), (metrics, expected)


def generation(model, documents, settings):
    metrics, samples = evaluated(
        model, documents, settings, task="generation", output_type="generate_until", doc_to_text="{{question}}",
        doc_to_target="{{answer}}", target_delimiter="", metric_list=[{"metric": "exact_match"}],
        generation_kwargs={"until": ["\n"], "max_gen_toks": 12, "temperature": 0},
    )
    assert metrics["exact_match,none"] == 1, (metrics, samples)


def written_after(context):
    done = client.completions.create(model=MODEL, prompt=context, max_tokens=12, temperature=0, stop=["\n"])
    return {"question": context, "answer": done.choices[0].text}


def answered(question):
    messages = [{"role": "user", "content": question}]
    done = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=12, temperature=0, stop=["\n"])
    return {"question": question, "answer": done.choices[0].message.content}


choices(bos=True)
choices(bos=False, batch_size=3, num_concurrent=2)
perplexity(batch_size=2)
generation("local-completions", [*map(written_after, CONTEXTS)], completions(num_concurrent=2, tokenized_requests=False))
generation("local-chat-completions", [*map(answered, QUESTIONS)], {"base_url": URL + "/chat/completions"})
print("ok")
