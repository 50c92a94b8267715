"""Tools and calls told in words, for templates that have no form for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llamabox.chat.formats.form import GENERIC, ID, INDEX, Calls, Format, JsonCalls, NamedCalls, PythonCalls
from llamabox.chat.formats.values.as_written import dumps

SYSTEM = """You can call these tools, each of which is described by a JSON schema:
{tools}

To call one or more of them, answer with nothing but
{call}
"""


def with_tools(
    messages: Sequence[dict[str, Any]], tools: Sequence[Mapping[str, Any]], form: Format
) -> list[dict[str, Any]]:
    """The conversation with a text of the system's that tells the tools, before what else the system says."""
    listed = "\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
    told = SYSTEM.format(tools=listed, call=calls_text(form.calls, [("name of the tool", {"parameter": "value"})]))
    if messages and messages[0].get("role") in ("system", "developer"):
        first = messages[0]
        content = first.get("content")
        if isinstance(content, list):
            content = [{"type": "text", "text": told}, *content]
        else:
            content = told + (f"\n{content}" if content else "")
        return [{**first, "content": content}, *messages[1:]]
    return [{"role": "system", "content": told.rstrip()}, *messages]


def calls_text(form: Calls | None, calls: Sequence[tuple[str, Any]]) -> str:
    """Calls, by their names and arguments, as a model would write them in this form."""
    if isinstance(form, NamedCalls):
        listed = [_named_call(form, i, name, arguments) for i, (name, arguments) in enumerate(calls)]
        return form.section_open + form.separator.join(listed) + form.section_close
    if not isinstance(form, JsonCalls | PythonCalls) or (isinstance(form, JsonCalls) and not form.arguments_key):
        assert isinstance(GENERIC.calls, JsonCalls)
        form = GENERIC.calls
    if isinstance(form, PythonCalls):
        listed = [_python_call(name, arguments) for name, arguments in calls]
        return f"{form.section_open}[{', '.join(listed)}]{form.section_close}"
    listed = [dumps({form.name_key: name, form.arguments_key: arguments}) for name, arguments in calls]
    if form.is_array:
        return f"{form.section_open}[{', '.join(listed)}]{form.section_close}"
    told = form.separator.join(f"{form.open}{call}{form.close}" for call in listed)
    return form.section_open + told + form.section_close


def _named_call(form: NamedCalls, i: int, name: str, arguments: Any) -> str:
    told = dumps(arguments)
    call = f"{form.open}{name}{form.name_close}{told}{form.close}"
    return call.replace(INDEX, str(i)).replace(ID, f"call{i:05d}")


def _python_call(name: str, arguments: Any) -> str:
    if not isinstance(arguments, Mapping):
        arguments = {"arguments": arguments}
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
