"""The chat part of a request body, checked and brought into one form. Pure.

Every message comes out as a dict with a `role` string and a `content` that is a string, a list of text parts, or None;
tool calls have the form that templates expect. rendering/adapt.py brings them into a form that the template can take.
A message with pictures or sound has one text, with markers in it (markers.py).
Histories in the wild are sloppy (`id: null`, broken arguments, a tool's answer to no call), so those pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llamabox.chat.config import check_kwargs
from llamabox.chat.custom import InputFormat, as_function_call, parse_custom
from llamabox.chat.markers import Markers, content_of_parts
from llamabox.chat.media_parts import MEDIA_PARTS, parse_media
from llamabox.checks import describe, flag, mapping, present, string, wrong
from llamabox.errors import InvalidRequest
from llamabox.media.source import MediaSource

TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal"})

THOUGHT_NAMES = ("reasoning", "thinking")
"""Other servers' names, and so their clients', of `reasoning_content`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The messages and variables that a template renders."""

    messages: tuple[dict[str, Any], ...]
    continues: bool = False  # the last message is the start of the answer
    in_thought: bool | None = None  # whether that ends within a thought; None: it is empty, the template tells
    add_generation_prompt: bool = True
    tools: tuple[dict[str, Any], ...] | None = None  # functions; None also where tool_choice is "none"
    inputs: dict[str, InputFormat] = field(default_factory=dict)  # of those that are custom tools, by name
    tool_choice: str | dict[str, Any] = "auto"
    tool_fields: tuple[str, ...] = ()  # where each tool stands in the request; empty: in `tools[i].function`
    has_functions: bool = False  # tools and choice were given in OpenAI's old words: `functions`, `function_call`
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what of the request was left out
    media: tuple[MediaSource, ...] = ()  # by the numbers of their markers
    marker: str = ""  # the random part of the markers, where there are media


def given_messages(body: Mapping[str, Any]) -> list[Any]:
    """`messages` of a body, each of any form."""
    raw = body.get("messages")
    if raw is None:
        raise InvalidRequest('"messages" must be provided', field="messages")
    if not isinstance(raw, list):
        raise wrong("messages", f"must be an array of messages, not {describe(raw)}")
    return raw


def parse_messages(body: Mapping[str, Any], *, prefills: bool = True) -> Conversation:
    """The conversation in a request body. Raises InvalidRequest naming the field; a JSON null counts as absent.

    `prefills`: a last message of the assistant is continued where the body does not say.
    """
    body = present(body)
    raw = given_messages(body)
    if not raw:
        raise InvalidRequest('"messages" must not be empty', field="messages")
    markers = Markers()
    messages = [_message(value, f"messages[{i}]", markers) for i, value in enumerate(raw)]
    add_generation_prompt, continues = _continuation(body, messages, prefills=prefills)
    in_thought = _continued(body, messages[-1]) if continues else None
    has_functions = "tools" not in body and not {"functions", "function_call"}.isdisjoint(body)
    if has_functions:
        body = in_new_words(body)
    tool_choice = _tool_choice(body)
    tools, inputs = _tools(body)
    return Conversation(
        messages=tuple(messages),
        continues=continues,
        in_thought=in_thought,
        add_generation_prompt=add_generation_prompt,
        tools=None if tool_choice == "none" else tools,
        inputs=inputs,
        tool_choice=tool_choice,
        has_functions=has_functions,
        template_kwargs=template_kwargs(body),
        media=tuple(markers.sources),
        marker=markers.random,
    )


def _continuation(body: Mapping[str, Any], messages: list[dict[str, Any]], *, prefills: bool) -> tuple[bool, bool]:
    """(whether the answer's start is written, whether the last message is continued)."""
    add, asked = flag(body, "add_generation_prompt", None), _asks_to_continue(body)
    if add and asked:
        raise InvalidRequest(
            "Cannot set both add_generation_prompt and continue_final_message to true.", field="continue_final_message"
        )
    last = messages[-1]
    if asked and last["role"] != "assistant":
        raise InvalidRequest(
            f"continue_final_message: the last message must be the assistant's, it is the {last['role']}'s",
            field="continue_final_message",
        )
    if asked and last.get("tool_calls"):
        raise InvalidRequest(
            "continue_final_message: an assistant message with tool calls cannot be continued",
            field="continue_final_message",
        )
    continues = prefills and _is_plain_assistant(last) if asked is None else asked
    if continues and len(messages) > 1 and _is_plain_assistant(messages[-2]):
        raise InvalidRequest(
            "messages: the last two messages are both the assistant's; join them into one",
            field=f"messages[{len(messages) - 1}]",
        )
    return (True if continues or add is None else add), continues


CONTINUED = ("content", "reasoning_content")
"""What of the last message `continue_final_message` may name."""


def _asks_to_continue(body: Mapping[str, Any]) -> bool | None:
    value = body.get("continue_final_message")
    if value is None or isinstance(value, bool):
        return value
    if value in CONTINUED:
        return True
    raise wrong("continue_final_message", f"must be true, false, {' or '.join(CONTINUED)}, not {describe(value)}")


def _continued(body: Mapping[str, Any], message: dict[str, Any]) -> bool | None:
    """Give a message that is continued one text as its content. Returns whether it ends within its thought."""
    message["content"] = _start_of_answer(message["content"])
    part, thought = body.get("continue_final_message"), message.get("reasoning_content")
    if part == "reasoning_content" and message["content"]:
        raise wrong("continue_final_message", "the thought cannot go on: there is content behind it")
    if part == "reasoning_content" and not thought:
        raise wrong("continue_final_message", "the last message has no reasoning_content that could go on")
    if part == "content" or message["content"]:
        return False
    return True if thought else None


def _is_plain_assistant(message: dict[str, Any]) -> bool:
    return message["role"] == "assistant" and not message.get("tool_calls")


def _start_of_answer(content: object) -> str:
    if isinstance(content, list):
        return "\n\n".join(part["text"] for part in content)
    return content if isinstance(content, str) else ""


def _message(value: object, where: str, markers: Markers) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(where, f"must be an object with role and content, not {describe(value)}")
    role = value.get("role")
    if role is None:
        raise InvalidRequest(f'"{where}.role" must be provided', field=f"{where}.role")
    if not isinstance(role, str) or not role:
        raise wrong(f"{where}.role", f"must be a role such as user, assistant or system, not {describe(role)}")
    calls = _tool_calls(value, where)
    content, refusal = value.get("content"), value.get("refusal")
    if role == "assistant" and not content and isinstance(refusal, str):
        content = refusal
    elif "content" not in value and not (role == "assistant" and calls):
        wanted = "content or tool_calls" if role == "assistant" else "content"
        raise InvalidRequest(
            f'"{where}.content" must be provided: the {role} message has no {wanted}', field=f"{where}.content"
        )
    message: dict[str, Any] = {"role": role, "content": _content(content, f"{where}.content", markers)}
    if calls:
        message["tool_calls"] = calls
    for name in ("name", "tool_call_id", "reasoning_content"):
        text = value.get(name)
        if text is None:
            continue
        message[name] = string(f"{where}.{name}", text)
    thoughts = [value[name] for name in THOUGHT_NAMES if isinstance(value.get(name), str)]
    if thoughts and "reasoning_content" not in message:
        message["reasoning_content"] = thoughts[0]
    return message


def _content(value: object, where: str, markers: Markers) -> str | list[dict[str, str]] | None:
    if value is None or isinstance(value, str):
        return value
    return content_of_parts(value, where, markers, _part)


def _part(value: object, where: str, markers: Markers) -> tuple[str, bool]:
    """The part's text, and whether that is a marker."""
    if isinstance(value, str):
        return value, False
    if not isinstance(value, dict):
        raise wrong(where, f"must be an object with type and text, not {describe(value)}")
    kind = value.get("type")
    if isinstance(kind, str) and kind in MEDIA_PARTS:
        return markers.add(parse_media(value, where)), True
    if not isinstance(kind, str) or kind not in TEXT_PARTS:
        raise wrong(f"{where}.type", 'unsupported content[].type: expected "text", "image_url" or "input_audio"')
    text = value.get("refusal" if kind == "refusal" else "text")
    return string(f"{where}.text", text), False


def _tool_calls(message: dict[str, Any], where: str) -> list[dict[str, Any]]:
    value = message.get("tool_calls")
    if value is None:
        old = message.get("function_call")  # as it was before there were several
        return [] if old is None else [_tool_call({"function": old}, f"{where}.function_call")]
    if not isinstance(value, list):
        raise wrong(f"{where}.tool_calls", f"must be an array, not {describe(value)}")
    return [_tool_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(value)]


def _tool_call(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(where, f"must be an object with function, not {describe(value)}")
    call_id = string(f"{where}.id", "" if value.get("id") is None else value["id"])
    if value.get("type") == "custom":
        return {"type": "function", "id": call_id, "function": as_function_call(value.get("custom"), f"{where}.custom")}
    function = value.get("function")
    if not isinstance(function, dict):
        raise wrong(f"{where}.function", f"must be an object with name and arguments, not {describe(function)}")
    name = string(f"{where}.function.name", function.get("name"))
    arguments = _arguments(function.get("arguments"))
    return {"type": "function", "id": call_id, "function": {"name": name, "arguments": arguments}}


def _arguments(value: object) -> object:
    """Text stays the text that the model once wrote; it is read where the template is rendered."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    return value


def in_new_words(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body with `functions` and `function_call`, in the words of today: `tools` and `tool_choice`."""
    functions = body.get("functions", [])
    if not isinstance(functions, list):
        raise wrong("functions", f"must be an array, not {describe(functions)}")
    choice = body.get("function_call", "auto")
    if isinstance(choice, dict):
        string("function_call.name", choice.get("name"))
        choice = {"type": "function", "function": choice}
    elif choice not in ("auto", "none"):
        raise wrong("function_call", f"must be auto, none or an object with a name, not {describe(choice)}")
    tools = [{"type": "function", "function": function} for function in functions]
    return {**body, "tools": tools, "tool_choice": choice}


def _tools(body: Mapping[str, Any]) -> tuple[tuple[dict[str, Any], ...] | None, dict[str, InputFormat]]:
    """The tools as functions, and the formats of the inputs of those that are custom."""
    value = body.get("tools")
    if value is None:
        return None, {}
    if not isinstance(value, list):
        raise wrong("tools", f"must be an array, not {describe(value)}")
    tools: list[dict[str, Any]] = []
    inputs: dict[str, InputFormat] = {}
    for i, tool in enumerate(value):
        if not isinstance(tool, dict):
            raise wrong(f"tools[{i}]", f"must be an object with type and function, not {describe(tool)}")
        kind = tool.get("type", "function")
        if kind == "custom":
            where = f"tools[{i}].custom"
            shown, told = parse_custom(mapping(where, tool.get("custom")), where)
            inputs[shown["function"]["name"]] = told
            tools.append(shown)
            continue
        if kind != "function":
            raise wrong(f"tools[{i}].type", f'must be "function" or "custom", not {describe(kind)}')
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise wrong(f"tools[{i}].function", 'must be an object with "name", a string')
        tools.append(tool)
    return tuple(tools) or None, inputs


def _tool_choice(body: Mapping[str, Any]) -> str | dict[str, Any]:
    value = body.get("tool_choice", "auto")
    if value in ("auto", "none", "required") or isinstance(value, dict):
        return value  # type: ignore[no-any-return]
    raise wrong("tool_choice", f"must be auto, none, required or an object, not {describe(value)}")


def template_kwargs(body: Mapping[str, Any]) -> dict[str, Any]:
    """The further variables for the template. Raises InvalidRequest for names that it gets from elsewhere."""
    return check_kwargs(mapping("chat_template_kwargs", body.get("chat_template_kwargs", {})))
