"""What readers of calls need to know of the tools' schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

KINDS = frozenset({"string", "number", "integer", "boolean", "null", "object", "array"})
MAX_DEPTH = 16
"""Alternatives within references within alternatives: one that goes on for ever says nothing."""


class ToolSchemas:
    """The schemas of a request's tools, by name."""

    def __init__(
        self, tools: Sequence[Mapping[str, Any]] = (), inputs: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """`tools` as in a request: {"type": "function", "function": {"name", "parameters"}}. `inputs` are the formats
        of those that are custom tools (chat.custom)."""
        self._inputs = inputs or {}
        functions = [tool["function"] for tool in tools if isinstance(tool.get("function"), Mapping)]
        self._parameters = {function["name"]: function.get("parameters") for function in functions}

    def __contains__(self, name: str) -> bool:
        return name in self._parameters

    def is_custom(self, name: str) -> bool:
        """Whether a tool takes a text of its own instead of arguments."""
        return name in self._inputs

    def has_grammar(self, name: str) -> bool:
        """Whether that text is one of a grammar."""
        return bool(self._inputs.get(name))

    def kinds(self, name: str, key: str) -> frozenset[str]:
        """The types of JSON that an argument may have; empty: any."""
        root = self._parameters.get(name)
        if not isinstance(root, Mapping):
            return frozenset()
        whole = _resolved(root, root)
        properties = whole.get("properties")
        schema = properties.get(key) if isinstance(properties, Mapping) else None
        found = list(_kinds(whole.get("additionalProperties") if schema is None else schema, root, 0))
        return frozenset() if "" in found else frozenset(found)


def _kinds(schema: object, root: Mapping[str, Any], depth: int) -> Iterator[str]:
    """The types that a schema allows; "" among them: any."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        yield ""
        return
    schema = _resolved(schema, root)
    kind = schema.get("type")
    listed = [kind] if isinstance(kind, str) else kind if isinstance(kind, list) else None
    if listed is not None:
        yield from (one for one in listed if one in KINDS)
    elif isinstance(values := schema.get("enum"), list):
        yield from map(kind_of, values)
    elif "const" in schema:
        yield kind_of(schema["const"])
    elif isinstance(choices := schema.get("anyOf") or schema.get("oneOf"), list):
        for choice in choices:
            yield from _kinds(choice, root, depth + 1)
    else:
        yield ""


def kind_of(value: object) -> str:
    """The type of a value in JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference within the schema leads to."""
    for _ in range(MAX_DEPTH):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        found: object = root
        for step in reference.removeprefix("#").strip("/").split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            found = found.get(step) if isinstance(found, Mapping) and step else found
        if not isinstance(found, Mapping):
            return schema
        schema = found
    return {}
