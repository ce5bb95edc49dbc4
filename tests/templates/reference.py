"""Chat templates as transformers renders them: jinja2's sandbox with the filters, functions and tags that it adds."""
import json
from datetime import datetime, timezone

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


# The moment at which everything is rendered, in UTC and without a zone, as `datetime.now()` gives it.
NOW_UNIX_S = 1_795_944_896
NOW = datetime.fromtimestamp(NOW_UNIX_S, timezone.utc).replace(tzinfo=None)


class Generation(Extension):
    """`{% generation %}` marks what the model said, for training; the text is what stands inside."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


class Refused(jinja2.TemplateError):
    """The template called `raise_exception`."""


def raise_exception(message):
    raise Refused(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda form: NOW.strftime(form)
    return made


ENVIRONMENT = environment()


def render(source, variables):
    """{"text": …}, {"refused": the template's words} or {"failed": what Python says}."""
    try:
        text = ENVIRONMENT.from_string(source).render(**variables)
        # What cannot be written cannot be a prompt.
        text.encode()
        return {"text": text}
    except Refused as error:
        return {"refused": str(error.message)}
    except Exception as error:  # Python has many ways to fail.
        return {"failed": f"{type(error).__name__}: {error}"}
