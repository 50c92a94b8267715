"""Rewrites a JSON schema in words that llguidance knows, to say the same or nearly so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from llamabox.checks import without_nulls
from llamabox.errors import InvalidRequest
from llamabox.schemas import patterns
from llamabox.schemas.disjoint import are_disjoint, properties, strings

Schema = dict[str, Any]

MAX_DEPTH = 200
"""Names and places on the way to a schema. Python's stack has room for three times as many calls."""

MAX_REFERENCES = 32
"""References that refer to references."""

FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})
"""Formats that shape a string. All others are annotations, as the standard has it: `password`, `path`, `jwt`, …"""

BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
SINGLE = ("items", "additionalProperties", "additionalItems")
PARTS = frozenset({*BY_NAME, *LISTS, *SINGLE})
"""Keys with schemas in their values."""

ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly"}
)
APPLICATORS = ("$ref", "allOf", "anyOf", "oneOf", "if", "$dynamicRef", "$recursiveRef", "patternProperties")

NOT_FOLLOWED = {
    "not": "excludes",
    "if": "depends on a condition",
    "contains": "asks what an array contains",
    "dependentRequired": "depends on other properties",
    "dependentSchemas": "depends on other properties",
    "dependencies": "depends on other properties",
    "$dynamicRef": "refers to what is only known elsewhere",
    "$recursiveRef": "refers to what is only known elsewhere",
}
WANTED = frozenset(
    {
        *("format", "pattern", "nullable", "oneOf", "propertyNames", "patternProperties", "uniqueItems"),
        *("unevaluatedProperties", "unevaluatedItems", "minProperties", "maxProperties"),
        *NOT_FOLLOWED,
        *("then", "else", "minContains", "maxContains"),
    }
)
"""Keys that make a schema worth a closer look."""


@dataclass(slots=True)
class RelaxedSchema:
    """A schema that can be followed. `notes` name the demands that were left out, each with its place."""

    schema: Schema
    notes: list[str] = field(default_factory=list)


def relax(schema: Schema, *, strict: bool = False) -> RelaxedSchema:
    """A schema that allows the same values, where llguidance can say it; else more values, and a note of that.

    With `strict` the caller refuses a schema that has notes, and checks that llguidance makes itself are left to it.
    Keywords that are null count as absent. `schema` is not changed. Raises InvalidRequest for one that is nested too
    deep.
    """
    schema = without_nulls(schema)
    walk = _Walk(schema, strict=strict)
    found = walk.schema(schema, ("#",))
    return RelaxedSchema(found if isinstance(found, dict) else schema, walk.notes)


