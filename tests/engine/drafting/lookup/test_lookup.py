"""Lookup drafts by llama.cpp's rules, and its files are llama.cpp's."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Sequence as Seq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabox.engine.drafting.drafter import Source, Wish
from llamabox.engine.drafting.lookup.building import Builder
from llamabox.engine.drafting.lookup.cache_file import DamagedCache, decode, decode_static, encode
from llamabox.engine.drafting.lookup.counts import NO_STATIC, Counts, gram_of, tokens_of
from llamabox.engine.drafting.lookup.drafter import N_DYNAMIC, N_LEFT, LookupDrafter
from llamabox.engine.kv.history import History
from llamabox.engine.request import DraftingParams, Media, Words

Cache = dict[tuple[int, ...], dict[int, int]]
"""What llama.cpp has in memory, with n-grams as tuples."""

N_VOCAB = 1000
few_words = st.lists(st.integers(0, 3), max_size=40)


def counted(text: Seq[int], n_min: int) -> Cache:
    """What llama.cpp's common_ngram_cache_update counts, size by size."""
    found: Cache = defaultdict(Counter)
    for size in range(n_min, 5):
        for i in range(size, len(text)):
            found[tuple(text[i - size : i])][text[i]] += 1
    return {gram: dict(followers) for gram, followers in found.items()}


def read(data: bytes) -> Cache:
    """A reader as llama.cpp's lookup tools have it: one field after the other, until the file ends."""
    found: Cache = {}
    position = 0
    while position < len(data):
        *gram, n_followers = struct.unpack_from("<4ii", data, position)
        position += 20
        assert n_followers > 0
        followers = {}
        for _ in range(n_followers):
            token, count = struct.unpack_from("<ii", data, position)
            position += 8
            assert count > 0
            followers[token] = count
        found[tuple(token for token in gram if token >= 0)] = followers
    return found


def written(cache: Cache) -> bytes:
    return encode((gram_of(gram), followers.items()) for gram, followers in cache.items())


def counts_of(text: Seq[int], n_min: int) -> Counts:
    counts = Counts(n_min)
    counts.count(text)
    return counts


def as_cache(counts: Counts) -> Cache:
    return {tokens_of(gram): followers for gram, followers in counts.followers.items()}


LAX = [(2, 66), (2, 50), (1, 50), (1, 50)]
STRICT = [(4, 75), (3, 66), (2, 66), (2, 66)]


def naive_draft(text: Seq[int], n_most: int, n_min: int, context: Cache, dynamic: Cache, static: Cache) -> list[int]:
    """What llama.cpp's common_ngram_cache_draft adds, without its reads in front of a short text."""
    said = list(text)
    while len(said) - len(text) < n_most:
        beside = static.get(tuple(said[-2:]), {}) if len(said) >= 2 else {}
        token = -1
        for cache, limits in ((context, LAX), (dynamic, STRICT)):
            for size in range(4, n_min - 1, -1):
                followers = cache.get(tuple(said[-size:])) if len(said) >= size else None
                if token < 0 and followers:
                    n_least, percent = limits[size - n_min]
                    best = max(followers, key=lambda t: followers[t] * (100 * beside[t] if t in beside else 1))
                    total = sum(followers.values())
                    if total >= n_least and 100 * followers[best] >= percent * total:
                        token = best
        if token < 0 and sum(beside.values()) >= 2:
            best = max(beside, key=beside.__getitem__)
            token = best if 100 * beside[best] >= 50 * sum(beside.values()) else -1
        if token < 0:
            break
        said.append(token)
    return said[len(text) :]


def wish(cells: History, n_most: int = 8, name: str = "r", audience: str = "") -> Wish:
    return Wish((name, 0), cells, 1, n_most, DraftingParams(audience=audience))


def drafted(drafter: LookupDrafter, cells: History, n_most: int = 8) -> list[int]:
    [draft] = drafter.propose([wish(cells, n_most)])
    assert draft is None or draft.source is Source.LOOKUP
    return [] if draft is None else list(draft.tokens)


