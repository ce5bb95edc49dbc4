"""LangChain (langchain-openai): messages, streams, batches, tools with their results, structured output, completions, errors."""

import asyncio
from typing import Annotated, Literal

import openai
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import Field

from served import MODEL, STORY, TOO_LONG, Animal, raised

SETTINGS = {"model": MODEL, "max_tokens": 200, "temperature": 0, "seed": 7, "max_retries": 0, "timeout": 60}
model = ChatOpenAI(**SETTINGS)
HELLO = [SystemMessage("You are polite."), HumanMessage("Hello! Who are you?")]


@tool
def weather(place: Literal["Paris", "Rome"], days: Annotated[int, Field(ge=1, le=9)]) -> str:
    """The weather at a place for some days."""
    return f"{days} days of sun in {place}"


def joined(chunks):
    whole = None
    for chunk in chunks:
        whole = chunk if whole is None else whole + chunk
    return whole


def chats():
    whole = model.invoke(HELLO)
    assert whole.content and whole.response_metadata["finish_reason"] in ("stop", "length"), whole
    stream = joined(ChatOpenAI(**SETTINGS, stream_usage=True).stream(HELLO))
    assert stream.content == whole.content and stream.usage_metadata["total_tokens"] == whole.usage_metadata["total_tokens"], stream
    answers = model.batch([HELLO, [HumanMessage(STORY)], HELLO])
    assert [answers[0].content, answers[2].content] == [whole.content] * 2 and answers[1].content, answers

    async def streamed():
        return "".join([chunk.content async for chunk in model.astream(HELLO)])

    assert asyncio.run(streamed()) == whole.content
    likely = model.bind(logprobs=True, top_logprobs=2).invoke(HELLO)
    assert len(likely.response_metadata["logprobs"]["content"]) == likely.usage_metadata["output_tokens"], likely


def tools():
    question = [HumanMessage("What is the weather in Paris?")]
    forced = model.bind_tools([weather], tool_choice="any", strict=True)
    answer = forced.invoke(question)
    assert answer.tool_calls and not answer.invalid_tool_calls, answer
    results = [weather.invoke(call) for call in answer.tool_calls]
    assert all(isinstance(result, ToolMessage) and "days of sun in" in result.content for result in results), results
    assert model.bind_tools([weather]).invoke(question + [answer] + results).response_metadata["finish_reason"]

    named = model.bind_tools([weather], tool_choice="weather")
    stream, whole = joined(named.stream(question)), named.invoke(question)
    assert [call["args"] for call in stream.tool_calls] == [call["args"] for call in whole.tool_calls], (stream, whole)
    assert len(stream.tool_calls) == 1 and stream.tool_calls[0]["name"] == "weather", stream


def structure():
    for method in ("json_schema", "function_calling"):
        animal = model.with_structured_output(Animal, method=method).invoke("An animal.")
        assert isinstance(animal, Animal), (method, animal)
    parts = list(model.with_structured_output(Animal, method="function_calling").stream("An animal."))
    assert parts[-1] == animal, (parts, animal)


def completions():
    plain = OpenAI(**{**SETTINGS, "max_tokens": 20})
    whole = plain.invoke(STORY)
    assert whole and "".join(plain.stream(STORY)) == whole, whole
    assert [answer[0].text for answer in plain.generate([STORY, STORY]).generations] == [whole] * 2


def errors():
    raised(openai.NotFoundError, lambda: ChatOpenAI(**{**SETTINGS, "model": "nobody"}).invoke("Hello"))
    raised(openai.AuthenticationError, lambda: ChatOpenAI(**SETTINGS, api_key="wrong").invoke("Hello"))
    raised(ContextOverflowError, lambda: model.invoke(TOO_LONG))


chats()
tools()
structure()
completions()
errors()
print("ok")
