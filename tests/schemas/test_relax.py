"""Schemas of pydantic and zod are followed, and what is given up of a schema is noted with its place."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import pathlib
import re
import time
import uuid
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llamabox.errors import InvalidRequest
from llamabox.schemas import patterns
from llamabox.schemas.relax import relax
from tests.schemas.walks import refusal, walk

ZOD: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("zod.json").read_text(encoding="utf-8"))
"""What zod 4.6 makes of one schema of each kind, in JSON Schema 2020-12 and for OpenAPI 3.0."""

LOOKING_AROUND = {"emoji", "isodur", "hostname"}


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Leaf(pydantic.BaseModel):
    x: int


class Tree(pydantic.BaseModel):
    kids: list[Tree] = []
    leaf: Leaf | None = None


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


Name = pydantic.constr(pattern="^[a-z]{2,9}$")
Pet = pydantic.Field(discriminator="kind")

PYDANTIC: dict[str, Any] = {
    "secret": pydantic.SecretStr, "secret bytes": pydantic.SecretBytes, "uuid": uuid.UUID, "uuid4": pydantic.UUID4,
    "path": pathlib.Path, "file path": pydantic.FilePath, "directory": pydantic.DirectoryPath,
    "date and time": datetime.datetime, "date": datetime.date, "time": datetime.time, "delta": datetime.timedelta,
    "url": pydantic.HttpUrl, "ip": pydantic.IPvAnyAddress, "network": pydantic.IPvAnyNetwork, "bytes": bytes,
    "base64": pydantic.Base64Bytes, "regex": re.Pattern[str], "dsn": pydantic.PostgresDsn, "enum": Colour,
    "literal": Literal["a", 1, None], "optional": Leaf | None, "union": Leaf | int | None, "tree": Tree,
    "numbers by name": dict[str, int], "numbers by enum": dict[Colour, int],
    "numbers by literal": dict[Literal["a", "b"], int], "numbers by pattern": dict[Name, int],
    "pair": tuple[int, str], "tuple": tuple[int, ...], "any": Any, "json": pydantic.Json[Any],
    "bounded": pydantic.conint(gt=0, lt=10, multiple_of=2), "list": pydantic.conlist(int, min_length=1, max_length=3),
    "pet": pydantic.create_model("Owner", pet=(Cat | Dog, Pet)),
}  # fmt: skip


def followed(schema: dict[str, Any]) -> list[str]:
    """Check that the schema can be followed and that what comes of it is valid; returns the notes."""
    before = json.dumps(schema)
    relaxed = relax(schema)
    assert json.dumps(schema) == before, "it was changed"
    assert refusal(relaxed.schema) is None
    # OpenAPI 3.0 is of draft 4.
    valid = (
        jsonschema.Draft4Validator if "nullable" in before or ": true" in before else jsonschema.Draft202012Validator
    )
    texts = [text for seed in range(12) if (text := walk(relaxed.schema, seed)) is not None]
    for text in texts:
        known = r"\\p{" not in before  # to Python's re, which knows no classes of Unicode
        kept = schema if not relaxed.notes and "nullable" not in before else relaxed.schema
        valid(kept if known else {}).validate(json.loads(text))
    return relaxed.notes


@pytest.mark.parametrize("kind", PYDANTIC)
@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_every_type_of_pydantic_is_followed_to_the_letter(kind: str, mode: Literal["validation"]) -> None:
    assert followed(pydantic.create_model("Made", field=(PYDANTIC[kind], ...)).model_json_schema(mode=mode)) == []


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (set[int], "#/properties/field/uniqueItems: its items must differ"),
        (frozenset[str], "#/properties/field/uniqueItems: its items must differ"),
        (decimal.Decimal, "its pattern looks around"),
    ],
)
def test_what_of_pydantic_cannot_be_kept_is_noted(kind: Any, what: str) -> None:
    schema = pydantic.create_model("Made", field=(kind, ...)).model_json_schema(mode="serialization")
    if kind is decimal.Decimal and "(?!" not in json.dumps(schema):
        schema = {"type": "string", "pattern": DECIMAL}  # what versions before 2.14 say
    [note] = followed(schema)
    assert note.endswith(what)


EMAIL = r"([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
"""Of zod before 4.1, behind what looks ahead."""

DECIMAL = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"


@pytest.mark.parametrize("kind", [kind for kind in ZOD if not kind.startswith("never")])
def test_every_schema_of_zod_is_followed(kind: str) -> None:
    notes = followed(ZOD[kind])
    name = kind.split(" ")[0]
    assert notes == (["#/properties/f/pattern: its pattern looks around"] if name in LOOKING_AROUND else [])


def test_zods_never_fits_nothing() -> None:
    assert "not" in (refusal(relax({"not": {}}).schema) or "")
    assert "unsatisfiable" in (refusal(relax(ZOD["never"]).schema) or "")


STR, INT = {"type": "string"}, {"type": "integer"}
A = {"$defs": {"A": {"type": "object", "properties": {"x": INT}}}}


@pytest.mark.parametrize(
    "schema",
    [
        {**A, "oneOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]},
        {"$defs": {"A": {"enum": ["a", 1]}, "B": {"const": 2}}, "oneOf": [{"$ref": f"#/$defs/{x}"} for x in "AB"]},
        {"anyOf": [STR, INT], "oneOf": [STR, {"type": "array", "items": INT, "maxItems": 1}]},
        {"type": "object", "propertyNames": {}, "additionalProperties": INT},
        {"type": "object", "propertyNames": True},
        {"type": "object", "propertyNames": {"description": "a name"}},
        {"type": "object", "properties": {"a": STR, "z": STR}, "propertyNames": {"enum": ["a", "b"]}},
        {"type": "object", "unevaluatedProperties": False, "properties": {"a": INT}},
        {"type": "array", "prefixItems": [INT], "unevaluatedItems": False, "minItems": 1},
        {"type": "string", "pattern": "^a$|^bb$"},
        {"type": "object", "properties": {"a": INT, "b": INT}, "minProperties": 0},
        {"type": "object", "properties": {"a": {"$recursiveRef": "#"}}, "additionalProperties": False},
        {"type": "string", "nullable": True},
        # patterns that fit listed names alone: behind them nothing is left
        {"type": "object", "properties": {"ab": INT, "a": INT}, "patternProperties": {"^ab?$": INT},
         "additionalProperties": False},
        {"type": "object", "properties": {"a": INT}, "patternProperties": {"^(a|b)$": {"minimum": 0}},
         "additionalProperties": False, "required": ["b"]},
        {"type": "object", "properties": {"a": INT, "b": INT}, "patternProperties": {"^[ab]$": {"maximum": 9}},
         "additionalProperties": False, "required": ["a", "b"]},
        {"type": "object", "properties": {"a": INT}, "patternProperties": {"^a": INT}, "additionalProperties": False},
        {"type": "object", "properties": {"a": INT}, "patternProperties": {"^a": STR}},
    ],
)  # fmt: skip
def test_what_can_be_said_in_other_words_is(schema: dict[str, Any]) -> None:
    assert [note for note in followed(schema) if "nullable" not in schema] == []


def test_keywords_that_are_null_are_absent() -> None:
    """So Go and C# write what is left out. Values that may be null stay."""
    told = {"type": "object", "properties": {"a": {**STR, "enum": None, "default": None}}, "required": None}
    told |= {"additionalProperties": None, "$defs": {"A": {"enum": ["a", None], "not": None}, "B": {"const": None}}}
    kept = {"type": "object", "properties": {"a": {**STR, "default": None}}}
    assert relax(told).schema == {**kept, "$defs": {"A": {"enum": ["a", None]}, "B": {"const": None}}}
    assert refusal(relax(told).schema) is None


