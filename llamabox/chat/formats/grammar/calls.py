"""The words for one call, from behind its opening up to what closes it: one writer for each kind of form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from llamabox.chat.formats.form import (
    ID,
    INDEX,
    TYPE,
    BracedCalls,
    Calls,
    JsonCalls,
    NamedCalls,
    PythonCalls,
    TaggedCalls,
)
from llamabox.chat.formats.grammar.tool import Schema, Tool
from llamabox.chat.formats.grammar.words import Rules, json_rule, one_of, quoted
from llamabox.chat.formats.values.input_text import INPUT
from llamabox.schemas import patterns

MAX_COUNTED = 60
"""Parameters that are counted one by one, a bit each; llguidance has 64. Beyond, none is enforced."""

OTHER = "\ue0a4"
"""Stands for the name of an argument that the tool does not list."""

TAGGED_KEY = r"[A-Za-z_][A-Za-z0-9_.\-]{0,63}"
BARE_KEY = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
"""Names that models may make up, between tags and in the other forms."""

WriteArgument = Callable[[str, str, str], str]
"""Writes one argument from its name, the words for that, and a name for rules of its own."""

MAX_LENGTH = 2000
"""Characters of a text that are counted, where a schema bounds it."""

MAX_BRACES = 4
"""Objects and arrays within each other whose schemas are followed where keys are bare."""

CALL_ID = r"/[a-zA-Z0-9]{9}/"
NUMBER = r"/[0-9]{1,4}/"
PYTHON_STRING = r"/\"([^\"\\\n]|\\.)*\"|'([^'\\\n]|\\.)*'/"
UNBOUNDED = frozenset({"type", "title", "description", "default", "examples", "$defs", "definitions"})
"""Keys of a schema whose values are all those of its type."""

PYTHON_WORDS = ["True", "False", "None"]

SCALARS = {"null": "/null/", "boolean": "/true|false/", "integer": "/-?(0|[1-9][0-9]{0,15})/"}
SCALARS["number"] = r"/-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,15})?/"
"""What values that are no texts look like where they stand as they are."""


def call_rule(rules: Rules, form: Calls, tools: list[Tool]) -> str:
    """The name of the rule for one call of one of the tools."""
    if "call" in rules:
        return "call"
    return rules.add("call", one_of([tool_rule(rules, form, i, tool) for i, tool in enumerate(tools)]))


def tool_rule(rules: Rules, form: Calls, i: int, tool: Tool) -> str:
    """The name of the rule for a call of one tool."""
    match form:
        case JsonCalls():
            return rules.add(f"call_{i}", _json_call(rules, form, tool))
        case NamedCalls():
            before = _placed(rules, form.open[_first_place(form.open) :])
            words = [before, quoted(tool.name), _placed(rules, form.name_close), arguments_rule(rules, tool)]
            return rules.add(f"call_{i}", " ".join(filter(None, words)))
        case TaggedCalls():
            return _tagged(rules, form, i, tool)
        case PythonCalls():
            return _python(rules, i, tool)
        case BracedCalls():
            return _braced(rules, form, i, tool)


def arguments_rule(rules: Rules, tool: Tool) -> str:
    """The words for arguments in JSON. They have a schema of their own: what it refers to by `#/…` is within it."""
    if tool.has_grammar:
        opening = f'{{"{INPUT}": '
        return f"{quoted(opening)} {rules.input_string(tool.name)} {quoted('}')}"
    return json_rule(tool.parameters, tool.field)


def _json_call(rules: Rules, form: JsonCalls, tool: Tool) -> str:
    """The words for an object."""
    name = json.dumps(tool.name, ensure_ascii=False)
    if not form.arguments_key:
        return f"{quoted('{' + name + ': ')} {arguments_rule(rules, tool)} {quoted('}')}"
    opening = f'{{"{form.name_key}": {name}, "{form.arguments_key}": '
    words = [quoted(opening), arguments_rule(rules, tool)]
    if form.id_key:
        words += [quoted(f', "{form.id_key}": "'), CALL_ID, quoted('"')]
    return " ".join([*words, quoted("}")])


def _first_place(text: str) -> int:
    return min((text.index(place) for place in (ID, INDEX) if place in text), default=len(text))


def _placed(rules: Rules, text: str) -> str:
    """The words for a text with places."""
    words = []
    for piece in re.split(f"([{ID}{INDEX}])", text):
        words.append({ID: CALL_ID, INDEX: NUMBER}.get(piece) or rules.text(piece))
    return " ".join(filter(None, words))


def _tagged(rules: Rules, form: TaggedCalls, i: int, tool: Tool) -> str:

    def argument(key: str, told: str, name: str) -> str:
        is_text = tool.is_text(key) and not (tool.has_grammar and not rules.begins_with_token(form.value_close))
        kind = form.string_type if is_text else _kind(form, tool.kinds(key))
        value = _tagged_value(rules, form, name, tool, key, is_text=is_text)
        words = [rules.text(form.key_open), told, rules.text(form.key_close.replace(TYPE, kind)), value]
        return " ".join(filter(None, words))

    key_pattern = "" if ID in form.value_close else TAGGED_KEY  # no grammar can have the same name at both ends
    words = [quoted(tool.name), _placed(rules, form.name_close), _arguments(rules, i, tool, argument, key_pattern)]
    return rules.add(f"call_{i}", " ".join(filter(None, words)))


def tagged_close(form: TaggedCalls) -> str:
    """What closes a call: a line break that belongs to the last argument is that one's."""
    return form.close.removeprefix("\n") if form.value_separator.startswith("\n") else form.close


