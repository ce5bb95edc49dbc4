"""Renders every template of a folder here and with our engine, and says where they differ.

usage: compare.py TEMPLATES PROGRAM
    TEMPLATES is a folder of *.jinja files, or an sdist (.tar.gz) with */models/templates/*.jinja inside.
    PROGRAM reads cases, one JSON object a line, and answers with one a line: the example `render_templates` of router.
Ends with 1 if a template does not start, or renders otherwise than Python does.
"""
import json
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import conversations
import reference


def templates(place):
    """Name and source of each template."""
    if place.is_dir():
        for path in sorted(place.rglob("*.jinja")):
            yield path.name, path.read_bytes().decode()
        return
    with tarfile.open(place) as archive:
        members = [m for m in archive if "/models/templates/" in m.name and m.name.endswith(".jinja")]
        for member in sorted(members, key=lambda member: member.name):
            yield member.name.rsplit("/", 1)[1], archive.extractfile(member).read().decode()


def kind(answer):
    return next(key for key in ("text", "refused", "failed") if key in answer)


def agree(python, ours):
    """The same text; or both refuse in the template's words; or both fail."""
    if kind(python) == "failed":
        return kind(ours) == "failed"
    return {key: python[key] for key in (kind(python),)} == {key: ours.get(key) for key in (kind(python),)}


def ours_for(program, source, variables):
    lines = "".join(json.dumps({"template": source, "variables": one, "now_unix_s": reference.NOW_UNIX_S}) + "\n" for one in variables)
    done = subprocess.run([program], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main():
    place, program = Path(sys.argv[1]), sys.argv[2]
    cases = list(conversations.cases())
    counts, differing, dead = Counter(), 0, []
    for name, source in templates(place):
        answers = ours_for(program, source, [variables for _, variables, _ in cases])
        if all("compile" in answer for answer in answers):
            dead.append(name)
            print(f"{name}: does not start: {answers[0]['failed']}")
            continue
        bad = []
        for (case, variables, has_tools), answer in zip(cases, answers, strict=True):
            python = reference.render(source, variables)
            same = agree(python, answer)
            counts["tools" if has_tools else "plain", kind(python), same] += 1
            if not same:
                bad.append((case, python, answer))
        differing += len(bad)
        print(f"{name}: {len(cases) - len(bad)} of {len(cases)} alike", flush=True)
        for case, python, answer in bad[:3]:
            print(f"    {case}\n        Python {shown(python)}\n        ours   {shown(answer, python)}")
    for (part, what, same), count in sorted(counts.items()):
        print(f"{part}, Python {what}: {count} {'alike' if same else 'DIFFER'}")
    sys.exit(1 if differing or dead else 0)


def shown(answer, other=None):
    """The answer, from where it differs."""
    value = answer[kind(answer)]
    start = 0
    if other and kind(other) == kind(answer):
        twin = other[kind(other)]
        start = next((i for i, (a, b) in enumerate(zip(value, twin)) if a != b), min(len(value), len(twin)))
    return f"{kind(answer)} {max(start - 40, 0)}: {value[max(start - 40, 0):start + 120]!r}"


if __name__ == "__main__":
    main()
