"""Who drafts is what the options say."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llamabox.engine.drafting.drafter import Source, Wish
from llamabox.engine.kv.history import History
from llamabox.engine.request import DraftingParams
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.drafting.heads.wanted import may_have_heads
from llamabox.workers.text.loading.drafters import drafter_names, make_drafters

TARGET: Any = SimpleNamespace(vocab=SimpleNamespace(n_tokens=1000))


def sources(config: TextConfig) -> list[Source]:
    """Where drafts come from for a text that repeats itself, and for one that was said before."""
    found = []
    with ExitStack() as owned:
        for drafter in make_drafters(config, TARGET, None, None, owned):
            for name, cells in (("one", History([1, 2, 3, 4, 5, 1, 2, 3])), ("other", History([9, 3, 4]))):
                [draft] = drafter.propose([Wish((name, 0), cells, 4, 100, DraftingParams())])
                if draft is not None:
                    assert len(draft.tokens) <= config.spec_n_max
                    found.append(draft.source)
                drafter.forget((name, 0), cells.keys())
    return found


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [Source.HISTORY, Source.CORPUS]),
        ({"spec_n_max": 3}, [Source.HISTORY, Source.CORPUS]),
        ({"spec_corpus": "off"}, [Source.HISTORY]),
        ({"lookup_ngram_min": 1}, [Source.HISTORY, Source.CORPUS, Source.LOOKUP]),
        ({"lookup_ngram_min": 1, "spec_types": ("lookup",)}, [Source.LOOKUP]),
        ({"lookup_ngram_min": 1, "spec_types": ("text",)}, [Source.HISTORY, Source.CORPUS]),
        ({"spec": "off", "lookup_ngram_min": 1}, []),
        ({"spec_n_max": 0, "lookup_ngram_min": 1}, []),
        ({"spec_types": ()}, []),
    ],
)
def test_options_say_who_drafts(fields: dict[str, Any], expected: list[Source]) -> None:
    config = TextConfig(model="", **fields)
    assert sources(config) == expected
    assert {"text": Source.HISTORY in expected, "lookup": Source.LOOKUP in expected} == {
        name: name in drafter_names(config, has_heads=True) for name in ("text", "lookup")
    }
    for has_heads in (True, False):
        names = drafter_names(config, has_heads=has_heads)
        assert ("mtp" in names) == (has_heads and may_have_heads(config))


def test_a_lookup_cache_is_written_when_the_model_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    sources(TextConfig(model="", lookup_ngram_min=1, lookup_cache_dynamic=str(path)))
    assert path.exists()
