"""Tools and structured answers with the Python openai package, whole and streamed, against a server given by its URL."""

import json
import sys
from typing import Literal

import openai
from pydantic import BaseModel, Field

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
            "required": ["place", "unit"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}}
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
NAMED = {"type": "function", "function": {"name": "get_weather"}}


class Animal(BaseModel):
    name: str = Field(max_length=12)
    legs: int = Field(ge=0, le=8)
    kind: Literal["cat", "dog", "bird"]


def arguments_of(call):
    assert call.type == "function" and call.id, call
    arguments = json.loads(call.function.arguments)
    if call.function.name == "get_weather":
        assert set(arguments) == {"place", "unit"} and arguments["unit"] in ("C", "F"), arguments
    else:
        assert call.function.name == "get_time" and arguments == {}, call
    return arguments


def ask(**more):
    return client.chat.completions.create(model=model, messages=QUESTION, max_tokens=200, seed=3, temperature=1, **more)


def streamed(**more):
    """Joins a stream as clients do; returns the calls and the finish reason."""
    calls, finish, roles = {}, None, []
    for chunk in ask(stream=True, **more):
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            if choice.delta.role:
                roles.append(choice.delta.role)
            for piece in choice.delta.tool_calls or []:
                if piece.index not in calls:
                    assert piece.id and piece.type == "function" and piece.function.name, piece
                    calls[piece.index] = [piece.function.name, ""]
                calls[piece.index][1] += piece.function.arguments or ""
    assert roles == ["assistant"], roles
    return list(calls.values()), finish


def tools():
    one = ask(tools=[WEATHER, TIME], tool_choice=NAMED).choices[0]
    assert [call.function.name for call in one.message.tool_calls] == ["get_weather"], one
    assert one.message.content is None and one.finish_reason == "stop", one
    arguments_of(one.message.tool_calls[0])
    calls, finish = streamed(tools=[WEATHER, TIME], tool_choice=NAMED)
    assert calls == [["get_weather", one.message.tool_calls[0].function.arguments]] and finish == "stop", calls

    required = ask(tools=[WEATHER, TIME], tool_choice="required", parallel_tool_calls=False).choices[0]
    assert required.finish_reason == "tool_calls" and len(required.message.tool_calls) == 1, required
    arguments_of(required.message.tool_calls[0])

    conversation = QUESTION + [
        required.message,
        {"role": "tool", "tool_call_id": required.message.tool_calls[0].id, "content": '{"degrees": 21}'},
    ]
    last = client.chat.completions.create(model=model, messages=conversation, tools=[WEATHER, TIME], max_tokens=8)
    assert last.choices[0].message.role == "assistant"
    assert ask(tools=[WEATHER], tool_choice="none").choices[0].message.tool_calls is None


def structure():
    parsed = client.chat.completions.parse(
        model=model, messages=[{"role": "user", "content": "An animal."}], response_format=Animal, max_tokens=200, seed=1
    )
    animal = parsed.choices[0].message.parsed
    assert animal.kind in ("cat", "dog", "bird") and 0 <= animal.legs <= 8, animal
    with client.chat.completions.stream(
        model=model, messages=[{"role": "user", "content": "An animal."}], response_format=Animal, max_tokens=200, seed=1
    ) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == animal
    try:
        ask(response_format={"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "array", "uniqueItems": True}}})
        raise AssertionError("it was not refused")
    except openai.BadRequestError as error:
        assert error.param == "response_format" and "uniqueItems" in error.message, error


tools()
structure()
print("ok")
