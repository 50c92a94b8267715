"""Text that comes in pieces of bytes, against the same text decoded and searched at once."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.text.detokenizer import Detokenizer, Piece
from llamabox.engine.text.stop_strings import StopStrings
from tests.engine.work import n_instructions

characters = st.text(alphabet="aé世界😀👍🏽\n", max_size=6).map(str.encode)
garbage = st.sampled_from([b"\xff", b"\xe4\xb8", b"\x80", b"\xf0\x9f", b"\xed\xa0\x80", b"\xc0\xaf"])


@st.composite
def cut(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> list[bytes]:
    """Bytes cut anywhere, into pieces that may be empty."""
    data = b"".join(draw(st.lists(source, max_size=5)))
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


any_bytes = cut(st.one_of(characters, garbage, st.binary(max_size=3)))
good_bytes = cut(characters)


def said(pieces: list[bytes]) -> list[Piece]:
    """All that a detokenizer without stop strings says, the flush last."""
    detokenizer = Detokenizer()
    found = [detokenizer.push(token, piece) for token, piece in enumerate(pieces)]
    return [piece for piece in found if piece is not None] + [detokenizer.flush()]


@settings(max_examples=300)
@given(any_bytes)
def test_the_pieces_add_up_to_the_whole_text(pieces: list[bytes]) -> None:
    assert "".join(piece.text for piece in said(pieces)) == b"".join(pieces).decode("utf-8", "replace")


@given(any_bytes)
def test_each_token_is_reported_once_and_in_order(pieces: list[bytes]) -> None:
    assert [token for piece in said(pieces) for token in piece.tokens] == list(range(len(pieces)))


@settings(max_examples=300)
@given(good_bytes)
def test_a_character_is_said_as_soon_as_it_is_whole_and_never_before(pieces: list[bytes]) -> None:
    detokenizer = Detokenizer()
    so_far, text = b"", ""
    for token, piece in enumerate(pieces):
        so_far += piece
        found = detokenizer.push(token, piece)
        text += found.text if found else ""
        assert text == so_far.decode("utf-8", "ignore")
    assert detokenizer.flush().text == ""


def test_a_token_without_text_of_its_own_is_reported_at_once() -> None:
    detokenizer = Detokenizer()
    assert detokenizer.push(5, b"") == Piece("", [5])


def test_a_token_that_ends_inside_a_character_comes_with_the_one_that_completes_it() -> None:
    detokenizer = Detokenizer()
    data = "😀".encode()
    assert [detokenizer.push(i, data[i : i + 1]) for i in range(3)] == [None, None, None]
    assert detokenizer.push(3, data[3:]) == Piece("😀", [0, 1, 2, 3])


def test_a_character_that_is_never_completed_is_replaced_at_the_end() -> None:
    detokenizer = Detokenizer()
    assert detokenizer.push(1, b"a\xf0") == Piece("a", [1])
    assert detokenizer.push(2, b"\x9f") is None
    assert detokenizer.flush() == Piece("\N{REPLACEMENT CHARACTER}", [2])
    assert detokenizer.flush() == Piece()


# Stop strings


@dataclass
class Expected:
    """What may have been shown after each piece, and where a stop string ended it."""

    shown: list[str]
    stopped_at: int | None
    cut: str
    word: str | None = None


def from_scratch(pieces: list[bytes], stop: list[str]) -> Expected:
    """Looks at the whole text again after every piece: slow and plain."""
    shown: list[str] = []
    for n in range(1, len(pieces) + 1):
        text = codecs.getincrementaldecoder("utf-8")("replace").decode(b"".join(pieces[:n]))
        places = [(text.index(word), word) for word in stop if word in text]
        if places:
            at, word = min(places)
            return Expected(shown, n, text[:at], word)
        starts = [word[:k] for word in stop for k in range(len(word))]
        n_held = max(len(start) for start in starts if text.endswith(start))
        shown.append(text[: len(text) - n_held])
    return Expected(shown, None, b"".join(pieces).decode("utf-8", "replace"))


words = st.lists(st.text(alphabet="ab\n世", min_size=1, max_size=5), min_size=1, max_size=6)
texts = cut(st.text(alphabet="ab\n世", max_size=8).map(str.encode))


@settings(max_examples=500)
@given(texts, words)
def test_stop_strings_never_show_and_hold_back_no_more_than_they_must(pieces: list[bytes], stop: list[str]) -> None:
    expected = from_scratch(pieces, stop)
    detokenizer = Detokenizer(StopStrings(tuple(stop)))
    text = ""
    tokens: list[int] = []
    for token, data in enumerate(pieces):
        found = detokenizer.push(token, data)
        if found is not None:
            text += found.text
            tokens += found.tokens
        if token + 1 == expected.stopped_at:
            assert found is not None
            assert found.stop_word == expected.word
            assert text == expected.cut
            break
        assert found is None or found.stop_word is None
        assert text == expected.shown[token]
    if expected.stopped_at is None:
        rest = detokenizer.flush()
        tokens += rest.tokens
        assert text + rest.text == expected.cut
    assert tokens == list(range(len(tokens)))
    assert len(tokens) == (expected.stopped_at or len(pieces))
    assert detokenizer.has_new_line == ("\n" in expected.cut)


@settings(max_examples=200)
@given(any_bytes, words)
def test_without_a_stop_string_in_it_the_text_is_complete_whatever_the_bytes(
    pieces: list[bytes], stop: list[str]
) -> None:
    whole = b"".join(pieces).decode("utf-8", "replace")
    detokenizer = Detokenizer(StopStrings(tuple(stop)))
    text = ""
    for token, data in enumerate(pieces):
        found = detokenizer.push(token, data)
        text += found.text if found else ""
        if found and found.stop_word:
            assert whole.startswith(text + found.stop_word)
            break
    else:
        text += detokenizer.flush().text
        assert text == whole
    assert not any(word in text for word in stop)


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["one", " ST", "OP two"], "one "),
        (["one STOP"], "one "),
        (["S", "T", "O", "P"], ""),
        (["SSTO", "P"], "S"),
        (["one\nSTOP"], "one\n"),
    ],
)
def test_a_stop_string_may_be_spread_over_tokens(pieces: list[str], shown: str) -> None:
    detokenizer = Detokenizer(StopStrings(("STOP",)))
    found = [detokenizer.push(token, piece.encode()) for token, piece in enumerate(pieces)]
    assert "".join(piece.text for piece in found if piece) == shown
    assert found[-1] is not None
    assert found[-1].stop_word == "STOP"


def test_the_stop_string_that_begins_first_wins() -> None:
    detokenizer = Detokenizer(StopStrings(("yz", "xyzt")))
    assert detokenizer.push(0, b"..xy") == Piece("..", [0])
    assert detokenizer.push(1, b"zt") == Piece("", [1], "xyzt")
    assert detokenizer.flush() == Piece()


def test_an_end_inside_a_possible_stop_string_releases_it() -> None:
    detokenizer = Detokenizer(StopStrings(("STOP",)))
    assert detokenizer.push(0, b"one STO") == Piece("one ", [0])
    assert detokenizer.flush() == Piece("STO")


def test_empty_stop_strings_stop_nothing() -> None:
    detokenizer = Detokenizer(StopStrings(("", "")))
    assert detokenizer.push(0, b"one") == Piece("one", [0])


def work_for(stop: list[str], text: str) -> int:
    """Instructions for reading `text`, a character at a time."""
    detokenizer = Detokenizer(StopStrings(stop))
    pieces = [character.encode() for character in text]
    return n_instructions(lambda: [detokenizer.push(token, piece) for token, piece in enumerate(pieces)])


def test_many_long_stop_strings_cost_a_token_no_more_than_one_short_one() -> None:
    """Each of them begins as the text does, again and again."""
    hostile = ["ab" * 31 + chr(0x4E00 + i) for i in range(256)]
    text = "ab" * 2000
    assert work_for(hostile, text) < 2 * work_for(["abc"], text)


def cut_off(text: str, n_indent: int) -> str:
    """The text up to the first word of the first line, but for the very first, that is indented too little."""
    lines = text.split("\n")
    for i, line in enumerate(lines):
        blanks = line[: len(line) - len(line.lstrip(" \t"))]
        is_last = i == len(lines) - 1
        if i and len(blanks) < n_indent and not (is_last and blanks == line):
            return "\n".join([*lines[:i], blanks])
    return text


@settings(max_examples=300)
@given(
    text=st.text(alphabet="  \t\nxé", max_size=24),
    places=st.lists(st.integers(0, 30), max_size=6),
    n_indent=st.integers(0, 3),
    stop=st.sampled_from([(), ("xx",), ("\n x",)]),
)
def test_text_ends_where_its_indentation_does(
    text: str, places: list[int], n_indent: int, stop: tuple[str, ...]
) -> None:
    """However it is cut into tokens, and whatever is held back for stop words."""
    data = text.encode()
    bounds = sorted(min(place, len(data)) for place in places)
    detokenizer = Detokenizer(StopStrings(stop), n_indent)
    said, is_cut, stopped = "", False, False
    for token, (a, b) in enumerate(zip([0, *bounds], [*bounds, len(data)], strict=True)):
        piece = detokenizer.push(token, data[a:b])
        if piece is not None:
            said += piece.text
            is_cut, stopped = piece.is_cut, piece.stop_word is not None
            if is_cut or stopped:
                break
    if not is_cut and not stopped:
        piece = detokenizer.flush()
        said += piece.text
        is_cut = piece.is_cut
    before_stop = text[: min((text.find(word) for word in stop if word in text), default=len(text))]
    expected = cut_off(before_stop, n_indent)
    assert said == expected
    assert is_cut == (expected != before_stop)


@settings(max_examples=400)
@given(
    pieces=any_bytes,
    at_once=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    stop=st.sampled_from([(), ("a世",), ("éa", "\n")]),
    n_least=st.integers(0, 4),
    marks=st.sampled_from([(), (2, 5)]),
)
def test_tokens_that_come_at_once_say_what_they_say_one_by_one(
    pieces: list[bytes], at_once: tuple[int, int], stop: tuple[str, ...], n_least: int, marks: tuple[int, ...]
) -> None:
    """In one piece, and not where a stop string ends among them: then nothing has changed."""
    ours, oracle = (Detokenizer(StopStrings(stop), marks=marks, n_least=n_least) for _ in range(2))
    first, behind = sorted(at_once)
    found: list[Piece | None] = []
    expected: list[Piece | None] = []
    token = 0
    while token < len(pieces):
        run = range(token, min(behind, len(pieces))) if token == first < behind else range(token, token + 1)
        merged = ours.push_all(run, [pieces[one] for one in run]) if len(run) > 1 else None
        if merged is None:
            found += [ours.push(one, pieces[one]) for one in run]
        else:
            found.append(merged)
        each = [oracle.push(one, pieces[one]) for one in run]
        expected += each
        is_stopped = any(one is not None and one.stop_word is not None for one in each)
        assert (merged is None) == (len(run) == 1 or is_stopped or bool(stop and n_least > token))
        if is_stopped:
            return
        token = run.stop
        assert [told(found), ours.has_new_line] == [told(expected), oracle.has_new_line]
    assert ours.flush() == oracle.flush()


def told(pieces: list[Piece | None]) -> tuple[str, list[int]]:
    there = [piece for piece in pieces if piece is not None]
    return "".join(piece.text for piece in there), [token for piece in there for token in piece.tokens]