def _kind(form: TaggedCalls, kinds: frozenset[str]) -> str:
    """What stands at TYPE before a value that is no string: the type's name, or a word for not being one."""
    if form.string_type == "true":
        return "false"
    kind = next(iter(kinds)) if len(kinds) == 1 else "object"
    return {"integer": "number"}.get(kind, kind)


def _tagged_value(rules: Rules, form: TaggedCalls, name: str, tool: Tool, key: str, *, is_text: bool) -> str:
    """A value and what stands behind it."""
    close = form.value_close.replace(ID, key) + form.value_separator
    if tool.has_grammar:  # a control token ends any text; other ends might stand in it, so it becomes a JSON string
        value = rules.input(tool.name, is_escaped=False) if is_text else rules.input_string(tool.name)
        return f"{value} {rules.text(close)}"
    if choices := tool.choices(key):
        return f"{one_of([quoted(_plain(choice)) for choice in choices])} {rules.text(close)}"
    if is_text:
        return rules.up_to(name, close, _texts(tool.schema(key), is_quoted=False))
    return f"{json_rule(tool.schema(key), tool.field)} {rules.text(close)}"


def _arguments(
    rules: Rules,
    i: int | str,
    tool: Tool,
    argument: WriteArgument,
    key_pattern: str,
    *,
    before: str = "",
    comma: str = "",
) -> str:
    """The words for all arguments of a call.

    `key_pattern` is what names look like that the tool does not list; empty: there are none. `before` stands between a
    name and its value.
    """
    keys = list(tool.properties)
    listed = [
        rules.add(f"argument_{i}_{k}", argument(key, quoted(key + before), f"value_{i}_{k}"))
        for k, key in enumerate(keys)
    ]
    other = ""
    if tool.others is not None and key_pattern:
        known = f" & ~({' | '.join(map(quoted, keys))})" if keys else ""
        name = rules.add(f"OTHER_{i}", f"/{key_pattern}/{known}")
        told = " ".join(filter(None, (name, quoted(before) if before else "")))
        other = rules.add(f"argument_{i}_other", argument(OTHER, told, f"value_{i}_other"))
    required = [keys.index(key) for key in tool.required]
    return _any_order(rules, f"arguments_{i}", listed, required, comma, other)


