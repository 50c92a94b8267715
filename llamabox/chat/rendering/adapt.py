"""A conversation brought into the forms that a template can take. Pure; runs where the template runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from llamabox.chat.formats.form import GENERIC, Format
from llamabox.chat.formats.telling import calls_text, with_tools
from llamabox.chat.formats.values.as_written import AsWritten
from llamabox.chat.rendering.capabilities import Capabilities, Message
from llamabox.checks import without_nulls

TURN_TAKERS = ("user", "assistant")
ANSWERS = "answers"
"""Key of a tool's message until it is in its form: it answers a "call", one told in "words", or "nothing"."""

BRIDGE = "Go on."
"""The user's words where a template wants them between an assistant's text and its calls."""


def adapt(
    messages: Sequence[Message], can: Capabilities, *, tools: Sequence[dict[str, Any]] = (), form: Format = GENERIC
) -> list[Message]:
    """The conversation in words that the template understands. `messages` is not changed.

    Tools that the template does not show are told; calls that it has no form for are told in `form`.
    """
    if tools and can.tools == "told":
        messages = with_tools(messages, tools, form)
    adapted = list(_with_ids(messages, can))
    adapted = [piece for message in adapted for piece in _call_forms(message, can, form)]
    if can.parallel == "split":
        adapted = list(_one_call_each(adapted))
    adapted = [_result_form(message, can) for message in adapted]
    adapted = _system_forms(adapted, can)
    if can.turns == "merged":
        adapted = _merge_turns(adapted)
    for message in adapted:
        _content_form(message, can)
    return adapted


def adapt_tools(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools with what templates ask of each: a description, and parameters with properties. Nothing is null.

    What is of another type than it should be is left out; it is refused where the tools' schemas are read.
    """
    whole = without_nulls(list(tools)) if _may_have_nulls(tools) else tools
    return [{**tool, "type": "function", "function": _whole(tool["function"])} for tool in whole]


def _may_have_nulls(tools: Sequence[dict[str, Any]]) -> bool:
    """Whether a null is among them, as far as their JSON tells: written at once it takes a fifteenth of the walk."""
    try:
        return b"null" in orjson.dumps(tools)
    except TypeError:  # too deep, or half a surrogate
        return True


def _whole(function: dict[str, Any]) -> dict[str, Any]:
    description, parameters = function.get("description"), function.get("parameters")
    schema = parameters if isinstance(parameters, dict) else {}
    properties = schema.get("properties")
    return {
        **function,
        "description": description if isinstance(description, str) else "",
        "parameters": {
            **schema,
            "type": schema.get("type", "object"),
            "properties": properties if isinstance(properties, dict) else {},
        },
    }


def _with_ids(messages: Sequence[Message], can: Capabilities) -> Iterator[Message]:
    """Copies in which every call has an id and every result the id of the call that it answers."""
    waiting: list[dict[str, Any]] = []  # calls of the last message that called
    in_words = False
    n_calls = 0
    for given in messages:
        message = dict(given)
        if calls := message.get("tool_calls"):
            waiting = []
            for call in calls:
                waiting.append({**call, "id": call["id"] or f"call{n_calls:05d}"})
                n_calls += 1
            message["tool_calls"] = [_with_arguments({**call, "id": _id(call["id"], can)}, can) for call in waiting]
            in_words = can.calls != "words" and _in_words(message, can)
        elif message["role"] in ("tool", "function"):
            message["role"] = "tool"
            answered = _answered(message, waiting)
            if answered is not None:
                waiting.remove(answered)
                message["tool_call_id"] = answered["id"]
            message[ANSWERS] = "nothing" if answered is None else "words" if in_words else "call"
            message["tool_call_id"] = _id(message.get("tool_call_id") or "call00000", can)
        yield message


def _answered(result: Message, waiting: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The call that a tool's message answers. One without an id answers the next of that name, or the next."""
    call_id, name = result.get("tool_call_id"), result.get("name")
    if call_id:
        return next((call for call in waiting if call["id"] == call_id), None)
    return next((call for call in waiting if call["function"]["name"] == name), waiting[0] if waiting else None)


def _id(value: str, can: Capabilities) -> str:
    if can.ids == "given" or re.fullmatch("[a-zA-Z0-9]{9}", value):
        return value
    return hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:9]


def _with_arguments(call: dict[str, Any], can: Capabilities) -> dict[str, Any]:
    function = call["function"]
    given = function["arguments"]
    arguments = _read(given) if isinstance(given, str) else given
    if not isinstance(arguments, dict) and can.calls == "object" and can.raw_arguments == "wrapped":
        arguments = {"arguments": arguments}
    if can.calls == "text" and isinstance(given, str):
        arguments = given
    elif isinstance(arguments, dict) and isinstance(given, str) and given.strip() != _compact(arguments):
        arguments = AsWritten(arguments, given.strip())
    elif not isinstance(arguments, str | dict) or (isinstance(arguments, dict) and can.calls == "text"):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}


def _compact(value: object) -> str:
    """JSON without blanks, which clients in JavaScript make of what the model wrote."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _read(text: str) -> object:
    """The value of a text that is JSON of an object or null, else the text: templates iterate over an object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else {} if value is None else text


def _in_words(message: Message, can: Capabilities) -> bool:
    return can.calls == "words" or (can.beside_calls == "words" and bool(text_of(message["content"])))


