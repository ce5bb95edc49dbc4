"""The Python openai client over /v1/responses: whole and streamed, instructions, function tools, structured answers, errors."""

import json

import openai

from served import KEY, MODEL, TOO_LONG, Animal, raised

client = openai.OpenAI(max_retries=0, timeout=60)
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather at a place.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"place": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["place", "days"],
        "additionalProperties": False,
    },
}
NAMED = {"type": "function", "name": "weather"}
# Nothing is kept by this server, and every client can say that it need not.
SETTINGS = {"model": MODEL, "max_output_tokens": 200, "temperature": 0, "store": False}


def ask(input="Hello! Who are you?", **more):
    return client.responses.create(**{**SETTINGS, "input": input, **more})


def texts():
    whole = ask(instructions="Be brief.")
    assert whole.object == "response" and whole.status == "completed" and whole.id.startswith("resp_"), whole
    assert [item.type for item in whole.output] == ["message"] and whole.output_text, whole
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens, whole.usage
    items = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "input_text", "text": "Hello! Who are you?"}]}]
    assert ask(items).output_text == whole.output_text
    cut = ask(max_output_tokens=16)
    assert cut.status in ("completed", "incomplete"), cut
    if cut.status == "incomplete":
        assert cut.incomplete_details.reason == "max_output_tokens" and cut.usage.output_tokens == 16, cut
    later = ask([*items, *whole.output, {"role": "user", "content": "And what is a cat?"}])
    assert later.output_text and later.usage.input_tokens > whole.usage.input_tokens, later


def events():
    """They come in the documented order, numbered, and say the same as the whole answer."""
    whole = ask()
    events = list(ask(stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events))), events
    kinds = [event.type for event in events]
    before = ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    after = ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"]
    assert kinds[:4] == before and kinds[-4:] == after, kinds
    assert set(kinds[4:-4]) == {"response.output_text.delta"}, kinds
    assert "".join(event.delta for event in events[4:-4]) == whole.output_text == events[-1].response.output_text
    assert events[-1].response.usage.output_tokens == whole.usage.output_tokens, events[-1]
    with client.responses.stream(**SETTINGS, input="Hello! Who are you?") as stream:
        assert stream.get_final_response().output_text == whole.output_text


def tools():
    answer = ask("The weather?", tools=[WEATHER], tool_choice=NAMED)
    [call] = answer.output
    assert call.type == "function_call" and call.name == "weather" and call.call_id, call
    arguments = json.loads(call.arguments)
    assert arguments["place"] in ("Paris", "Rome") and 1 <= arguments["days"] <= 9, arguments

    events = list(ask("The weather?", tools=[WEATHER], tool_choice=NAMED, stream=True))
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    [done] = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert "".join(pieces) == done.arguments == call.arguments, (pieces, done, call)

    required = ask("The weather?", tools=[WEATHER], tool_choice="required", parallel_tool_calls=False).output
    assert [item.type for item in required] == ["function_call"], required
    result = {"type": "function_call_output", "call_id": required[0].call_id, "output": "sun"}
    last = ask([{"role": "user", "content": "The weather?"}, *required, result], tools=[WEATHER], max_output_tokens=16)
    assert last.output and last.usage.input_tokens > answer.usage.input_tokens, last
    assert all(item.type == "message" for item in ask(tools=[WEATHER], tool_choice="none").output)


def structure():
    parsed = client.responses.parse(**SETTINGS, input="An animal.", text_format=Animal).output_parsed
    assert isinstance(parsed, Animal), parsed
    with client.responses.stream(**SETTINGS, input="An animal.", text_format=Animal) as stream:
        assert stream.get_final_response().output_parsed == parsed
    tool = openai.pydantic_function_tool(Animal, name="describe")["function"]
    called = client.responses.parse(
        **SETTINGS, input="An animal.", tools=[{"type": "function", **tool}], tool_choice={"type": "function", "name": "describe"}
    )
    assert isinstance(called.output[0].parsed_arguments, (Animal, dict)), called


def errors():
    missing = raised(openai.NotFoundError, lambda: ask(model="nobody"))
    assert missing.code == "model_not_found", vars(missing)
    long = raised(openai.BadRequestError, lambda: ask(TOO_LONG))
    assert long.code == "context_length_exceeded", vars(long)
    raised(openai.BadRequestError, lambda: ask(temperature=9))
    raised(openai.BadRequestError, lambda: ask(tools=[{"type": "web_search"}]))
    raised(openai.AuthenticationError, lambda: openai.OpenAI(api_key="wrong" + KEY, max_retries=0).responses.create(**SETTINGS, input="Hello"))
    # Answers are not kept, so there is none to go on with and none to fetch.
    raised((openai.BadRequestError, openai.NotFoundError), lambda: ask(previous_response_id="resp_1"))
    raised(openai.NotFoundError, lambda: client.responses.retrieve("resp_1"))


def hanging_up():
    with ask("Tell me a story.", stream=True) as stream:
        next(iter(stream))
    assert ask(max_output_tokens=16).usage.output_tokens <= 16


texts()
events()
tools()
structure()
errors()
hanging_up()
print("ok")
