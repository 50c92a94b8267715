"""A verdict holds for what it was found with, and no longer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llamabox.bindings import backend, ffi
from llamabox.bindings.context import Context, ContextParams, FlashAttention
from llamabox.bindings.model import Model, ModelParams
from llamabox.errors import DecodeError
from llamabox.workers.text.steadiness import trial
from llamabox.workers.text.steadiness.trial import is_steady
from llamabox.workers.text.steadiness.verdicts import (
    MOST,
    VARIABLE,
    Verdict,
    describe_processor,
    folder_of,
    verdict_of,
)

PARAMS = ContextParams(n_ctx=256, n_batch=64, n_ubatch=64, n_seq_max=2, n_threads=1, kv_unified=False)


@pytest.fixture(scope="module")
def native() -> ffi.Native:
    native = ffi.load()
    backend.start(native)
    return native


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {VARIABLE: str(tmp_path / "trials")}


@pytest.fixture
def context(native: ffi.Native, tiny_text: Path) -> Iterator[Context]:
    with Model.load(native, tiny_text) as model, Context(model, PARAMS) as made:
        yield made


def tried(context: Context, verdict: Verdict | None, monkeypatch: pytest.MonkeyPatch, reason: str | None) -> bool:
    """Whether it was tried; what comes of that is `reason`."""
    calls: list[Context] = []

    def try_it(given: Context) -> str | None:
        calls.append(given)
        return reason

    monkeypatch.setattr(trial, "why_unsteady", try_it)
    assert is_steady(context, tile=1, drafts=False, verdict=verdict) is (reason is None)
    return bool(calls)


@pytest.mark.parametrize("reason", [None, "a row alone differs from one in a run"])
def test_it_is_tried_once(
    context: Context, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, reason: str | None
) -> None:
    verdict = verdict_of(context, tile=1, environ=environ)
    assert verdict is not None
    assert verdict.recall() is None
    assert tried(context, verdict, monkeypatch, reason)
    assert not tried(context, verdict_of(context, tile=1, environ=environ), monkeypatch, reason)
    [kept] = verdict.folder.iterdir()
    assert kept.read_text() == (reason or "")


def test_what_could_not_be_tried_is_not_kept(
    context: Context, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(given: Context) -> str | None:
        raise DecodeError("no memory left")

    verdict = verdict_of(context, tile=1, environ=environ)
    assert verdict is not None
    monkeypatch.setattr(trial, "why_unsteady", fail)
    assert not is_steady(context, tile=1, drafts=False, verdict=verdict)
    assert verdict.recall() is None
    assert tried(context, verdict, monkeypatch, None)


def test_whatever_may_change_a_row_is_a_case_of_its_own(
    native: ffi.Native, tiny_text: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    def key(path: Path, params: ContextParams, settings: ModelParams, tile: int = 1, **variables: str) -> str:
        with Model.load(native, path, settings) as model, Context(model, params) as context:
            found = verdict_of(context, tile=tile, environ={**environ, **variables})
        assert found is not None
        return found.key

    settings = ModelParams()
    usual = key(tiny_text, PARAMS, settings)
    assert key(tiny_text, PARAMS, settings) == usual
    assert key(tiny_text, PARAMS, settings, HOME="/elsewhere") == usual
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(tiny_text.read_bytes())
    os.utime(copy, (1, 1))
    others = [
        key(copy, PARAMS, settings),
        key(tiny_text, replace(PARAMS, n_threads=2), settings),
        key(tiny_text, replace(PARAMS, flash_attn=FlashAttention.OFF), settings),
        key(tiny_text, replace(PARAMS, n_seq_max=3), settings),
        key(tiny_text, PARAMS, replace(settings, repack=False)),
        key(tiny_text, PARAMS, settings, tile=64),
        key(tiny_text, PARAMS, settings, GGML_NO_LLAMAFILE="1"),
    ]
    assert len({usual, *others}) == 1 + len(others)


@pytest.mark.parametrize("spoil", ["file", "shared", "none"])
def test_without_a_folder_of_ones_own_it_is_tried_each_time(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    folder = tmp_path / "trials"
    if spoil == "file":
        folder.touch()
    elif spoil == "shared":
        folder.mkdir()
        folder.chmod(0o777)
    verdict = verdict_of(context, tile=1, environ={VARIABLE: "" if spoil == "none" else str(folder)})
    assert (verdict is None) == (spoil != "file")
    assert all(tried(context, verdict, monkeypatch, None) for _ in range(2))


def test_those_that_nobody_asked_for_longest_go(tmp_path: Path) -> None:
    for number in range(MOST + 5):
        verdict = Verdict(tmp_path / "trials", str(number))
        verdict.keep("")
        os.utime(verdict.folder / verdict.key, (number, number))
    assert {int(path.name) for path in verdict.folder.iterdir()} == set(range(5, MOST + 5))


def test_the_usual_folder_is_in_the_cache() -> None:
    assert folder_of({"XDG_CACHE_HOME": "/c"}) == Path("/c/llamabox/trials")


def test_a_processor_is_what_computes(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    assert describe_processor(info) is None
    info.write_text("cpu MHz : 1\nflags : sse avx2\n\nflags : other\n")
    first = describe_processor(info)
    info.write_text("cpu MHz : 2\nflags : sse avx2\n")
    assert describe_processor(info) == first
    info.write_text("cpu MHz : 2\nflags : sse\n")
    assert describe_processor(info) != first