def _plain(value: object) -> str:
    """A text as it is, any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _texts(schema: Schema, *, is_quoted: bool) -> str:
    """The regular expression for what may stand as plain text by a schema that allows strings; empty: anything.

    A string has the length and the pattern that are wanted. Beside it stand the words of other scalars, unless quotes
    tell strings from them; those of objects and arrays are not followed.
    """
    choices = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(choices, list) and schema.keys() <= UNBOUNDED | {"anyOf", "oneOf"}:
        allowed = [one for one in choices if isinstance(one, Mapping) and not (is_quoted and _no_string(one))]
        texts = [_texts(one, is_quoted=is_quoted) for one in allowed]
        return " | ".join(f"({one})" for one in dict.fromkeys(texts)) if texts and all(texts) else ""
    if listed := _listed(schema):
        return one_of([quoted(_plain(one)) for one in listed if isinstance(one, str) or not is_quoted])
    kinds = _types(schema)
    parts = [SCALARS.get(kind, "") for kind in kinds if kind != "string" and not is_quoted]
    if "string" in kinds:
        parts.append(_strings(schema))
    return " | ".join(f"({one})" for one in parts) if all(parts) else ""


def _no_string(schema: Schema) -> bool:
    """Whether a schema allows no string, as far as its type or its values tell."""
    if listed := _listed(schema):
        return not any(isinstance(one, str) for one in listed)
    kinds = _types(schema)
    return bool(kinds) and "string" not in kinds


def _listed(schema: Schema) -> list[object]:
    """The values that a schema names; none where it names no values."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    return listed if isinstance(listed, list) else []


def _types(schema: Schema) -> list[str]:
    """The types that a schema names; none where it names no types."""
    told = schema.get("type")
    return [one for one in (told if isinstance(told, list) else [told]) if isinstance(one, str)]


def _strings(schema: Schema) -> str:
    """The regular expression for strings of the length and the pattern that a schema wants; empty: any are."""
    least, most = schema.get("minLength", 0), schema.get("maxLength", "")
    wanted = []
    if (least or most != "") and max(least, most or 0) <= MAX_LENGTH:
        wanted.append(f"/(.|\\n){{{least},{most}}}/")
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and (found := patterns.whole(pattern)) is not None:
        wanted.append(f"/{found}/")
    return " & ".join(wanted)


def _any_order(
    rules: Rules, name: str, arguments: list[str], required: list[int], comma: str = "", other: str = ""
) -> str:
    """The words for arguments in any order, each at most once, with the required ones among them.

    `other` is an argument that may come as often as one likes.
    """
    if not arguments and not other:
        return ""
    if len(arguments) > MAX_COUNTED:
        arguments = [*arguments, other] if other else arguments
        return f"({one_of(arguments)} ({comma} {one_of(arguments)})*)?" if comma else f"{one_of(arguments)}*"
    order = sorted(range(len(arguments)), key=lambda k: k not in required)  # the required ones have the first bits
    done = f" %if is_ones([0:{len(required)}])" if required else ""

    def choices(before: str) -> list[str]:
        counted = [
            f"{before}{arguments[k]} {name}_more::set_bit({bit}) %if bit_clear({bit})" for bit, k in enumerate(order)
        ]
        return [*counted, f"{before}{other} {name}_more::_"] if other else counted

    rules.add(f"{name}_more::_", " | ".join([f'""{done}', *choices(f"{comma} " if comma else "")]))
    if not comma:
        return f"{name}_more::0x0"
    rules.add(f"{name}_first::_", " | ".join([f'""{done}', *choices("")]))
    return f"{name}_first::0x0"


def _python(rules: Rules, i: int, tool: Tool) -> str:
    """A call with keyword arguments."""

    def argument(key: str, told: str, name: str) -> str:
        schema, kinds = tool.schema(key), tool.kinds(key)
        if tool.has_grammar:
            value = rules.input_string(tool.name)
        elif choices := tool.choices(key):
            value = one_of([quoted(json.dumps(choice, ensure_ascii=False)) for choice in choices])
        elif not kinds and key == OTHER:
            value = one_of([rules.add("PYTHON_STRING", PYTHON_STRING), json_rule(schema, tool.field)])
        elif kinds == {"string"} and schema.keys() <= UNBOUNDED:
            value = rules.add("PYTHON_STRING", PYTHON_STRING)
        elif kinds == {"boolean"} and schema.keys() <= UNBOUNDED:
            value = one_of([quoted(word) for word in PYTHON_WORDS[:2]])
        else:
            value = json_rule(schema, tool.field)  # a value of JSON is one of Python's, but for three words
        return f"{told} {value}"

    body = _arguments(rules, i, tool, argument, BARE_KEY, before="=", comma='", "')
    return rules.add(f"call_{i}", " ".join(filter(None, (quoted(tool.name + "("), body, '")"'))))


