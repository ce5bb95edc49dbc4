"""Bodies that get further than the first refusal: with few of the optional fields at a time, and short answers."""

import os
import random

import schemathesis

DRAW = random.Random(int(os.environ["HOOKS_SEED"]))
KEPT = {"messages", "prompt", "input", "tokens", "max_tokens"}
FEWER = [0, 1, 1, 2, 2, 3, 5]
VOCABULARY = 2048


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict):
        return body
    optional = [name for name in body if name not in KEPT]
    DRAW.shuffle(optional)
    for name in optional[DRAW.choice(FEWER):]:
        del body[name]
    if DRAW.random() < 0.9:
        # Any other name than that of the model is refused.
        body.pop("model", None)
    if "max_tokens" in body and DRAW.random() < 0.9:
        body["max_tokens"] = DRAW.randint(1, 24)
    for name in ("tokens", "prompt"):
        if isinstance(body.get(name), list) and DRAW.random() < 0.8:
            body[name] = [known(token) for token in body[name]]
    return body


def known(token):
    """Returns a token that the model has, or the same value if it is none."""
    is_token = isinstance(token, int | float) and not isinstance(token, bool)
    return int(token) % VOCABULARY if is_token else token
