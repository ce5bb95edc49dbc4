"""Messages with the Python anthropic package, whole and streamed, with tools."""

from typing import Literal

import anthropic
from pydantic import BaseModel

from served import KEY, MODEL, TOO_LONG, URL

client = anthropic.Anthropic(base_url=URL.removesuffix("/v1"), api_key=KEY, max_retries=0)
model = client.models.list().data[0].id
assert model == MODEL, model

WEATHER = {
    "name": "get_weather",
    "description": "The weather at a place.",
    "input_schema": {
        "type": "object",
        "properties": {"place": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
        "required": ["place", "unit"],
        "additionalProperties": False,
    },
}
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}


class Animal(BaseModel):
    kind: Literal["cat", "dog", "bird"]


def ask(**more):
    """Asks for a message whole and streamed, which must agree but for names."""
    request = {"model": model, "max_tokens": 200, "extra_body": {"temperature": 0}, "messages": [QUESTION]} | more
    whole = client.messages.create(**request)
    with client.messages.stream(**request) as stream:
        streamed = stream.get_final_message()

    def said(message):
        return [block.model_dump(exclude={"id", "parsed_output"}, exclude_none=True) for block in message.content]

    assert said(whole) == said(streamed), (whole, streamed)
    assert whole.stop_reason == streamed.stop_reason and whole.usage.output_tokens == streamed.usage.output_tokens
    assert whole.id.startswith("msg_") and whole._request_id, whole
    return whole


def text():
    answer = ask(max_tokens=12, system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}])
    assert answer.content[0].type == "text" and answer.stop_reason in ("end_turn", "max_tokens"), answer
    counted = client.messages.count_tokens(model=model, messages=[QUESTION], system="Be brief.")
    used = answer.usage
    assert counted.input_tokens == used.input_tokens + used.cache_read_input_tokens, (counted, used)
    with client.messages.stream(model=model, max_tokens=12, messages=[QUESTION]) as stream:
        assert "".join(stream.text_stream) == stream.get_final_message().content[0].text
    begun = ask(max_tokens=5, messages=[QUESTION, {"role": "assistant", "content": "The answer is"}])
    assert begun.usage.output_tokens <= 5, begun


def tools():
    for choice in ({"type": "tool", "name": "get_weather"}, {"type": "any", "disable_parallel_tool_use": True}):
        answer = ask(tools=[WEATHER], tool_choice=choice)
        (call,) = [block for block in answer.content if block.type == "tool_use"]
        assert answer.stop_reason == "tool_use" and set(call.input) == {"place", "unit"}, answer
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "21 degrees"}]}
    turns = [QUESTION, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    assert ask(tools=[WEATHER], messages=turns, max_tokens=8).role == "assistant"


def structure():
    parsed = client.messages.parse(
        model=model, max_tokens=50, extra_body={"temperature": 0}, messages=[QUESTION], output_format=Animal
    ).parsed_output
    assert parsed.kind in ("cat", "dog", "bird"), parsed


def errors():
    def refused(kind, word, **more):
        try:
            client.messages.create(**({"model": model, "max_tokens": 5, "messages": [QUESTION]} | more))
        except kind as error:
            assert error.body["error"]["type"] == word and error.request_id, error
            return error.body["error"]["message"]
        raise AssertionError(f"{more} was not refused")

    refused(anthropic.NotFoundError, "not_found_error", model="claude")
    image = [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}]
    message = refused(anthropic.BadRequestError, "invalid_request_error", messages=image)
    assert message.startswith("messages[0].content[0].type "), message
    long = [{"role": "user", "content": TOO_LONG}]
    message = refused(anthropic.BadRequestError, "invalid_request_error", messages=long)
    assert message.startswith("prompt is too long: "), message


    stranger = anthropic.Anthropic(base_url=URL.removesuffix("/v1"), api_key="wrong", max_retries=0)
    try:
        stranger.messages.create(model=model, max_tokens=5, messages=[QUESTION])
    except anthropic.AuthenticationError as error:
        assert error.body["error"]["type"] == "authentication_error", error
    else:
        raise AssertionError("a wrong key was let in")


text()
tools()
structure()
errors()
print("ok")