class _Walk:
    def __init__(self, root: Schema, *, strict: bool) -> None:
        self._root = root
        self._strict = strict
        self.notes: list[str] = []

    def schema(self, schema: Any, path: tuple[str, ...]) -> Any:
        """The schema at `path`, relaxed."""
        if not isinstance(schema, dict) or not schema:
            return schema
        if len(path) > MAX_DEPTH:
            raise InvalidRequest("it is nested too deep")
        made = dict(schema)
        self._parts(made, path)
        if made.get("not") in ({}, True) and len(path) > 1:
            return False  # as zod says that nothing fits
        if made.keys() & WANTED:
            self._string(made, path)
            self._references(made)
            self._one_of(made, path)
            self._names(made, path)
            self._closed(made)
            self._array(made, path)
            self._counts(made, path)
            self._drop(made, path)
        return made

    def _drop(self, made: Schema, path: tuple[str, ...]) -> None:
        """Drop the keywords that cannot be followed, with those that mean something only beside them."""
        if "if" in made and not made.keys() & {"then", "else"}:
            del made["if"]
        for key, what in NOT_FOLLOWED.items():
            if key not in made or (key == "not" and made[key] in ({}, True)):
                continue
            if made.pop(key) != {} or key in ("if", "contains"):
                self._note(path, f"`{key}` {what}")
        for key in ("then", "else", "minContains", "maxContains"):
            made.pop(key, None)

    def _parts(self, made: Schema, path: tuple[str, ...]) -> None:
        if PARTS.isdisjoint(made):  # most have none, and a request may have thousands
            return
        for key in BY_NAME:
            if isinstance(made.get(key), dict):
                made[key] = {name: self.schema(one, (*path, key, name)) for name, one in made[key].items()}
        for key in LISTS:
            if isinstance(made.get(key), list):
                made[key] = [self.schema(one, (*path, key, str(i))) for i, one in enumerate(made[key])]
        for key in SINGLE:
            if isinstance(made.get(key), dict):
                made[key] = self.schema(made[key], (*path, key))

    def _string(self, made: Schema, path: tuple[str, ...]) -> None:
        if "format" in made and not (isinstance(made["format"], str) and made["format"] in FORMATS):
            del made["format"]
        if isinstance(made.get("pattern"), str):
            left, what = patterns.relax(made["pattern"])
            if what:
                self._note((*path, "pattern"), what)
            if left is None:
                del made["pattern"]
            else:
                made["pattern"] = left
        if made.get("nullable") is True and isinstance(made.get("type"), str):  # OpenAPI 3.0's way
            made["type"] = [made["type"], "null"]

    def _references(self, made: Schema) -> None:
        for key in ("$recursiveRef", "$dynamicRef"):
            if made.get(key) == "#" and "$ref" not in made:
                made["$ref"] = made.pop(key)

    def _one_of(self, made: Schema, path: tuple[str, ...]) -> None:
        """Write `oneOf` as `anyOf`, which is the same where no value fits two of the alternatives."""
        alternatives = made.get("oneOf")
        if not isinstance(alternatives, list):
            return
        if not are_disjoint(alternatives, self._resolve):
            if self._strict and not any(isinstance(one, dict) and "$ref" in one for one in alternatives):
                return
            self._note((*path, "oneOf"), "more than one of its alternatives may fit")
        del made["oneOf"]
        if "anyOf" in made:
            others = made.get("allOf", [])
            if isinstance(others, list):  # else it stays as it is, for the compiler to refuse
                made["allOf"] = [*others, {"anyOf": alternatives}]
        else:
            made["anyOf"] = alternatives

    def _names(self, made: Schema, path: tuple[str, ...]) -> None:
        """`propertyNames`, by listing the names or as the pattern of all properties."""
        if "propertyNames" not in made:
            return
        rule = self._resolve(made.pop("propertyNames"))
        if isinstance(rule, dict):
            rule = {key: value for key, value in rule.items() if key not in ANNOTATIONS}
            if rule.get("type") == "string":
                del rule["type"]
        if rule is True or rule == {}:
            return
        names = rule.get("enum", [rule["const"]] if "const" in rule else None) if isinstance(rule, dict) else None
        others = made.get("additionalProperties", True)
        if isinstance(names, list) and "patternProperties" not in made and rule.keys() <= {"enum", "const"}:
            listed = properties(made)
            order = [*listed, *(name for name in names if isinstance(name, str) and name not in listed)]
            kept = {name: listed.get(name, others) for name in order if name in names}
            made |= {"properties": kept, "additionalProperties": False}
        elif (
            isinstance(rule, dict)
            and rule.keys() == {"pattern"}
            and isinstance(rule["pattern"], str)
            and not (made.keys() & {"properties", "patternProperties", "required"})
        ):
            left, what = patterns.relax(rule["pattern"])
            if what:
                self._note((*path, "propertyNames", "pattern"), what)
            if left is not None:
                made |= {"patternProperties": {left: others}, "additionalProperties": False}
        else:
            self._note((*path, "propertyNames"), "it restricts the names of properties")

    def _closed(self, made: Schema) -> None:
        """List the properties of patterns that fit listed names alone: nothing would be left to follow them."""
        by_pattern = made.get("patternProperties")
        if not isinstance(by_pattern, dict) or made.get("additionalProperties", True) is not False:
            return
        listed = dict(properties(made))
        known = {*listed, *strings(made.get("required"))}
        left = dict(by_pattern)
        for pattern, rule in by_pattern.items():
            words = patterns.words(pattern, at_most=len(known))
            if words is not None and words <= known:
                del left[pattern]
                listed |= {word: {"allOf": [listed[word], rule]} if word in listed else rule for word in sorted(words)}
        if len(left) < len(by_pattern):
            made |= {"properties": listed, "patternProperties": left}

    def _array(self, made: Schema, path: tuple[str, ...]) -> None:
        if made.pop("uniqueItems", False) is True and made.get("maxItems") not in (0, 1):
            self._note((*path, "uniqueItems"), "its items must differ")
        for key, same in (("unevaluatedProperties", "additionalProperties"), ("unevaluatedItems", "items")):
            rule = made.pop(key, True)
            if rule is False and not any(other in made for other in APPLICATORS):
                made.setdefault(same, False)
            elif rule not in (True, {}):
                self._note((*path, key), "it depends on what others look at")

    def _counts(self, made: Schema, path: tuple[str, ...]) -> None:
        """The bounds of how many properties there are: llguidance counts only where all listed ones are required."""
        required = set(strings(made.get("required")))
        least = made.get("minProperties")
        if isinstance(least, int | float) and least <= len(required):
            del made["minProperties"]
        counts = [key for key in ("minProperties", "maxProperties") if key in made]
        if counts and not properties(made).keys() <= required:
            for key in counts:
                del made[key]
            self._note((*path, counts[0]), "it counts properties that may be left out")

    def _resolve(self, schema: Any) -> Any:
        """The schema that a reference within the document refers to; the schema itself where it is no reference."""
        for _ in range(MAX_REFERENCES):
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                return schema
            if schema.keys() - ANNOTATIONS != {"$ref"} or not schema["$ref"].startswith("#"):
                return schema
            found: Any = self._root
            for part in unquote(schema["$ref"])[1:].split("/")[1:]:
                name = part.replace("~1", "/").replace("~0", "~")
                if isinstance(found, list):
                    found = found[int(name)] if name.isdecimal() and int(name) < len(found) else None
                else:
                    found = found.get(name) if isinstance(found, dict) else None
            schema = found
        return schema

    def _note(self, path: tuple[str, ...], what: str) -> None:
        escaped = (part.replace("~", "~0").replace("/", "~1") for part in path)
        self.notes.append(f"{'/'.join(escaped)}: {what}")
