"""A tool as grammars see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamabox.chat.formats.values.tools import ToolSchemas

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool whose schema can be followed. `parameters` is that of an object."""

    name: str
    parameters: Schema
    has_grammar: bool = False  # a custom tool, whose only parameter is a text of its own grammar

    @property
    def properties(self) -> dict[str, Schema]:
        """The schemas of its parameters, each with what it may refer to."""
        shared = {key: self.parameters[key] for key in ("$defs", "definitions") if key in self.parameters}
        found = self.parameters.get("properties")
        if not isinstance(found, Mapping):
            return {}
        return {key: {**shared, **one} if isinstance(one, Mapping) else shared for key, one in found.items()}

    @property
    def required(self) -> list[str]:
        found = self.parameters.get("required")
        return [key for key in found if key in self.properties] if isinstance(found, list) else []

    def is_text(self, key: str) -> bool:
        """Whether an argument is a string, or may be one."""
        schemas = ToolSchemas([{"function": {"name": self.name, "parameters": dict(self.parameters)}}])
        kinds = schemas.kinds(self.name, key)
        return not kinds or "string" in kinds

    def choices(self, key: str) -> list[str]:
        """The texts that a string may be, where they are listed."""
        schema = self.properties[key]
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(values, list) and values and all(isinstance(one, str) for one in values):
            return list(values)
        return []
