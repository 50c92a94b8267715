"""A client's grammar for a part of an answer, as a grammar of llguidance's."""

from __future__ import annotations

from llamabox.grammar.inputs import lark, regex

OWN = "own"
"""The syntax of Lark that this server wrote."""


def input_grammar(syntax: str, definition: str, *, is_escaped: bool) -> str:
    """The Lark text for a `definition` in "lark" or "regex"; `is_escaped`: over the text of a JSON string.

    Raises InvalidRequest for what cannot be followed in one of the two, so that no client depends on a model's form.
    """
    if syntax == OWN:
        assert not is_escaped
        return definition
    if syntax == "regex":
        escaped = lark.regex_grammar(regex.in_json_string(definition))
        return escaped if is_escaped else lark.regex_grammar(definition)
    escaped = lark.in_json_string(definition)
    return escaped if is_escaped else definition