@pytest.mark.parametrize(
    ("schema", "note"),
    [
        ({"not": STR}, "#: `not` excludes"),
        ({"if": {}, "then": INT}, "#: `if` depends on a condition"),
        ({"if": {"const": 1}, "then": INT, "else": STR}, "#: `if` depends on a condition"),
        ({"type": "array", "contains": INT, "minContains": 2}, "#: `contains` asks what an array contains"),
        ({"dependentRequired": {"a": ["b"]}}, "#: `dependentRequired` depends on other properties"),
        ({"oneOf": [INT, {"type": "number"}]}, "#/oneOf: more than one of its alternatives may fit"),
        ({"properties": {"a/b": {"pattern": "(?=x)y"}}}, "#/properties/a~1b/pattern: its pattern looks around"),
        ({"pattern": r"^(a)\\1$"}, "#/pattern: its pattern refers back"),
        ({"pattern": r"\\bword\\b"}, "#/pattern: its pattern asks for word boundaries"),
        (
            {"type": "object", "propertyNames": {"maxLength": 3}},
            "#/propertyNames: it restricts the names of properties",
        ),
        (
            {"type": "object", "properties": {"a": INT, "b": INT}, "minProperties": 1},
            "#/minProperties: it counts properties that may be left out",
        ),
        ({"allOf": [{"type": "object"}], "unevaluatedProperties": False}, "#/unevaluatedProperties"),
    ],
)
def test_what_is_given_up_is_noted(schema: dict[str, Any], note: str) -> None:
    [found] = followed(json.loads(json.dumps(schema).replace("\\\\\\\\", "\\\\")))
    assert found.startswith(note)


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        (DECIMAL, r"^[+-]?0*\d*\.?\d*$"),
        (r"^(?!\.)(?!.*\.\.)" + EMAIL, "^" + EMAIL),
        (r"^(?=(a(b)[)]))+?c$", "^c$"),
        (r"(?<=a)b(?<!c){2,3}", "b"),
        (r"\bno\B", "no"),
        (r"[\b(?=]\\b", r"[\b(?=]\\b"),
        ("^a$|^b|c$", None),
        ("^a$|^b$", "^(?:a|b)$"),
        (r"(a)\1", None),
        ("((", "(("),
    ],
)  # fmt: skip
def test_patterns(pattern: str, left: str | None) -> None:
    assert patterns.relax(pattern)[0] == left


