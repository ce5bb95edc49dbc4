"""The Python openai client against a running router: chat, streamed and not, completions, models, typed errors.

usage: openai_chat.py http://HOST:PORT
"""
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0, timeout=60)
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "Hello! Who are you?"}]

# Streamed: role first, text as it is made, one finish reason, usage last.
stream = client.chat.completions.create(
    model=model, messages=messages, max_tokens=40, temperature=0, stream=True, stream_options={"include_usage": True}, logprobs=True
)
text, finishes, usage, roles, logprobs = "", [], None, [], 0
for chunk in stream:
    if chunk.usage:
        assert not chunk.choices, chunk
        usage = chunk.usage
        continue
    choice = chunk.choices[0]
    roles.append(choice.delta.role)
    text += choice.delta.content or ""
    finishes += [choice.finish_reason] if choice.finish_reason else []
    logprobs += len(choice.logprobs.content) if choice.logprobs and choice.logprobs.content else 0
assert roles[0] == "assistant" and set(roles[1:]) <= {None}, roles
assert finishes in (["stop"], ["length"]), finishes
assert usage.completion_tokens == logprobs and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
assert text, "no text"

# The same, whole.
whole = client.chat.completions.create(model=model, messages=messages, max_tokens=40, temperature=0)
assert whole.choices[0].message.content == text, (whole.choices[0].message.content, text)

# Stop strings never appear, also when they span tokens.
stopped = client.chat.completions.create(model=model, messages=messages, max_tokens=40, temperature=0, stop=[text[3:6]])
assert stopped.choices[0].message.content == text[: text.index(text[3:6])], stopped
assert stopped.choices[0].finish_reason == "stop"

# Completions with several prompts and choices.
done = client.completions.create(model=model, prompt=["One", "Two"], n=2, max_tokens=5, seed=3, extra_body={"ignore_eos": True})
assert [c.index for c in done.choices] == [0, 1, 2, 3], done
assert done.usage.completion_tokens == 20, done.usage

# Errors are typed by their status and carry their parts.
for call, error in [
    (lambda: client.chat.completions.create(model="nobody", messages=messages), openai.NotFoundError),
    (lambda: client.chat.completions.create(model=model, messages=[]), openai.BadRequestError),
    (lambda: client.chat.completions.create(model=model, messages=messages, temperature=9), openai.BadRequestError),
]:
    try:
        call()
        raise AssertionError(f"expected {error}")
    except error as found:
        assert found.request_id and isinstance(found.code, (str, type(None))), vars(found)

# Hanging up in the middle of a stream is nothing special.
with client.chat.completions.create(model=model, messages=messages, max_tokens=200, stream=True) as stream:
    next(iter(stream))
print("ok")
