"""Pydantic AI over chat completions: results by tool call, by schema and by prompt; tools, streams, histories, usage, errors."""

import asyncio
from typing import Annotated, Literal

from pydantic import Field
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, ToolOutput
from pydantic_ai.messages import ModelResponse, ToolCallPart, ToolReturnPart
from pydantic_ai.models.openai import OpenAIChatModel

from served import MODEL, Animal, raised

model = OpenAIChatModel(MODEL)
SETTINGS = {"max_tokens": 200, "temperature": 0, "seed": 7, "timeout": 60}


def agent(**more):
    return Agent(model, model_settings=SETTINGS, retries=0, **more)


def talk():
    first = agent(instructions="Be brief.").run_sync("Hello! Who are you?")
    assert first.output and first.usage.output_tokens > 0, first
    second = agent().run_sync("And what is a cat?", message_history=first.all_messages())
    assert second.output and len(second.all_messages()) == 4, second

    async def streamed():
        async with agent(instructions="Be brief.").run_stream("Hello! Who are you?") as stream:
            text = "".join([piece async for piece in stream.stream_text(delta=True)])
            return text, stream.usage.output_tokens

    assert asyncio.run(streamed()) == (first.output, first.usage.output_tokens)


def structure():
    for form in (NativeOutput(Animal), ToolOutput(Animal, name="describe"), NativeOutput([Animal])):
        result = agent(output_type=form).run_sync("An animal.")
        assert isinstance(result.output, Animal), (form, result)

    async def streamed():
        async with agent(output_type=ToolOutput(Animal)).run_stream("An animal.") as stream:
            return [animal async for animal in stream.stream_output(debounce_by=None)]

    animals = asyncio.run(streamed())
    assert isinstance(animals[-1], Animal), animals


def tools():
    """The model must call one of two tools: its own, whose result goes back, or the one that ends the run."""
    talker = agent(output_type=ToolOutput(Animal, name="describe"))
    seen = []

    @talker.tool_plain
    def weather(place: Literal["Paris", "Rome"], days: Annotated[int, Field(ge=1, le=9)]) -> str:
        """The weather at a place for some days."""
        seen.append(place)
        return f"{days} days of sun in {place}"

    result = talker.run_sync("What is the weather?")
    parts = [part for message in result.all_messages() for part in message.parts]
    calls = [part for part in parts if isinstance(part, ToolCallPart)]
    returned = [part.tool_call_id for part in parts if isinstance(part, ToolReturnPart)]
    assert isinstance(result.output, Animal) and [call.tool_call_id for call in calls] == returned, result
    assert len(seen) == sum(call.tool_name == "weather" for call in calls), result
    assert all(message.finish_reason == "tool_call" for message in result.all_messages() if isinstance(message, ModelResponse)), result


def errors():
    error = raised(ModelHTTPError, lambda: Agent(OpenAIChatModel("nobody"), retries=0).run_sync("Hello"))
    assert error.status_code == 404 and error.body["code"] == "model_not_found", error


talk()
structure()
tools()
errors()
print("ok")
