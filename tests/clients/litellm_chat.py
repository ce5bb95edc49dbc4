"""LiteLLM, which knows this server as openai, hosted_vllm and text-completion-openai: chats, tools, structure, vLLM's fields, errors."""

import asyncio
import json
import os

# It would ask the network for prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

from served import KEY, MODEL, STORY, TOO_LONG, URL, Animal, raised

litellm.suppress_debug_info = True
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"place": {"enum": ["Paris", "Rome"]}}, "required": ["place"], "additionalProperties": False},
    },
}


def ask(provider, content="Hello! Who are you?", **more):
    messages = [{"role": "user", "content": content}]
    settings = {"api_base": URL, "api_key": KEY, "max_tokens": 200, "temperature": 0, "seed": 7, "max_retries": 0, "timeout": 60}
    return litellm.completion(**{"model": f"{provider}/{MODEL}", "messages": messages, **settings, **more})


def chats(provider):
    whole = ask(provider)
    assert whole.choices[0].message.content and whole.choices[0].finish_reason in ("stop", "length"), whole
    chunks = list(ask(provider, stream=True, stream_options={"include_usage": True}))
    built = litellm.stream_chunk_builder(chunks)
    assert built.choices[0].message.content == whole.choices[0].message.content, (built, whole)
    assert built.usage.completion_tokens == whole.usage.completion_tokens, (built.usage, whole.usage)
    assert len(ask(provider, n=2, temperature=1).choices) == 2


def tools(provider):
    named = {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}}
    message = ask(provider, **named).choices[0].message
    call = message.tool_calls[0]
    assert call.function.name == "weather" and json.loads(call.function.arguments)["place"] in ("Paris", "Rome"), call
    built = litellm.stream_chunk_builder(list(ask(provider, stream=True, **named)))
    assert built.choices[0].message.tool_calls[0].function.arguments == call.function.arguments, built
    asked = {"role": "user", "content": "What is the weather?"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "sun"}
    assert ask(provider, messages=[asked, message, result], tools=[WEATHER]).choices[0].finish_reason


def structure(provider):
    Animal.model_validate_json(ask(provider, "An animal.", response_format=Animal).choices[0].message.content)


def fields_of_vllm():
    done = ask("hosted_vllm", max_tokens=30, ignore_eos=True, top_k=1, temperature=1, min_p=0.1)
    assert done.usage.completion_tokens == 30 and done.choices[0].finish_reason == "length", done
    done = ask("hosted_vllm", extra_body={"guided_choice": ["yes", "no"]})
    assert done.choices[0].message.content in ("yes", "no"), done


def completions():
    settings = {"model": f"text-completion-openai/{MODEL}", "prompt": STORY, "api_base": URL, "api_key": KEY, "max_tokens": 20, "temperature": 0}
    whole = litellm.text_completion(**settings).choices[0].text
    assert whole and "".join(chunk.choices[0].text or "" for chunk in litellm.text_completion(stream=True, **settings)) == whole, whole


def errors(provider):
    raised(litellm.NotFoundError, lambda: ask(provider, model=f"{provider}/nobody"))
    raised(litellm.AuthenticationError, lambda: ask(provider, api_key="wrong" + KEY))
    raised(litellm.BadRequestError, lambda: ask(provider, temperature=9))
    raised(litellm.ContextWindowExceededError, lambda: ask(provider, TOO_LONG))


async def asynchronous():
    messages = [{"role": "user", "content": STORY}]
    answers = await asyncio.gather(*(
        litellm.acompletion(f"hosted_vllm/{MODEL}", messages, api_base=URL, api_key=KEY, max_tokens=20, temperature=0) for _ in range(4)
    ))
    assert len({answer.choices[0].message.content for answer in answers}) == 1, answers


for provider in ("openai", "hosted_vllm"):
    chats(provider)
    tools(provider)
    structure(provider)
    errors(provider)
fields_of_vllm()
completions()
asyncio.run(asynchronous())
print("ok")
