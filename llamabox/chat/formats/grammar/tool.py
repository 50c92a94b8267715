"""A tool as grammars see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llamabox.chat.formats.values.tools import ToolSchemas

Schema = Mapping[str, Any]

SHARED = ("#/$defs/", "#/definitions/")
"""Where references lead that a part of a schema takes with it."""

ROOT = "whole"
"""The name of the whole schema among the definitions of a part of it."""


@dataclass(frozen=True, eq=False)
class Tool:
    """A tool whose schema can be followed. `parameters` is that of an object. It equals itself alone."""

    name: str
    parameters: Schema
    has_grammar: bool = False  # a custom tool, whose only parameter is a text of its own grammar
    field: str = ""  # where the request has the schema
    n_plain_parts: int | None = None  # schemas, names and values in it; None: it is not plain (schemas.plain)

    @cached_property
    def properties(self) -> dict[str, Schema]:
        """The schemas of its parameters, each with what it may refer to."""
        found = self.parameters.get("properties")
        if not isinstance(found, Mapping):
            return {}
        return {key: self._by_itself(one) for key, one in found.items()}

    @cached_property
    def others(self) -> Schema | None:
        """The schema of parameters that `properties` does not name; None: there may be none."""
        found = self.parameters.get("additionalProperties", True)
        return None if found is False else self._by_itself(found)

    def _by_itself(self, schema: object) -> Schema:
        """A part of the parameters' schema, which finds there what it refers to."""
        if not isinstance(schema, Mapping):
            return {}
        if not self._has_references:
            return {**self._shared, **schema} if self._shared else schema
        if self._shared_refers_to_root or any(not one.startswith(SHARED) for one in _references(schema)):
            return {**_moved(schema), "$defs": {ROOT: _moved(self.parameters)}}
        return {**self._shared, **schema}

    @cached_property
    def _shared(self) -> dict[str, Any]:
        """What a part of the schema takes with it."""
        return {key: self.parameters[key] for key in ("$defs", "definitions") if key in self.parameters}

    @cached_property
    def _has_references(self) -> bool:
        return next(_references(self.parameters), None) is not None

    @cached_property
    def _shared_refers_to_root(self) -> bool:
        """Whether what is shared refers to what is not."""
        return any(not one.startswith(SHARED) for one in _references(self._shared))

    @cached_property
    def required(self) -> list[str]:
        found = self.parameters.get("required")
        return [key for key in found if key in self.properties] if isinstance(found, list) else []

    def schema(self, key: str) -> Schema:
        """That of one parameter. One that `properties` does not name may be given by any other name."""
        return self.properties.get(key, self.others or {})

    @cached_property
    def _schemas(self) -> ToolSchemas:
        return ToolSchemas([{"function": {"name": self.name, "parameters": dict(self.parameters)}}])

    @cached_property
    def _kinds(self) -> dict[str, frozenset[str]]:
        """What `kinds` has found."""
        return {}

    def kinds(self, key: str) -> frozenset[str]:
        """The types of JSON that an argument may have; empty: any."""
        found = self._kinds.get(key)
        if found is None:
            found = self._kinds[key] = self._schemas.kinds(self.name, key)
        return found

    def is_text(self, key: str) -> bool:
        """Whether an argument is a string, or may be one."""
        kinds = self.kinds(key)
        return not kinds or "string" in kinds

    def choices(self, key: str) -> list[Any]:
        """The values that an argument may have, where they are listed and one of them is a string."""
        schema = self.schema(key)
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        return list(values) if isinstance(values, list) and any(isinstance(one, str) for one in values) else []


def _references(schema: object) -> Iterator[str]:
    """The references in a schema, to places of its own document."""
    pending = [schema]
    while pending:
        match pending.pop():
            case Mapping() as found:
                reference = found.get("$ref")
                if isinstance(reference, str) and reference.startswith("#"):
                    yield reference
                pending += found.values()
            case list() as found:
                pending += found


def _moved(schema: Any) -> Any:
    """A schema whose references lead to the whole one's place among the definitions."""
    if isinstance(schema, Mapping):
        made = {key: _moved(value) for key, value in schema.items()}
        reference = made.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            made["$ref"] = f"#/$defs/{ROOT}{reference[1:]}"
        return made
    return [_moved(one) for one in schema] if isinstance(schema, list) else schema