def _call_forms(message: Message, can: Capabilities, form: Format) -> list[Message]:
    """A message of the assistant with its calls and thoughts in their forms: one message, or two."""
    if message["role"] == "developer" and can.developer == "system":
        message["role"] = "system"
    content = message["content"]
    pieces = [message]
    if message.get("tool_calls") and text_of(content):
        if _in_words(message, can):
            _tell_calls(message, form)
        elif can.beside_calls in ("two", "bridged") or (
            can.thought_beside == "two" and message.get("reasoning_content")
        ):
            pieces = [{"role": "assistant", "content": content}, message]
            message["content"] = None
            if can.beside_calls == "bridged":
                pieces.insert(1, {"role": "user", "content": BRIDGE})
    elif message.get("tool_calls") and can.calls == "words":
        _tell_calls(message, form)
    for piece in pieces:
        _thought_form(piece, can)
    return pieces


def _tell_calls(message: Message, form: Format) -> None:
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.pop("tool_calls")]
    text = text_of(message["content"])
    message["content"] = (text + (form.before_calls or "\n") if text else "") + calls_text(form.calls, calls)


def _thought_form(message: Message, can: Capabilities) -> None:
    thought = message.get("reasoning_content")
    if not thought or can.thought == "reasoning_content":
        return
    if can.thought != "part":
        message[can.thought] = message.pop("reasoning_content")
        return
    del message["reasoning_content"]
    content = message["content"] or []
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    message["content"] = [{"type": "thinking", "thinking": thought}, *parts]


def _one_call_each(messages: Sequence[Message]) -> Iterator[Message]:
    """[calls a and b, result a, result b] → [call a, result a, call b, result b]."""
    i = 0
    while i < len(messages):
        message = messages[i]
        i += 1
        calls = message.get("tool_calls") or []
        if len(calls) < 2:
            yield message
            continue
        results: list[Message] = []
        while i < len(messages) and messages[i]["role"] == "tool":
            results.append(messages[i])
            i += 1
        for call in calls:
            yield {**message, "tool_calls": [call]}
            message = {"role": "assistant", "content": None}
            own = [result for result in results if result["tool_call_id"] == call["id"]]
            yield from own
            results = [result for result in results if result not in own]
        yield from results


def _result_form(message: Message, can: Capabilities) -> Message:
    """A tool's answer, told by the user where the template would not show it."""
    answers = message.pop(ANSWERS, "")
    form = {"call": can.results, "words": "user", "nothing": can.stray_results}.get(answers, "tool")
    if form == "tool":
        return message
    response = {
        "name": message.get("name"),
        "tool_call_id": message.get("tool_call_id"),
        "content": text_of(message["content"]),
    }
    known = {key: value for key, value in response.items() if value is not None}
    return {"role": "user", "content": json.dumps({"tool_response": known}, ensure_ascii=False)}


def _system_forms(messages: list[Message], can: Capabilities) -> list[Message]:
    """Put system texts where the template shows them, else before the next text of the user.

    One that the assistant speaks next to, or nobody, stays where it is: what stood before it must not change when the
    conversation goes on, for its cells are resident.
    """
    if can.system == "anywhere":
        return messages
    n_leading = next((i for i, message in enumerate(messages) if message["role"] != "system"), len(messages))
    leading = [] if can.system == "nowhere" else messages[:n_leading]
    if can.system == "first" and len(leading) > 1:
        texts = [text_of(message["content"]) for message in leading]
        leading = [{**leading[0], "content": "\n\n".join(filter(None, texts))}]
    kept: list[Message] = leading
    pending: list[str] = []
    for message in messages[0 if can.system == "nowhere" else n_leading :]:
        role = message["role"]
        if role == "system":
            pending.append(text_of(message["content"]))
            continue
        if pending and role == "user":
            message = {**message, "content": "\n".join([*pending, text_of(message["content"])])}
        elif pending and role == "assistant":
            _say_here(kept, "\n".join(pending))
        if role != "tool":  # a call and its result are not torn apart
            pending = []
        kept.append(message)
    if pending:
        _say_here(kept, "\n".join(pending))
    return kept


def _say_here(messages: list[Message], text: str) -> None:
    """At the end of the last message, where it is the user's or a tool's; else in a further one of the user's."""
    last = messages[-1] if messages else {}
    if last.get("role") in ("user", "tool"):
        told = f"<system-reminder>\n{text}\n</system-reminder>"
        messages[-1] = {**last, "content": "\n\n".join(filter(None, (text_of(last["content"]), told)))}
    else:
        messages.append({"role": "user", "content": text})


def _merge_turns(messages: Sequence[Message]) -> list[Message]:
    merged: list[Message] = []
    for message in messages:
        last = merged[-1] if merged else {}
        alike = message["role"] in TURN_TAKERS and last.get("role") == message["role"]
        if alike and not last.get("tool_calls") and not message.get("tool_calls"):
            texts = [text_of(last["content"]), text_of(message["content"])]
            merged[-1] = {**last, **message, "content": "\n\n".join(filter(None, texts))}
        else:
            merged.append(message)
    return merged


def _content_form(message: Message, can: Capabilities) -> None:
    content = message["content"]
    if message.get("tool_calls") and not text_of(content) and not has_thought(content):
        if can.silence == "absent":
            del message["content"]
        else:
            message["content"] = None if can.silence == "null" else ""
        return
    form = {
        "user": can.user_content,
        "assistant": can.assistant_content,
        "system": can.system_content,
        "developer": can.system_content,
        "tool": can.tool_content,
    }.get(message["role"], "text")
    if content is None:
        message["content"] = content = ""
    if isinstance(content, list) and form == "text" and not has_thought(content):
        message["content"] = text_of(content)
    elif isinstance(content, str) and form == "parts":
        message["content"] = [{"type": "text", "text": content}]


def has_thought(content: object) -> bool:
    return isinstance(content, list) and any(part["type"] == "thinking" for part in content)


def text_of(content: object) -> str:
    """Content as one string; parts are joined with a newline."""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return content if isinstance(content, str) else ""