@settings(max_examples=300)
@given(
    st.from_regex(r"\A([ab.+]|\\[.+]|\[ab\]|\((\?:|\?=|\?!)?(a|b?|\|){1,3}\)\??){1,6}\Z"), st.text("ab.+", max_size=6)
)
def test_a_relaxed_pattern_matches_all_that_the_pattern_does(pattern: str, text: str) -> None:
    left, _ = patterns.relax(pattern)
    try:
        whole = re.compile(pattern)
    except re.error:
        return
    if left is not None and whole.search(text):
        assert re.search(left, text)


@settings(max_examples=300)
@given(st.from_regex(r"\A\^([ab]|\[ab\]|\((\?:)?(a|b|ab|\|){1,4}\)\??|a\?){0,5}\$\Z"), st.text("ab", max_size=5))
def test_the_words_of_a_pattern_are_those_that_it_matches(pattern: str, text: str) -> None:
    found = patterns.words(pattern, at_most=1000)
    assert found is None or (text in found) == bool(re.fullmatch(pattern[1:-1], text))


KEYS = [
    "type", "format", "pattern", "oneOf", "anyOf", "allOf", "not", "if", "then", "properties", "patternProperties",
    "additionalProperties", "required", "propertyNames", "uniqueItems", "minProperties", "maxProperties", "$ref",
    "enum", "const", "$defs", "items", "prefixItems", "unevaluatedProperties", "contains", "$recursiveRef", "nullable",
    "a",
]  # fmt: skip

values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "string", "#", "^a$", "#/$defs/a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=500)
@example({"oneOf": [], "anyOf": None, "allOf": None})
@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=6))
def test_whatever_stands_in_a_schema_it_is_relaxed(schema: dict[str, Any]) -> None:
    before = json.dumps(schema)
    json.dumps(relax(schema).schema)
    json.dumps(relax(schema, strict=True).schema)
    assert json.dumps(schema) == before


def nested(key: str, n_levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(n_levels):
        schema = {key: [schema]} if key == "anyOf" else {key: {"a": schema}} if key == "properties" else {key: schema}
    return schema


@pytest.mark.parametrize("key", ["items", "properties", "anyOf", "additionalProperties"])
def test_a_schema_that_is_nested_too_deep_is_refused(key: str) -> None:
    relax(nested(key, 50))
    with pytest.raises(InvalidRequest, match="nested too deep"):
        relax(nested(key, 900))


REFERENCE = {"$ref": "#/$defs/A"}
MANY = "abcdefgh"
KNOT = {"A": {"type": "object", "required": [*MANY], "properties": dict.fromkeys(MANY, REFERENCE)}}


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": KNOT, "oneOf": [REFERENCE] * 50},
        {"properties": {"a": {}}, "additionalProperties": False, "patternProperties": {"^" + "(a|b)?" * 99 + "$": {}}},
        {"properties": {"a": {}}, "additionalProperties": False, "patternProperties": {"^" + "(" * 9000 + "$": {}}},
    ],
    ids=["references", "words", "groups"],
)
def test_a_hostile_schema_costs_no_more_than_a_large_one(schema: dict[str, Any]) -> None:
    def seconds(one: dict[str, Any]) -> float:
        """Of this thread, which others cannot hold up; regular expressions are read in C, where no work is counted."""
        start = time.thread_time()
        relax(one)
        return time.thread_time() - start

    large = {"type": "object", "properties": {f"p{i}": {"type": "string", "format": "x"} for i in range(6000)}}
    assert seconds(schema) < 10 * seconds(large)