def _braced(rules: Rules, form: BracedCalls, i: int, tool: Tool) -> str:
    """A call with an object whose keys are bare."""
    body = _braced_arguments(rules, form, str(i), tool)
    return rules.add(f"call_{i}", " ".join(filter(None, (quoted(tool.name + "{"), body, '"}"'))))


def _braced_arguments(rules: Rules, form: BracedCalls, i: str, tool: Tool, depth: int = 0) -> str:
    def argument(key: str, told: str, name: str) -> str:
        return f"{told} {_braced_value(rules, form, name, tool, key, depth)}"

    return _arguments(rules, i, tool, argument, BARE_KEY, before=":", comma='","')


def _braced_value(rules: Rules, form: BracedCalls, name: str, tool: Tool, key: str, depth: int) -> str:
    schema, kinds = tool.schema(key), tool.kinds(key)
    quote = rules.text(form.quote)
    if tool.has_grammar and rules.begins_with_token(form.quote):
        return f"{quote} {rules.input(tool.name, is_escaped=False)} {quote}"
    if tool.has_grammar:
        return rules.input_string(tool.name)
    if choices := tool.choices(key):
        return one_of(
            [f"{quote} {quoted(one)} {quote}" if isinstance(one, str) else quoted(_plain(one)) for one in choices]
        )
    if not kinds and key == OTHER:
        _braced_anything(rules, form)
        return "braced_any"
    if tool.is_text(key):
        texts = _texts(schema, is_quoted=True)
        if texts:
            return rules.add(name, f"{quote} {rules.up_to(f'{name}_text', form.quote, texts)}")
        return _braced_string(rules, form)
    if kinds <= {"object", "array"}:
        return _braced_nested(rules, form, name, schema, tool.field, depth)
    return json_rule(schema, tool.field)


def _braced_nested(rules: Rules, form: BracedCalls, name: str, schema: Schema, field: str, depth: int) -> str:
    """An object or an array. Where one has no closed list of properties, or is deep, anything may be in it."""
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    items, properties = schema.get("items"), schema.get("properties")
    if depth < MAX_BRACES and schema.get("type") == "array" and isinstance(items, Mapping):
        of_item = Tool(name, {"properties": {"item": items}, **shared}, field=field)
        item = rules.add(f"{name}_item", _braced_value(rules, form, f"{name}_of", of_item, "item", depth + 1))
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0:
            return quoted("[]")
        more = f'("," {item}){{{max(least - 1, 0)},{"" if most is None else most - 1}}}'
        inside = f"{item} {more}" if least else f"({item} {more})?"
        return rules.add(name, f'"[" {inside} "]"')
    closed = isinstance(properties, Mapping) and schema.get("additionalProperties") is False
    if depth < MAX_BRACES and schema.get("type") == "object" and closed:
        body = _braced_arguments(rules, form, name, Tool(name, schema, field=field), depth + 1)
        return rules.add(name, f'"{{" {body} "}}"')
    braced = _braced_anything(rules, form)
    return {"object": "braced_object", "array": "braced_array"}.get(str(schema.get("type")), braced)


def _braced_string(rules: Rules, form: BracedCalls) -> str:
    return rules.add("braced_string", f"{rules.text(form.quote)} {rules.up_to('braced_text', form.quote)}")


def _braced_anything(rules: Rules, form: BracedCalls) -> str:
    """An object or an array of anything."""
    string = _braced_string(rules, form)
    rules.add("BRACED_WORD", "/true|false|null|-?[0-9]+(\\.[0-9]+)?/")
    rules.add("BRACED_KEY", "/[A-Za-z_][A-Za-z0-9_]*:/")
    rules.add("braced_any", f"{string} | BRACED_WORD | braced")
    rules.add("braced_object", '"{" (BRACED_KEY braced_any ("," BRACED_KEY braced_any)*)? "}"')
    rules.add("braced_array", '"[" (braced_any ("," braced_any)*)? "]"')
    return rules.add("braced", "braced_object | braced_array")
