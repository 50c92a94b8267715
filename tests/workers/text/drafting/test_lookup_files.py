"""The files of lookup: what is wrong with one is told in a line, and what was counted is there after a restart."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamabox.bindings import backend
from llamabox.bindings.ffi import load
from llamabox.bindings.model import Model, ModelParams
from llamabox.demo import ensure_demo_model
from llamabox.engine.drafting.drafter import Wish
from llamabox.engine.drafting.lookup import drafter
from llamabox.engine.drafting.lookup.cache_file import decode, decode_static, encode
from llamabox.engine.drafting.lookup.counts import gram_of
from llamabox.engine.kv.history import History
from llamabox.engine.request import DraftingParams
from llamabox.errors import OptionsError
from llamabox.wire.text_config import TextConfig
from llamabox.workers.text.drafting import lookup as files
from llamabox.workers.text.drafting import lookup_build
from llamabox.workers.text.drafting.lookup import Lookup, learns_from

N_VOCAB = 1000
N_DYNAMIC, N_LEFT = 1000, 800


def opened(n_min: int = 1, **files: Path | None) -> Lookup:
    names = {f"lookup_cache_{kind}": str(path) for kind, path in files.items() if path is not None}
    return Lookup(TextConfig(model="", lookup_ngram_min=n_min, **names), N_VOCAB)  # type: ignore[arg-type]


def say(lookup: Lookup, *tokens: int) -> None:
    lookup.drafter.propose([Wish(("r", 0), History(tokens), 1, 4, DraftingParams())])
    lookup.drafter.forget(("r", 0), tokens)


def entries(n_grams: int) -> bytes:
    return encode((gram_of((i % N_VOCAB, i // N_VOCAB)), [(1, 1)]) for i in range(n_grams))


def test_what_was_said_is_in_the_file_and_counts_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "dynamic"
    for n_times in (1, 2):
        lookup = opened(dynamic=path)
        say(lookup, 1, 2, 3)
        lookup.close()
        lookup.close()
        assert decode(path.read_bytes(), N_VOCAB) == {
            gram_of((1,)): {2: n_times},
            gram_of((2,)): {3: n_times},
            gram_of((1, 2)): {3: n_times},
        }
    assert [file.name for file in tmp_path.iterdir()] == ["dynamic"]


def test_where_nothing_was_said_no_file_is_written(tmp_path: Path) -> None:
    opened(dynamic=tmp_path / "dynamic").close()
    assert not list(tmp_path.iterdir())


def test_a_file_that_grew_too_large_is_thinned_out_and_a_full_cache_written_before_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (files, drafter):
        monkeypatch.setattr(module, "N_DYNAMIC", N_DYNAMIC)
        monkeypatch.setattr(module, "N_LEFT", N_LEFT)
    path = tmp_path / "dynamic"
    path.write_bytes(entries(N_DYNAMIC + 1))
    assert len(opened(dynamic=path).drafter.dynamic) == N_LEFT
    path.write_bytes(entries(N_DYNAMIC - 1))
    lookup = opened(dynamic=path)
    say(lookup, 7, 8, 9)
    lookup.drafter.settle()
    lookup.close()  # waits for what is being written
    assert N_LEFT <= len(decode(path.read_bytes(), N_VOCAB)) <= N_LEFT + 3


def test_a_disk_that_does_not_take_it_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    lookup = opened(dynamic=folder / "dynamic")
    say(lookup, 1, 2, 3)
    folder.rmdir()
    lookup.close()
    [line] = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert line == f"the dynamic lookup cache {folder / 'dynamic'} is not written: No such file or directory"


@pytest.mark.parametrize(
    ("kind", "write", "why"),
    [
        ("static", lambda path: None, "-lcs {} cannot be read: No such file or directory"),
        ("static", lambda path: path.mkdir(), "-lcs {} cannot be read: Is a directory"),
        (
            "static",
            lambda path: path.write_bytes(b""),
            "-lcs {}: it has no 2-grams, which are what a static cache is of",
        ),
        (
            "static",
            lambda path: path.write_bytes(entries(3)[:-4]),
            "-lcs {} is no lookup cache that can be used: it ends amid the entry at byte 56",
        ),
        (
            "dynamic",
            lambda path: path.write_bytes(b"text"),
            "-lcd {} is no lookup cache that can be used: it ends amid the entry at byte 0",
        ),
        ("dynamic", lambda path: path.mkdir(), "-lcd {} cannot be read: Is a directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(
    tmp_path: Path, kind: str, write: Callable[[Path], object], why: str
) -> None:
    path = tmp_path / "cache"
    write(path)
    with pytest.raises(OptionsError) as caught:
        opened(**{kind: path})
    assert caught.value.message == why.format(path)


def test_a_dynamic_cache_in_no_folder_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="there is no folder"):
        opened(dynamic=tmp_path / "none" / "cache")


def test_a_static_cache_says_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "static"
    path.write_bytes(encode([(gram_of((5, 6)), [(7, 3)])]))
    lookup = opened(static=path)
    [draft] = lookup.drafter.propose([Wish(("r", 0), History([5, 6]), 1, 4, DraftingParams())])
    assert draft is not None
    assert draft.tokens == [7]


@pytest.mark.parametrize(
    ("corpus", "has_file", "learns"),
    [
        ("key", False, [""]),
        ("key", True, ["", "k"]),
        ("all", False, ["", "k"]),
        ("off", False, []),
        ("off", True, ["", "k"]),
    ],
)
def test_outputs_are_counted_for_those_who_may_know_them(corpus: str, has_file: bool, learns: list[str]) -> None:
    may = learns_from(corpus, has_file=has_file)
    assert [audience for audience in ("", "k") if may(audience)] == learns


@pytest.fixture
def model() -> Iterator[Model]:
    """The demo model's vocabulary."""
    native = load()
    backend.start(native)
    with Model.load(native, ensure_demo_model(progress=False), ModelParams(vocab_only=True)) as loaded:
        yield loaded


def test_a_static_cache_is_built_from_texts(model: Model, tmp_path: Path) -> None:
    text, out = tmp_path / "text", tmp_path / "static"
    text.write_text("The cat sat on the mat.\n" * 50)
    done = build("-m", str(model.path), "-lcs", str(out), str(text), str(text))
    tokens = model.vocab.tokenize(text.read_bytes(), add_special=False, parse_special=False)
    n_grams = len({(a, b) for a, b, _ in zip(tokens, tokens[1:], tokens[2:], strict=False)})
    assert done == (0, f"{n_grams} 2-grams of {2 * len(tokens)} tokens in {out}\n")
    static = decode_static(out.read_bytes(), model.vocab.n_tokens)
    assert static.followers(gram_of(tokens[:2]))[tokens[2]] == 100


def test_texts_that_give_no_cache_are_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, out = tmp_path / "text", tmp_path / "static"
    text.touch()
    model = str(ensure_demo_model(progress=False))
    for words, why in (
        ((model, str(out), "", [str(tmp_path / "none")]), f"the text {tmp_path / 'none'} cannot be read: No such file"),
        ((model, str(out), "", [str(text)]), "there is nothing to count: 1 texts have 0 tokens"),
        ((str(text), str(out), "", [str(text)]), f"{text} "),
    ):
        assert lookup_build.main(*words) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {why}")
    assert not out.exists()


def build(*words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "llamabox", "lookup-build", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr
