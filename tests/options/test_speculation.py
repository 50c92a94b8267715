"""Options of speculation: what llama-server's types mean here, what they imply, and what contradicts what."""

from __future__ import annotations

import pytest

from llamabox.errors import OptionsError
from llamabox.options.commandline import compose, parse
from llamabox.options.speculation import NEEDS_HIDDEN_ROWS, SPEC_TYPES
from llamabox.wire.text_config import TextConfig


def text(*words: str) -> TextConfig:
    return compose(parse(words, {}))[0]


def refused(*words: str) -> str:
    with pytest.raises(OptionsError) as caught:
        text(*words)
    return caught.value.message


def test_all_that_is_set_up_may_draft_by_default() -> None:
    assert text("-md", "f") == text("-md", "f", "--spec", "auto")
    assert (text().spec, text().spec_types, text().lookup_ngram_min) == ("auto", ("text", "lookup", "model", "mtp"), 0)


@pytest.mark.parametrize("words", ["--spec off", "--spec-type none", "--spec-type ngram-mod,none", "--draft -1"])
def test_ways_to_turn_it_off(words: str) -> None:
    config = text(*words.split())
    assert (config.spec, config.spec_types) == ("off", ())


@pytest.mark.parametrize(("name", "kind"), [pair for pair in SPEC_TYPES.items() if pair[0] != "draft-mtp"])
def test_types_add_up_over_uses_and_commas(name: str, kind: str) -> None:
    model = ["-md", "f"]
    assert text(*model, "--spec-type", f"draft-simple,{name}").spec_types == tuple(dict.fromkeys(("model", kind)))
    twice = text(*model, "--spec-type", "draft-simple", "--spec-type", name)
    assert twice == text(*model, "--spec-type", f"draft-simple,{name}")
    assert text(*model, "--spec-type", "none", "--spec-type", "draft-simple").spec_types == ("model",)


def test_heads_of_the_model_are_asked_for_by_llama_servers_word() -> None:
    assert text("--spec-type", "draft-mtp").spec_types == ("mtp",)
    assert text("--spec-type", "ngram-mod,draft-mtp").spec_types == ("text", "mtp")


def test_counting_n_grams_begins_with_what_asks_for_it() -> None:
    assert [text(*words.split()).lookup_ngram_min for words in ("-lcs f", "-lcd f", "--spec-type ngram-cache")] == [
        1
    ] * 3
    assert text("-lcs", "f", "--lookup-ngram-min", "3").lookup_ngram_min == 3


@pytest.mark.parametrize("name", sorted(NEEDS_HIDDEN_ROWS))
def test_types_that_are_not_supported_say_what_is(name: str) -> None:
    message = refused("--spec-type", name)
    assert name in message
    assert "draft-simple" in message


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--spec off -md f", "--spec off and -md"),
        ("--spec off --spec-type ngram-mod", "--spec off and --spec-type"),
        ("--spec off -lcs f", "--spec off and -lcs"),
        ("--spec-type none -lcd f", "--spec-type none and -lcd"),
        ("--draft 0 -md f", "--spec-draft-n-max 0 and -md"),
        ("--draft 0 --lookup-ngram-min 2", "--spec-draft-n-max 0 and --lookup-ngram-min"),
        ("--spec-type draft-simple", "name its file with -md"),
        ("--spec-type ngram-mod -md f", "add draft-simple"),
        ("--spec-type draft-mtp -md f", "leave out it, or -md"),
        ("--spec-type draft-mtp,draft-simple -md f", "leave out it, or -md"),
        ("--rerank --spec-type draft-mtp", "--rerank and --spec-type draft-mtp"),
        ("--spec-type ngram-mod -lcs f", "leaves -lcs unused: add ngram-cache"),
        ("--spec-default --lookup-ngram-min 2", "leaves --lookup-ngram-min unused"),
        ("-lcd f --lookup-ngram-min 0", "-lcd"),
        ("--spec-type ngram-cache --lookup-ngram-min 0", "ngram-cache"),
        ("--spec-draft-n-min 8 --draft 4", "--spec-draft-n-min 8 is above --spec-draft-n-max 4"),
        ("-md f -ctvd q8_0 -fa off", "-ctvd q8_0 needs flash attention"),
        ("--rerank -md f", "--rerank and -md"),
        ("--spec maybe", "auto, off"),
        ("--spec-type , ", "ngram-simple"),
        ("--spec-type ngrams", "there is no ngrams"),
        ("--spec-corpus mine", "off, key, all"),
        ("--lookup-ngram-min 5", "0 to 4"),
        ("--spec-draft-p-min 1.5", "0 to 1"),
    ],
)
def test_contradictions_and_wrong_values_are_named(words: str, named: str) -> None:
    assert named in refused(*words.split())


def test_what_changes_nothing_is_warned_about() -> None:
    assert parse(["-ngld", "3"], {}).warnings == ("-ngld has no effect without -md",)
    assert parse(["--spec", "off", "--spec-corpus", "all"], {}).warnings == (
        "--spec-corpus has no effect with --spec off",
    )
    assert parse(["--draft", "0"], {}).warnings == ()
    assert parse(["--draft", "0", "--spec-draft-p-min", "0.5"], {}).warnings == (
        "--spec-draft-p-min has no effect with --spec-draft-n-max 0",
    )
