"""The Python openai client: chats and completions, streamed, whole and many at a time; models, log-probabilities, typed errors."""

import asyncio

import openai

from served import KEY, MODEL, STORY, TOO_LONG, raised

client = openai.OpenAI(max_retries=0, timeout=60)
HELLO = [{"role": "user", "content": "Hello! Who are you?"}]


def chat(messages=HELLO, **more):
    return client.chat.completions.create(**{"model": MODEL, "messages": messages, "max_tokens": 40, "temperature": 0, **more})


def streams_equal_whole_answers():
    """Role first, text as it is made, one finish reason, usage last."""
    text, finishes, usage, roles, logprobs = "", [], None, [], 0
    for chunk in chat(stream=True, stream_options={"include_usage": True}, logprobs=True):
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
    assert usage.completion_tokens == logprobs and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
    whole = chat()
    assert text and whole.choices[0].message.content == text, (whole, text)
    assert finishes == [whole.choices[0].finish_reason] and whole.usage.completion_tokens == usage.completion_tokens, whole

    # A stop string never appears, also when it spans tokens.
    stopped = chat(stop=[text[3:6]])
    assert stopped.choices[0].message.content == text[: text.index(text[3:6])], stopped
    assert stopped.choices[0].finish_reason == "stop"


def choices_and_log_probabilities():
    done = chat(n=2, seed=5, temperature=1, logprobs=True, top_logprobs=3)
    assert [choice.index for choice in done.choices] == [0, 1], done
    for choice in done.choices:
        for token in choice.logprobs.content:
            assert len(token.top_logprobs) == 3 and token.logprob <= token.top_logprobs[0].logprob <= 0, token
            assert bytes(token.bytes).decode(errors="replace") == token.token, token
    assert done.usage.completion_tokens == sum(len(choice.logprobs.content) for choice in done.choices), done
    again = chat(n=2, seed=5, temperature=1)
    assert [c.message.content for c in again.choices] == [c.message.content for c in done.choices], again

    done = client.completions.create(model=MODEL, prompt=["One", "Two"], n=2, max_tokens=5, seed=3, extra_body={"ignore_eos": True})
    assert [choice.index for choice in done.choices] == [0, 1, 2, 3], done
    assert done.usage.completion_tokens == 20 and {choice.finish_reason for choice in done.choices} == {"length"}, done

    # What a completion says of its tokens, it says of the same tokens in a prompt.
    said = client.completions.create(model=MODEL, prompt=STORY, max_tokens=8, temperature=0, logprobs=1)
    echoed = client.completions.create(model=MODEL, prompt=STORY + said.choices[0].text, max_tokens=0, echo=True, logprobs=1)
    assert echoed.choices[0].text == STORY + said.choices[0].text, echoed
    assert echoed.choices[0].logprobs.token_logprobs[-8:] == said.choices[0].logprobs.token_logprobs, (said, echoed)


async def many_at_a_time():
    """Streams of one connection pool at the same time do not get mixed up."""
    pool = openai.AsyncOpenAI(max_retries=0, timeout=60)

    async def streamed(question):
        stream = await pool.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": question}], max_tokens=40, temperature=0, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    questions = [f"Tell me a story about {number} cats." for number in range(8)]
    texts = await asyncio.gather(*map(streamed, questions))
    for question, text in zip(questions, texts):
        assert text == chat([{"role": "user", "content": question}]).choices[0].message.content, question


def errors():
    """They are typed by their status and carry their parts."""
    missing = raised(openai.NotFoundError, lambda: chat(model="nobody"))
    assert missing.code == "model_not_found" and missing.param == "model" and missing.request_id, vars(missing)
    raised(openai.NotFoundError, lambda: client.models.retrieve("nobody"))
    raised(openai.BadRequestError, lambda: chat([]))
    warm = raised(openai.BadRequestError, lambda: chat(temperature=9))
    assert warm.param == "temperature" and warm.type == "invalid_request_error", vars(warm)
    long = raised(openai.BadRequestError, lambda: chat([{"role": "user", "content": TOO_LONG}]))
    assert long.code == "context_length_exceeded" and "maximum context length is" in long.message, vars(long)
    wrong = raised(openai.AuthenticationError, lambda: openai.OpenAI(api_key="wrong" + KEY, max_retries=0).models.list())
    assert wrong.code == "invalid_api_key", vars(wrong)


def hanging_up():
    with chat(max_tokens=400, stream=True, extra_body={"ignore_eos": True}) as stream:
        next(iter(stream))
    assert chat(max_tokens=1).usage.completion_tokens == 1


assert client.models.retrieve(MODEL).id == MODEL
streams_equal_whole_answers()
choices_and_log_probabilities()
asyncio.run(many_at_a_time())
errors()
hanging_up()
print("ok")
