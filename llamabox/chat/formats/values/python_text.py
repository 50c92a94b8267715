"""Values as Python writes them, which models mix up with JSON."""

from __future__ import annotations

import ast
import json

WORDS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}


def python_value(text: str) -> str:
    """A value of Python's, or of JSON's, in JSON. What is neither is a string."""
    if text in WORDS:
        return WORDS[text]
    for read, written in (
        (ast.literal_eval, text),
        (json.loads, text),
        (ast.literal_eval, text.replace("\r", "\\r").replace("\n", "\\n")),  # a string over several lines
    ):
        try:
            return json.dumps(read(written), ensure_ascii=False, allow_nan=False)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    if len(text) > 1 and text[0] == text[-1] in "'\"":  # with its own quote in it
        text = text[1:-1]
    return json.dumps(text, ensure_ascii=False)
