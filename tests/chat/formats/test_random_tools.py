"""Whatever the tools: calls that a form's grammar allows are read as calls that fit the schemas.

`LLAMABOX_TOOL_EXAMPLES=200 pytest -o faulthandler_timeout=0 tests/chat/formats/test_random_tools.py` tries more.
"""

from __future__ import annotations

import json
import os
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamabox.server.conversation.calling import make_tools
from tests.chat.formats.reading import read
from tests.chat.formats.test_answer_grammar import FORMS, Demand, vocabulary, written
from tests.chat.formats.test_failures import HARMONY

N_EXAMPLES = int(os.environ.get("LLAMABOX_TOOL_EXAMPLES", "2"))

COUNT = {"type": "integer", "minimum": 0, "maximum": 99}
"""All values have bounds: what is written by chance must come to an end."""

names = st.text(alphabet="abc_", min_size=1, max_size=6)
plain = st.sampled_from(
    [
        {"type": "string", "maxLength": 8},
        {"type": "string", "pattern": "^[ab]{2}-[0-9]{1,3}$"},
        {"type": "string", "pattern": "a/|<b>", "maxLength": 8},
        COUNT,
        {"enum": [1.5, 2]},
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["a", "b c", 'd"e']},
        {"enum": [1, "x", None]},
        {"const": "k"},
        {"type": ["integer", "null"], "minimum": 0, "maximum": 99},
        {"const": False},
        {"type": ["string", "null"], "maxLength": 6},
        {"anyOf": [{"type": "string", "minLength": 2, "maxLength": 3}, {"type": "boolean"}, {"enum": ["in full"]}]},
        {"anyOf": [COUNT, {"type": "boolean"}]},
        {"$ref": "#/$defs/n"},
    ]
)
nested = st.one_of(
    plain,
    st.builds(lambda item: {"type": "array", "items": item, "maxItems": 2}, plain),
    st.builds(
        lambda inner: {
            "type": "object",
            "properties": inner,
            "required": sorted(inner)[:1],
            "additionalProperties": False,
        },
        st.dictionaries(names, plain, max_size=2),
    ),
)


@st.composite
def functions(draw: st.DrawFn) -> list[dict[str, Any]]:
    made = []
    for i in range(draw(st.integers(1, 3))):
        properties = draw(st.dictionaries(names, nested, max_size=4))
        required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
        parameters = {"type": "object", "properties": properties, "required": required}
        made.append({"name": f"tool_{i}", "parameters": {**parameters, "$defs": {"n": COUNT}}})
    return made


@pytest.mark.parametrize("name", FORMS)
@given(functions=functions(), seed=st.integers(0, 1000))
@settings(max_examples=N_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_required_calls_fit_random_schemas(name: str, functions: list[dict[str, Any]], seed: int) -> None:
    form = FORMS[name]
    words = vocabulary(form)
    tools, _ = make_tools([(f"tools[{i}].function", one) for i, one in enumerate(functions)])
    demand = Demand(tools=tuple(tools.values()), must_call=True, parallel=seed % 2 == 0)
    text = written(form, words, demand, seed)
    shown = [{"type": "function", "function": one} for one in functions]
    found = read(form, [text], tools=shown, prompt="<|start|>assistant" if form is HARMONY else "")
    assert found.calls, text
    schemas = {one["name"]: one["parameters"] for one in functions}
    for _, called, arguments in found.calls:
        jsonschema.validate(json.loads(arguments), schemas[called])