@given(text=few_words, n_min=st.integers(1, 4), cut=st.integers(0, 40))
def test_counts_are_llama_cpp_s_however_the_text_comes(text: list[int], n_min: int, cut: int) -> None:
    counts = Counts(n_min)
    counts.count(text[cut:], counts.count(text[:cut]))
    assert as_cache(counts) == counted(text, n_min)


@settings(max_examples=60)
@given(
    text=few_words.filter(len),
    before=few_words,
    corpus=few_words,
    n_min=st.integers(1, 4),
    n_most=st.integers(1, 12),
)
def test_drafts_are_llama_cpp_s(text: list[int], before: list[int], corpus: list[int], n_min: int, n_most: int) -> None:
    static = {gram: found for gram, found in counted(corpus, 2).items() if len(gram) == 2}
    drafter = LookupDrafter(counts_of(before, n_min), decode_static(written(static), N_VOCAB))
    expected = naive_draft(text, n_most, n_min, counted(text, n_min), counted(before, n_min), static)
    assert drafted(drafter, History(text), n_most) == expected


@given(text=few_words, n_min=st.integers(1, 4))
def test_files_are_read_by_llama_cpp_s_tools_and_theirs_by_us(text: list[int], n_min: int) -> None:
    cache = counted(text, n_min)
    assert read(written(cache)) == cache
    assert {tokens_of(gram): found for gram, found in decode(written(cache), N_VOCAB).items()} == cache
    static = decode_static(written(cache), N_VOCAB)
    for gram, found in cache.items():
        assert len(gram) != 2 or static.followers(gram_of(gram)) == found
    assert static.followers(gram_of((999, 998))) == {}


@given(texts=st.lists(few_words, max_size=4), cut=st.integers(0, 20))
def test_a_corpus_is_counted_as_llama_cpp_counts_it(texts: list[list[int]], cut: int) -> None:
    builder, expected = Builder(), defaultdict(Counter)
    for text in texts:
        builder.add(text[:cut])
        builder.add(text[cut:])
        builder.end_text()
        for gram, followers in counted(text, 2).items():
            if len(gram) == 2:
                expected[gram].update(followers)
    assert read(builder.file()) == expected
    assert builder.n_grams == len(expected)


GOOD = written({(1, 2): {3: 4}, (5,): {6: 1, 7: 2}})


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GOOD[:-1], "which is no multiple of 4"),
        (GOOD[:-4], "it ends amid the entry at byte 28"),
        (GOOD[:40], "it ends amid the entry at byte 28"),
        (struct.pack("<4ii", 1, 2, -1, -1, 0), "the entry at byte 0 has 0 tokens that follow"),
        (struct.pack("<4ii", 1, 2, -1, -1, 1 << 30), "it ends amid the entry at byte 0"),
        (struct.pack("<4iiii", -1, -1, -1, -1, 1, 3, 4), "the entry at byte 0 has no n-gram"),
        (struct.pack("<4iiii", 1, -1, 2, -1, 1, 3, 4), "the entry at byte 0 has no n-gram"),
        (struct.pack("<4iiii", 1, -2, -1, -1, 1, 3, 4), "the entry at byte 0 has no n-gram"),
        (GOOD + struct.pack("<4iiii", 1, 2, 3, -1, 1, 3, 0), "the entry at byte 64 has a token or a count that none"),
        (GOOD + struct.pack("<4iiii", 1, 2, 3, -1, 1, -3, 1), "the entry at byte 64 has a token or a count that none"),
        (struct.pack("<4iiii", 1, 2, -1, -1, 1, N_VOCAB, 4), "it is of another model: it has token 1000"),
        (struct.pack("<4iiii", 1, N_VOCAB, -1, -1, 1, 3, 4), "it is of another model: it has token 1000"),
        (b"GGUF" * 10, "it ends amid the entry at byte 0"),
    ],
)
def test_a_damaged_file_is_refused_with_where_and_why(data: bytes, why: str) -> None:
    for parse in (decode, decode_static):
        with pytest.raises(DamagedCache, match=why):
            parse(data, N_VOCAB)


