"""Conversations of all kinds, to render every template with. All of it is our own."""

TEXTS = {
    "plain": "What's <1 & 2>?",
    "empty": "",
    "spaces": "  two  spaces \n\n",
    "lines": "one\ntwo\r\nthree\n",
    "unicode": "Grüße 😀 مرحبا\u200f 日本語 e\u0301 \u00a0|\u2028|",
    "quotes": "\"double\" 'single' \\ back \t tab",
    "markup": "<b>{{ not }} {% a %} {# template #}</b> &amp;",
    "thought": "<think>\nhm, 2\n</think>\n\nTwo.",
    "tags": "[INST] <<SYS>> </s> <|im_end|> <tool_call>{}</tool_call> [/INST]",
    "digits": "0123456789 " * 20,
}

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a \"place\" — now.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "Where"},
                "days": {"type": "integer", "default": 1, "minimum": 0},
                "unit": {"type": "string", "enum": ["C", "F"]},
                "near": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "number"}}}},
                "any": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            },
            "required": ["place"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "", "parameters": {"type": "object", "properties": {}}}}


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def call(arguments, number=0):
    function = {"name": "weather", "arguments": arguments}
    return {"id": f"call0000{number}", "type": "function", "function": function}


def part(text):
    return {"type": "text", "text": text}


def plain():
    """Name and messages, without tools."""
    system, user, assistant = (lambda text, role=role: message(role, text) for role in ("system", "user", "assistant"))
    yield "user", [user("Hi")]
    yield "system", [system("Be brief."), user("Hi")]
    yield "turns", [user("Hi"), assistant("Hello!"), user("Who?")]
    yield "system turns", [system("Be brief."), user("Hi"), assistant(" Hello! "), user("Who?"), assistant("Me."), user("Ah")]
    yield "ends with the assistant", [system("S"), user("Hi"), assistant("Hello!")]
    yield "two users", [user("a"), user("b")]
    yield "two assistants", [user("a"), assistant("b"), assistant("c"), user("d")]
    yield "assistant first", [assistant("a"), user("b")]
    yield "system only", [system("S")]
    yield "system late", [user("a"), system("S"), user("b")]
    yield "two systems", [system("S"), system("T"), user("a")]
    yield "developer", [message("developer", "D"), user("a")]
    yield "unknown role", [message("critic", "c"), user("a")]
    yield "names", [message("system", "S", name="boss"), message("user", "a", name="Ann"), assistant("b"), user("c")]
    yield "nobody", []
    for name, text in TEXTS.items():
        yield f"text {name}", [user(text)]
        yield f"texts {name}", [system(text), user(text), assistant(text), user(text)]
    yield "parts", [user([part("a"), part("b")])]
    yield "parts everywhere", [system([part("S")]), user([part("a"), part(" b")]), assistant([part("c")]), user([part("")])]
    yield "no parts", [user([])]
    yield "image", [user([{"type": "image"}, part("What is it?")])]
    yield "image url", [user([{"type": "image_url", "image_url": {"url": "x"}}, part("?")])]
    yield "null", [user("a"), assistant(None), user("b")]
    yield "null everywhere", [system(None), user(None)]
    yield "absent", [user("a"), {"role": "assistant"}, user("b")]
    yield "number", [user(7)]
    reasoning = "I think, \nso."
    yield "reasoning", [user("a"), message("assistant", "b", reasoning_content=reasoning), user("c")]
    yield "reasoning last", [user("a"), message("assistant", "b", reasoning_content=reasoning)]
    yield "reasoning empty", [user("a"), message("assistant", "b", reasoning_content=""), user("c")]
    yield "reasoning null", [user("a"), message("assistant", "b", reasoning_content=None), user("c")]
    yield "reasoning other names", [user("a"), message("assistant", "b", reasoning=reasoning, thinking=reasoning), user("c")]
    yield "many", [system("S")] + [(user if n % 2 == 0 else assistant)(f"turn {n} {'x' * (n % 50)}") for n in range(2001)]


def tools():
    """Name, messages and tools."""
    user = message("user", "Weather in Ulm?")
    one = message("assistant", None, tool_calls=[call({"place": "Ulm", "days": 2, "near": [{"x": 1.5}], "any": None})])
    text = message("assistant", "Let me see.", tool_calls=[call('{"place": "Ülm", "days": 1e20}')])
    two = message("assistant", "", tool_calls=[call({"place": "Ulm"}), call({}, 1)])
    answer = message("tool", '{"sun": true, "wind": 1.0}', tool_call_id="call00000", name="weather")
    answers = [answer, message("tool", "rain", tool_call_id="call00001", name="weather")]
    yield "offered", [user], [WEATHER, CLOCK]
    yield "offered with system", [message("system", "S"), user], [WEATHER]
    yield "none offered", [user], []
    yield "called", [user, one, answer], [WEATHER]
    yield "called as text", [user, text, answer, message("assistant", "Sun."), user], [WEATHER, CLOCK]
    yield "called twice", [user, two, *answers, message("assistant", "Sun and rain."), user], [WEATHER]
    yield "called without offer", [user, one, answer], None
    yield "answered in parts", [user, one, message("tool", [part("sun")], tool_call_id="call00000")], [WEATHER]
    yield "reasoned", [user, message("assistant", "", reasoning_content="hm", tool_calls=[call({"place": "Ulm"})]), answer], [WEATHER]
    yield "pending", [user, one], [WEATHER]


SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
SWITCHES = [{}, {"enable_thinking": False}, {"enable_thinking": True, "reasoning_effort": "high", "thinking": True}]


def cases():
    """Everything to render, as (name, variables, whether tools are in it)."""
    for name, messages in plain():
        for add in (False, True):
            # Long conversations once: they are about bounds.
            for switches in SWITCHES if len(messages) < 100 else [{}] * add:
                yield f"{name}, {add}, {list(switches)}", variables(messages, None, add, switches), False
    for name, messages, offered in tools():
        for add in (False, True):
            yield f"tools {name}, {add}", variables(messages, offered, add, {}), True


def variables(messages, offered, add, switches):
    return {"messages": messages, "tools": offered, "documents": None, "add_generation_prompt": add, **SPECIAL_TOKENS, **switches}
