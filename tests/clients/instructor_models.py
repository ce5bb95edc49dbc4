"""Instructor: models out of answers in each of its modes, asking again after a failed check, partial objects, lists of objects."""

import logging

import instructor
import openai
from pydantic import field_validator

from served import MODEL, Animal, raised

ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "An animal."}], "max_tokens": 200, "temperature": 0, "seed": 7}
MODES = [instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA]


def client_of(mode):
    return instructor.from_openai(openai.OpenAI(max_retries=0, timeout=60), mode=mode)


class Unlucky(Animal):
    """The first answer fails its check, so that the client sends it back with what was wrong."""

    @field_validator("legs")
    @classmethod
    def not_at_first(cls, legs):
        checked.append(legs)
        if len(checked) == 1:
            raise ValueError("another number of legs, please")
        return legs


# It logs every error that it raises.
logging.getLogger("instructor").setLevel(logging.CRITICAL)
checked = []
for mode in MODES:
    client = client_of(mode)
    animal, answer = client.chat.completions.create_with_completion(response_model=Animal, max_retries=0, **ASKED)
    assert isinstance(animal, Animal) and answer.usage.completion_tokens > 0, (mode, animal)

    checked.clear()
    again = client.chat.completions.create(response_model=Unlucky, max_retries=2, **ASKED)
    assert isinstance(again, Unlucky) and len(checked) == 2, (mode, again)

    parts = list(client.chat.completions.create_partial(response_model=Animal, max_retries=0, **ASKED))
    assert len(parts) > 2 and Animal(**parts[-1].model_dump()), (mode, parts)
    error = raised(Exception, lambda: client.chat.completions.create(response_model=Animal, max_retries=0, **{**ASKED, "model": "nobody"}))
    assert "does not exist" in str(error), error
print("ok")
