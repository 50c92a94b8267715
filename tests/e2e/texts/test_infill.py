"""/infill through a real server. The demo model has no tokens for it, so its metadata is told to name some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.server_process import ServerProcess

Serve = Callable[..., ServerProcess]

PRE, SUF, MID, SEP, REP = 11, 12, 13, 14, 4
MARKERS = tuple(
    word
    for name, token in {"pre": PRE, "suf": SUF, "mid": MID, "sep": SEP}.items()
    for word in ("--override-kv", f"tokenizer.ggml.fim_{name}_token_id=int:{token}")
)
FILES = {"input_prefix": "def add(a, b):\n    ", "input_suffix": "\n    return c\n"}
GREEDY = {"n_predict": 8, "temperature": 0, "return_tokens": True}


@pytest.fixture(scope="module")
def model(tiny_text: Path) -> Path:
    """It is all one what it says."""
    return tiny_text


def ids(server: ServerProcess, text: str) -> list[int]:
    found: list[int] = server.ok("/tokenize", {"content": text, "parse_special": False})["tokens"]
    return found


def same_as(server: ServerProcess, body: dict[str, Any], tokens: list[int]) -> None:
    """The oracle: the layout built here, token by token, and completed as such."""
    filled = server.ok("/infill", {**GREEDY, **body})
    completed = server.ok("/completion", {**GREEDY, "prompt": tokens})
    assert filled["tokens_evaluated"] == len(tokens)
    assert filled["tokens"] == completed["tokens"]
    assert filled["timings"]["cache_n"] + filled["timings"]["prompt_n"] == len(tokens)


def test_layouts(serve: Serve) -> None:
    server = serve("--infill", *MARKERS)
    repository = [REP, *ids(server, "myproject\n")]
    here = [SEP, *ids(server, "filename\n")]
    before, after = ids(server, FILES["input_prefix"]), ids(server, FILES["input_suffix"])
    same_as(server, FILES, [*repository, *here, PRE, *before, SUF, *after, MID])
    asked = ids(server, "c =")
    extra = [{"text": "import os\n", "filename": "top.py"}, {"text": "x = <|im_end|>"}]
    others = [SEP, *ids(server, "top.py\n"), *ids(server, "import os\n"), SEP, *ids(server, "tmp\n")]
    others += ids(server, "x = <|im_end|>")
    body = {**FILES, "prompt": "c =", "input_extra": extra}
    same_as(server, body, [*repository, *others, *here, PRE, *before, *asked, SUF, *after, MID])


def test_suffix_first(serve: Serve) -> None:
    server = serve("--infill", "--spm-infill", *MARKERS[:6])
    before, after = ids(server, FILES["input_prefix"]), ids(server, FILES["input_suffix"])
    same_as(server, FILES, [REP, *ids(server, "myproject\n"), SUF, *after, PRE, *before, MID])


def test_budgets(serve: Serve) -> None:
    server = serve("--infill", *MARKERS[:6], "-b", "64", "-c", "512")
    long = {"input_prefix": "one two three four " * 200, "input_suffix": " five six seven eight" * 200}
    before, after = ids(server, long["input_prefix"])[-48:], ids(server, long["input_suffix"])[:14]
    snippet = ids(server, "\n\n--- snippet ---\n\n") + ids(server, "nine ten " * 500)
    body = {**long, "input_extra": [{"text": "nine ten " * 500}]}
    n_extra = 512 - 64 - 2 * GREEDY["n_predict"]
    same_as(server, body, [*snippet[-n_extra:], PRE, *before, SUF, *after, MID])


def test_streams_and_samplers(serve: Serve) -> None:
    server = serve("--infill", *MARKERS)
    body = {**FILES, "samplers": ["top_k", "top_p", "infill"], "n_predict": 6, "seed": 3, "n_indent": 4}
    whole = server.ok("/infill", body)
    assert whole["generation_settings"]["samplers"] == ["top_k", "top_p", "infill"]
    assert whole["prompt"].startswith("<reponame>myproject")
    parts = list(server.stream("/infill", body))
    assert "".join(part["content"] for part in parts) == whole["content"]
    assert parts[-1]["stop"] is True


def test_the_infill_sampler_without_any_other_answers_in_time(serve: Serve) -> None:
    """It compares each candidate with each: the whole vocabulary would take minutes."""
    server = serve("--infill", *MARKERS)
    assert server.ok("/completion", {"prompt": "One, two,", "samplers": "i", "n_predict": 4})["content"] is not None


def test_a_model_without_markers(serve: Serve) -> None:
    response = serve("--infill").post("/infill", FILES)
    assert response.status_code == 501
    message = response.json()["error"]["message"]
    assert message.startswith("Infill is not supported by this model: prefix token is missing, suffix token")
