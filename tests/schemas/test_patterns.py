"""Patterns of schemas as regular expressions of whole texts."""

from __future__ import annotations

import re

import pytest

from llamabox.schemas.patterns import whole

TEXTS = ["", "a", "b", "ab", "xaby", "a/b", "/", "a\nb", "$", "^", "a|b", "ba", "aab", "-", "[", "12", "x12"]


@pytest.mark.parametrize(
    "pattern",
    [
        "a",
        "^a",
        "b$",
        "^ab$",
        "^(?:a|b)$",
        "a|b",
        "^(a|b)+$",
        "/",
        r"\/",
        "[/a]",
        r"[\/]",
        "^[^/]*$",
        "\n",
        r"\$",
        "[$^]",
        r"^\d+$",
        "",
        "^$",
    ],
)
def test_the_whole_of_a_text_fits_where_the_pattern_is_found_in_it(pattern: str) -> None:
    found = whole(pattern)
    assert found is not None
    assert "/" not in found.replace(r"\/", ""), "it stands between slashes"
    assert "\n" not in found
    for text in TEXTS:
        is_found = re.search(
            pattern.replace("$", r"\Z") if pattern.endswith("$") and pattern[-2:] != r"\$" else pattern, text
        )
        assert (re.fullmatch(found, text) is not None) == (is_found is not None), text


@pytest.mark.parametrize("pattern", ["^a|b$", "^a|b", "a^b", "(^a|b)", r"\bx", "a$b"])
def test_anchors_elsewhere_than_at_both_ends_are_not_followed(pattern: str) -> None:
    assert whole(pattern) is None
