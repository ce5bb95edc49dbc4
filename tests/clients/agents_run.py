"""The OpenAI Agents SDK over chat completions and over /v1/responses, its default: runs with tools, streamed runs, hand-offs between agents, structured results, errors."""

import asyncio
from typing import Annotated, Literal

import openai
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from pydantic import Field

from served import MODEL, Animal

# Traces would go to OpenAI.
set_tracing_disabled(True)
client = openai.AsyncOpenAI(max_retries=0, timeout=60)
calls = []


@function_tool
def weather(place: Literal["Paris", "Rome"], days: Annotated[int, Field(ge=1, le=9)]) -> str:
    """The weather at a place for some days."""
    calls.append((place, days))
    return f"{days} days of sun in {place}"


def settings(**more):
    return ModelSettings(max_tokens=120, temperature=0, **options, **more)


def agent(name="guide", **more):
    return Agent(**{"name": name, "instructions": "Be brief.", "model": model, "model_settings": settings(), **more})


def kinds(result):
    return [item.type for item in result.new_items]


async def talk():
    first = await Runner.run(agent(), "Hello! Who are you?")
    assert first.final_output and first.context_wrapper.usage.output_tokens > 0, first
    second = await Runner.run(agent(), first.to_input_list() + [{"role": "user", "content": "And what is a cat?"}])
    assert second.final_output and second.context_wrapper.usage.input_tokens > first.context_wrapper.usage.input_tokens, second

    streamed, text = Runner.run_streamed(agent(), "Hello! Who are you?"), ""
    async for event in streamed.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            text += event.data.delta
    assert text == streamed.final_output == first.final_output, (text, first.final_output)


async def tools():
    """The first turn must call; what the tool says goes back, and the second turn answers."""
    forced = agent(tools=[weather], model_settings=settings(tool_choice="required", parallel_tool_calls=False))
    result = await Runner.run(forced, "What is the weather?", max_turns=3)
    assert len(calls) == 1 and kinds(result)[:2] == ["tool_call_item", "tool_call_output_item"], (calls, result)
    assert isinstance(result.final_output, str) and result.context_wrapper.usage.requests == 2, result

    streamed = Runner.run_streamed(forced, "What is the weather?", max_turns=3)
    async for _ in streamed.stream_events():
        pass
    assert calls[1] == calls[0] and kinds(streamed) == kinds(result), (calls, streamed)
    assert streamed.final_output == result.final_output, (streamed.final_output, result.final_output)


async def hand_off():
    expert = agent("expert")
    desk = agent("desk", handoffs=[expert], model_settings=settings(tool_choice="transfer_to_expert"))
    result = await Runner.run(desk, "A hard question.", max_turns=3)
    assert result.last_agent is expert and kinds(result)[:2] == ["handoff_call_item", "handoff_output_item"], result


async def structure():
    result = await Runner.run(agent(output_type=Animal), "An animal.")
    assert isinstance(result.final_output, Animal), result


async def unknown(named):
    try:
        await Runner.run(agent(model=named("nobody")), "Hello")
    except openai.NotFoundError:
        return
    raise AssertionError("nobody answers")


def by_chat(name):
    return OpenAIChatCompletionsModel(model=name, openai_client=client)


async def main():
    global model, options
    # The name of a model alone means the Responses API, at OPENAI_BASE_URL.
    for named, options in [(by_chat, {"extra_body": {"seed": 7}}), (str, {"store": False})]:
        model = named(MODEL)
        calls.clear()
        await talk()
        await tools()
        await hand_off()
        await structure()
        await unknown(named)


asyncio.run(main())
print("ok")
