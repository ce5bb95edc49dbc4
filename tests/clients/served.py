"""What all scripts share: the server that they talk to, found as OpenAI's own clients find it, and a limit on their time.

By hand, against `baton serve --model FOLDER` whose template has tools (tests/tests/clients.rs makes such a folder):
OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=none python tests/clients/openai_chat.py
"""

import faulthandler
import os
from typing import Literal

import openai
from pydantic import BaseModel, Field

# A script that hangs says where, and fails.
faulthandler.dump_traceback_later(240, exit=True)

URL = os.environ["OPENAI_BASE_URL"]
KEY = os.environ["OPENAI_API_KEY"]
MODEL = openai.OpenAI(max_retries=0).models.list().data[0].id

# The model knows this story by heart, but not how it goes on: a long answer.
STORY = "Once upon a time"
# More tokens than the model's context has.
TOO_LONG = "word " * 5000


class Animal(BaseModel):
    """An animal, such that every answer of this form ends: no string and no number can go on for ever."""

    name: str = Field(max_length=12)
    legs: int = Field(ge=0, le=8)
    kind: Literal["cat", "dog", "bird"]


def raised(error, call):
    """Calls and returns the error, which must be of that type."""
    try:
        answer = call()
    except error as found:
        return found
    raise AssertionError(f"expected {error}, not {answer}")
