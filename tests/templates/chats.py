"""Renders chats with tools through transformers here and through our router, and says where they differ.

usage: chats.py TEMPLATES PROGRAM
    TEMPLATES is a folder of *.jinja files, or an sdist (.tar.gz) with */models/templates/*.jinja inside.
    PROGRAM is the example `render_chats` of router.

Clients send the arguments of a call as a string. transformers documents that templates get an object; some templates
want the string, or an empty text instead of null. So a chat has several forms here, the documented one first, and ours
must be the first that transformers renders well. Ends with 1 if ours is another one.
"""
import copy
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import compare
import conversations
from transformers.utils.chat_template_utils import render_jinja_template

PLACE = "Ülm \"{}\" </tool_call>"


def call(arguments, number=0, name="weather"):
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": f"call0000{number}", "type": "function", "function": function}


def assistant(content, *calls, **more):
    return {"role": "assistant", "content": content, "tool_calls": list(calls), **more}


def result(content, number=0):
    return {"role": "tool", "tool_call_id": f"call0000{number}", "content": content}


def chats():
    """Name, messages and tools, as an OpenAI client sends them."""
    user = {"role": "user", "content": "Weather in Ulm?"}
    strict = copy.deepcopy(conversations.WEATHER)
    strict["function"]["strict"] = True
    weather, clock = conversations.WEATHER, conversations.CLOCK
    one = assistant(None, call({"place": PLACE, "days": 2, "near": [{"x": 1.5}], "any": True}))
    two = assistant(None, call({"place": "Ulm"}), call({}, 1, "clock"))
    done = {"role": "assistant", "content": "Sun."}
    yield "offered", [user], [weather, clock]
    yield "offered with system", [{"role": "system", "content": "S"}, user], [strict]
    yield "called", [user, one, result('{"sun": true}')], [weather]
    yield "called and answered", [user, one, result("sun"), done, user], [weather, clock]
    yield "called with words", [user, assistant("Let me see.", call({"place": "Ulm"})), result("sun")], [weather]
    yield "called with empty words", [user, assistant("", call({"place": "Ulm"})), result("sun")], [weather]
    yield "called without arguments", [user, assistant(None, call({}, 0, "clock")), result("noon")], [clock]
    yield "called twice at once", [user, two, result("sun"), result("noon", 1), done, user], [weather, clock]
    yield "called twice", [user, one, result("sun"), one, result("rain")], [weather]
    yield "called without offer", [user, one, result("sun"), done, user], None
    yield "result in parts", [user, one, {**result(""), "content": [{"type": "text", "text": "sun"}]}], [weather]
    yield "pending", [user, one], [weather]
    yield "reasoned", [user, {**one, "reasoning_content": "hm"}, result("sun")], [weather]


def forms(messages):
    """The chat as transformers may get it, the documented form first."""
    for parts in ("parts", "text"):
        for content in (None, ""):
            for arguments in (json.loads, str):
                name = f"content {content!r}, arguments {arguments.__name__}, results as {parts}"
                yield name, [formed(message, parts, content, arguments) for message in json.loads(json.dumps(messages))]


def formed(message, parts, content, arguments):
    for one in message.get("tool_calls", []):
        one["function"]["arguments"] = arguments(one["function"]["arguments"])
    if message.get("tool_calls") and message["content"] is None:
        message["content"] = content
    if isinstance(message["content"], list) and parts == "text":
        message["content"] = "\n".join(part["text"] for part in message["content"])
    # Our router gives thoughts under both names.
    if "reasoning_content" in message:
        message["reasoning"] = message["reasoning_content"]
    return message


def python(source, messages, tools):
    try:
        rendered, _ = render_jinja_template([messages], tools=tools, chat_template=source, add_generation_prompt=True,
                                            **conversations.SPECIAL_TOKENS)
        return rendered[0]
    except Exception as error:  # Templates fail in many ways.
        return error


def is_well(source, text, messages, tools):
    """Whether the template writes all of it, and arguments neither in Python's notation nor escaped twice."""
    if not isinstance(text, str):
        return False
    wrong = ["'place': '", '\\"place\\":', "'type': 'text'", '"type": "text"']
    if any(mark in text for mark in wrong) or "None" in text:
        return False
    (messages, tools), marks = json.loads(json.dumps([messages, tools or []])), []

    def marked(text):
        marks.append(f"Zqv{len(marks)}x")
        return text + marks[-1]

    for function in [one["function"] for one in tools + [one for m in messages for one in m.get("tool_calls", [])]]:
        function["name"] = marked(function["name"])
    for message in messages:
        if message["role"] == "tool" and isinstance(message["content"], str):
            message["content"] = marked("words ")
        elif message["role"] == "tool":
            message["content"][0]["text"] = marked("words ")
    again = python(source, messages, tools or None)
    return isinstance(again, str) and all(mark in again for mark in marks)


def main():
    place, program = Path(sys.argv[1]), sys.argv[2]
    cases, counts, differing = list(chats()), Counter(), 0
    for name, source in compare.templates(place):
        lines = [json.dumps({"template": source, "special_tokens": conversations.SPECIAL_TOKENS,
                             "body": {"messages": messages, "tools": tools}}) + "\n" for _, messages, tools in cases]
        done = subprocess.run([program], input="".join(lines).encode(), stdout=subprocess.PIPE, check=True)
        answers, bad, format_found = [json.loads(line) for line in done.stdout.splitlines()], [], None
        for (case, messages, tools), ours in zip(cases, answers, strict=True):
            format_found = ours.get("format") or format_found
            rendered = [(form, python(source, one, tools)) for form, one in forms(messages)]
            well = [(form, text) for (form, text), (_, one) in zip(rendered, forms(messages))
                    if is_well(source, text, one, tools)]
            if "text" in ours:
                same = next((form for form, text in rendered if text == ours["text"]), None)
                first = well and well[0][1] == ours["text"]
                alike = "another form" if well else "no form is well, but one is alike"
                kind = "the first form that is well" if first else alike if same else "DIFFER"
            else:
                kind = "refused by both" if not well else "refused by us alone"
            counts[kind] += 1
            if kind in ("another form", "refused by us alone", "DIFFER"):
                bad.append((case, kind, ours))
        differing += len(bad)
        print(f"{name} ({format_found}): {len(cases) - len(bad)} of {len(cases)}", flush=True)
        for case, kind, ours in bad:
            shown = ours.get("refused") or ours["text"][-160:]
            print(f"    {case}: {kind}: {shown!r}")
    for kind, count in sorted(counts.items()):
        print(f"{count} {kind}")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
