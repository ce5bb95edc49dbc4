"""The Python openai client: tool calls and structured answers, streamed and whole, and the clients' own helpers for both."""

import json

import openai

from served import MODEL, Animal, raised

client = openai.OpenAI(max_retries=0, timeout=60)

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
AN_ANIMAL = {"model": MODEL, "messages": [{"role": "user", "content": "An animal."}], "max_tokens": 200, "seed": 1}


def arguments_of(call):
    assert call.type == "function" and call.id, call
    arguments = json.loads(call.function.arguments)
    if call.function.name == "get_weather":
        assert set(arguments) == {"place", "unit"} and arguments["unit"] in ("C", "F"), arguments
    else:
        assert call.function.name == "get_time" and arguments == {}, call
    return arguments


def ask(**more):
    return client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=200, seed=3, temperature=1, **more)


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
    last = client.chat.completions.create(model=MODEL, messages=conversation, tools=[WEATHER, TIME], max_tokens=8)
    assert last.choices[0].message.role == "assistant"
    assert ask(tools=[WEATHER], tool_choice="none").choices[0].message.tool_calls is None


def structure():
    animal = client.chat.completions.parse(response_format=Animal, **AN_ANIMAL).choices[0].message.parsed
    assert isinstance(animal, Animal), animal
    with client.chat.completions.stream(response_format=Animal, **AN_ANIMAL) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == animal
    # An answer that is cut is no answer of that form, and the client is told so.
    raised(openai.LengthFinishReasonError, lambda: client.chat.completions.parse(response_format=Animal, **{**AN_ANIMAL, "max_tokens": 3}))
    anything = ask(response_format={"type": "json_object"}).choices[0]
    assert anything.message.content.startswith("{"), anything
    assert anything.finish_reason == "length" or isinstance(json.loads(anything.message.content), dict), anything


def helpers():
    """The client reads the calls that it made the tool for itself."""
    tool = openai.pydantic_function_tool(Animal, name="describe")
    forced = {"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "describe"}}}
    call = client.chat.completions.parse(**forced, **AN_ANIMAL).choices[0].message.tool_calls[0].function
    assert isinstance(call.parsed_arguments, Animal), call
    with client.chat.completions.stream(**forced, **AN_ANIMAL) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert [event.parsed_arguments for event in done] == [call.parsed_arguments], done


def refusal():
    schema = {"name": "x", "strict": True, "schema": {"type": "array", "uniqueItems": True}}
    error = raised(openai.BadRequestError, lambda: ask(response_format={"type": "json_schema", "json_schema": schema}))
    assert error.param == "response_format" and "uniqueItems" in error.message, error


tools()
structure()
helpers()
refusal()
print("ok")