@given(
    data=st.binary(max_size=120)
    | st.lists(st.integers(-2, 3), max_size=40).map(lambda w: struct.pack(f"<{len(w)}i", *w))
)
def test_any_bytes_are_a_cache_or_refused(data: bytes) -> None:
    try:
        found = decode(data, N_VOCAB)
    except DamagedCache:
        return
    assert all(gram and followers for gram, followers in found.items())
    assert all(0 <= token < N_VOCAB and count > 0 for part in found.values() for token, count in part.items())


@settings(max_examples=40)
@given(texts=st.lists(few_words, max_size=4))
def test_the_dynamic_counts_are_of_what_was_said_and_of_no_prompt(texts: list[list[int]]) -> None:
    drafter = LookupDrafter(Counts(1))
    expected: Cache = defaultdict(Counter)
    for text in texts:
        cells = History([7, 8, 9, *text])
        drafter.propose([wish(cells)])
        drafter.forget(("r", 0), text)
        for gram, followers in counted(text, 1).items():
            expected[gram].update(followers)
    drafter.settle()
    assert as_cache(drafter.dynamic) == expected


def test_a_long_prompt_is_counted_by_slices_and_drafts_begin_when_it_is_done() -> None:
    cells = History(i * i % 997 for i in range(4000))
    cells.extend([1, 2, 3, 4, 5, 6, 1, 2, 3, 4])
    drafter = LookupDrafter(Counts(2))
    drafts = [drafted(drafter, cells, 2) for _ in range(10)]
    assert drafts[0] == []
    assert drafts[-1] == [5, 6]


def test_beyond_so_many_n_grams_they_are_handed_over_and_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (N_DYNAMIC, N_LEFT) == (100_000, 80_000), "llama-box's numbers"
    monkeypatch.setattr("llamabox.engine.drafting.lookup.drafter.N_DYNAMIC", 1000)
    monkeypatch.setattr("llamabox.engine.drafting.lookup.drafter.N_LEFT", 800)
    full: list[int] = []
    drafter = LookupDrafter(Counts(1), on_full=lambda entries: full.append(len(entries)))
    for name in range(9):
        text = [name * 100 + i for i in range(70)]
        drafter.propose([wish(History(text))])
        drafter.forget(("r", 0), text)
        drafter.settle()
        assert len(drafter.dynamic) <= 1000
    assert full
    assert all(n_grams > 1000 for n_grams in full)
    counts = counts_of(range(300), 1)
    counts.thin_out(800)
    assert len(counts) == 800


def test_nothing_is_counted_across_a_picture_nor_drafted_behind_one() -> None:
    picture = Media(b"cat", 2, 2)
    cells = History.of((Words((1, 2)), picture, Words((3, 1, 2)), picture, Words((3, 1))))
    assert drafted(LookupDrafter(Counts(1)), cells) == [2]
    cells.append(2)
    assert drafted(LookupDrafter(Counts(1)), cells) == []


def test_whose_outputs_are_counted_is_asked() -> None:
    drafter = LookupDrafter(Counts(1), NO_STATIC, learns=lambda audience: audience == "mine")
    for audience in ("yours", "mine"):
        drafter.propose([wish(History([1]), name=audience, audience=audience)])
        drafter.forget((audience, 0), [ord(audience[0]), 2])
    drafter.settle()
    assert as_cache(drafter.dynamic) == {(ord("m"),): {2: 1}}


def test_a_context_shift_leaves_what_was_counted() -> None:
    cells = History([1, 2, 3, 4, 5, 9, 9, 9, 9, 9])
    drafter = LookupDrafter(Counts(2))
    assert drafted(drafter, cells, 2) == [9, 9]
    cells.discard(4, 8)
    drafter.truncated(("r", 0))
    cells.extend([8, 1, 2, 3, 4])
    assert drafted(drafter, cells, 2) == [5, 9]
