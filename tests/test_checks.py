"""One checker for each kind of value: what it takes, what it says, and that nobody writes another one."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamabox import checks
from llamabox.errors import BodyTooLarge, InvalidRequest

ROOT = Path(__file__).parents[1] / "llamabox"

CHECKERS: list[tuple[Callable[[str, Any], Any], list[Any], list[Any]]] = [
    (checks.boolean, [True, False], [0, 1, "true", None, []]),
    (lambda field, value: checks.integer(field, value, 0, 9), [0, 9, 3.0], [True, "3", 3.5, -1, 10, 1e300, None]),
    (lambda field, value: checks.number(field, value, 0, 9), [0, 9.0, 3.5], [True, "3", -0.1, 9.1, float("nan"), None]),
    (checks.string, ["", "a"], [5, None, ["a"]]),
    (lambda field, value: checks.one_of(field, value, ("a", "b")), ["a", "b"], ["c", "", 5, ["a"]]),
    (lambda field, value: checks.strings(field, value, max_count=2, max_length=3), [[], ["abc"]], ["a", [5], ["abcd"]]),
    (checks.mapping, [{}, {"a": None}], [[], "{}", 5]),
]


@pytest.mark.parametrize(("check", "right", "wrong"), CHECKERS, ids=range(len(CHECKERS)))
def test_a_checker_gives_back_what_is_right_and_names_the_field_of_what_is_not(
    check: Callable[[str, Any], Any], right: list[Any], wrong: list[Any]
) -> None:
    assert [check("x.y", value) for value in right] == right
    for value in wrong:
        with pytest.raises(InvalidRequest) as caught:
            check("x.y", value)
        assert caught.value.field == "x.y"
        assert caught.value.message.startswith("Field 'x.y': ")


def test_what_is_left_out_is_the_default_and_what_is_there_is_checked() -> None:
    body = {"flag": True, "whole": 3.0, "real": 1}
    assert (checks.flag(body, "flag", None), checks.flag(body, "other", None)) == (True, None)
    assert (checks.whole(body, "whole", 0, 9, 5), checks.whole(body, "other", 0, 9, 5)) == (3, 5)
    assert (checks.real(body, "real", 0, 9, None), checks.real(body, "other", 0, 9, None)) == (1.0, None)
    assert (checks.first_present(body, ("other", "real", "flag")), checks.first_present(body, ())) == ("real", None)
    with pytest.raises(InvalidRequest, match="'whole': must be between 5 and 9, not 3"):
        checks.whole(body, "whole", 5, 9, 5)


def test_nobody_else_writes_the_sentence_that_names_a_field() -> None:
    """A parser with a sentence of its own has a checker of its own, too."""
    named = re.compile(r"InvalidRequest\(f?[\"']+Field '")
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("server", "chat")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and named.match(ast.unparse(node))
    ]
    assert found == []


@pytest.mark.parametrize("text", ['"a"', "[]", "{}", "[[1]]", '{"a":1}'])
@pytest.mark.parametrize("n_values", [3, 400])
def test_the_values_of_a_body_are_bounded_however_they_are_written(
    text: str, n_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a long string too, which has none."""
    body = f'{{"values":[{",".join([text] * n_values)}],"picture":"{"A" * 5000}","other":1}}'.encode()
    n_separators = sum(map(body.count, (b",", b"[", b"{")))
    monkeypatch.setattr(checks, "MAX_VALUES", n_separators)
    assert len(checks.parse_body(bytearray(body))["values"]) == n_values
    monkeypatch.setattr(checks, "MAX_VALUES", n_separators - 1)
    with pytest.raises(BodyTooLarge, match="values"):
        checks.parse_body(body)
