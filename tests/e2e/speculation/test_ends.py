"""Where a text ends inside a draft, or goes on behind a rejected one, a real model says what it says without drafts.

One server answers each request twice, with drafts and without: `speculative.n_max` 0 is without.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.server_process import ServerProcess
from tests.e2e.speculation.drafted import n_accepted, until_drafted
from tests.models.adapters import make_lora

N_CTX = 256
WORDS = "the red fox met the grey goose by the old stone bridge and they shared some bread until the moon came up"
RHYME = f"{WORDS}. "

Serve = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def server(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> ServerProcess:
    folder = tmp_path_factory.mktemp("adapters")
    loras = [make_lora(folder / name, seed=seed) for seed, name in enumerate(("a.gguf", "b.gguf"), 1)]
    words = [word for lora in loras for word in ("--lora-scaled", str(lora), "0.1")]
    return serve("-c", str(4 * N_CTX), "-np", "4", "--context-shift", "--no-warmup", *words)


def complete(server: ServerProcess, *, drafts: bool, **fields: Any) -> dict[str, Any]:
    """A greedy text behind a rhyme that it repeats."""
    body = {"prompt": RHYME * 3, "n_predict": 40, "temperature": 0, "return_tokens": True, "lora": [], **fields}
    body["speculative.n_max"] = 16 if drafts else 0
    reply: dict[str, Any] = server.ok("/completion", body)
    return reply


def told(reply: dict[str, Any]) -> tuple[Any, ...]:
    """All of an answer that drafts must not change."""
    names = ("content", "tokens", "stop_type", "stopping_word", "truncated", "tokens_predicted", "tokens_evaluated")
    return tuple(reply[name] for name in names)


def same(server: ServerProcess, *, more_than: int = -1, **fields: Any) -> dict[str, Any]:
    """The answer with `more_than` so many tokens of drafts, which is that without."""
    plain = complete(server, drafts=False, **fields)

    def ask() -> dict[str, Any]:
        drafted = complete(server, drafts=True, **fields)
        assert told(drafted) == told(plain)
        return drafted

    assert n_accepted(plain) == 0
    return until_drafted(ask, more_than=more_than)


def test_a_stop_string_ends_a_text_wherever_in_a_draft_it_is(server: ServerProcess) -> None:
    """Whole words, parts of them, and what lies across two tokens."""
    text = complete(server, drafts=False)["content"]
    for stop in (text[30:34], text[41:44], text[52:60], text[-9:-6]):
        reply = same(server, stop=[stop], more_than=0)
        assert (reply["stop_type"], reply["stopping_word"]) == ("word", stop)


def test_an_end_token_ends_a_text_inside_a_draft(server: ServerProcess) -> None:
    """The prompt shows answers and their ends; what follows the end in it must not be said."""
    turns = f"<|im_start|>user\nSay it.<|im_end|>\n<|im_start|>assistant\n{WORDS}.<|im_end|>\n"
    reply = same(server, prompt=turns * 3 + turns.partition(WORDS)[0], n_predict=80, more_than=4)
    assert reply["stop_type"] == "eos"
    assert WORDS in reply["content"]


@pytest.mark.parametrize("n_predict", [1, 2, 7, 23])
def test_a_limit_ends_a_text_inside_a_draft(server: ServerProcess, n_predict: int) -> None:
    assert same(server, n_predict=n_predict)["tokens_predicted"] == n_predict


def test_a_text_goes_on_beyond_the_contexts_end(server: ServerProcess) -> None:
    """A shift takes cells that were drafted from."""
    shifted = same(server, prompt=RHYME * 8, n_predict=120, ignore_eos=True, more_than=8)
    assert shifted["tokens_evaluated"] + shifted["tokens_predicted"] > N_CTX
    assert shifted["truncated"]


def test_texts_under_two_lora_sets_draft_side_by_side(server: ServerProcess) -> None:
    sets = [[{"id": 0, "scale": 0.1}], [{"id": 1, "scale": 0.1}], []]
    plain = [told(complete(server, drafts=False, lora=each)) for each in sets]

    def ask(lora: list[dict[str, Any]]) -> dict[str, Any]:
        return until_drafted(lambda: complete(server, drafts=True, lora=lora), more_than=2)

    with ThreadPoolExecutor(len(sets)) as pool:
        drafted = list(pool.map(ask, sets))
    assert [told(one) for one in drafted] == plain


def test_a_text_goes_on_from_a_slot_with_a_rejected_tail(server: ServerProcess) -> None:
    """A text that departs from what it copies leaves nothing of the draft: the next one starts behind it as anew."""
    copied = RHYME * 3 + "the red fox met the grey"
    foreseen = {"prediction": {"type": "content", "content": " wolf and ran away into the deep dark wood"}}
    for n_predict in (3, 6, 11):
        first = complete(server, drafts=True, prompt=copied, n_predict=n_predict, **foreseen)
        longer = copied + first["content"] + " and then"
        warm = complete(server, drafts=True, prompt=longer, n_predict=12)
        cold = complete(server, drafts=False, prompt=longer, n_predict=12, cache_prompt=False)
        assert warm["tokens_cached"] > 0
        assert told(warm) == told(cold)
