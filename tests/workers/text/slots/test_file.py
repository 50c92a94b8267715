"""A slot file is taken whole, undamaged and from the same model, or not at all."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamabox.engine.kv import history
from llamabox.engine.kv.history import History
from llamabox.engine.kv.slot import SlotState
from llamabox.engine.request import LoraSet, Media, Prompt, Words
from llamabox.errors import InvalidRequest, ServerFault
from llamabox.workers.text.slots.file import CHUNK, HEAD, MAGIC, VERSION, read, write
from llamabox.workers.text.slots.fingerprint import Keys

KEY = Keys(bytes(range(32)), bytes(32))
STATE = SlotState(History((5, 6, 7)), 2, b"native state")
N_VOCAB = 100


def parts(state: SlotState) -> tuple[list[int], LoraSet, int, bytes]:
    return state.cells.keys(), state.cells.lora, state.n_exact, bytes(state.native)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    n_written = write(tmp_path / "s", KEY, STATE)
    state, n_read = read(tmp_path / "s", lambda: KEY, N_VOCAB)
    assert (parts(state), n_read) == (parts(STATE), n_written)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_cut_and_every_changed_byte_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    write(tmp_path / "s", KEY, SlotState(History((5, 6, 7), ((0, 0.5),)), 2, b"native state"), [bytes(32)])
    content = bytearray((tmp_path / "s").read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(InvalidRequest, match="Unable to restore slot"):
        read(tmp_path / "s", lambda: KEY, N_VOCAB, [bytes(32)])


PICTURE, SQUARE = Media(bytes([1]) * 32, 4, 2), Media(bytes([2]) * 32, 3, 3, is_causal=False)
WITH_PROJECTOR = replace(KEY, projector=bytes([9]) * 32)


@pytest.mark.parametrize(
    ("prompt", "n_cells"),
    [
        ((Words((5, 6)), PICTURE, Words((7,))), 7),
        ((PICTURE, SQUARE), 7),
        ((Words((5, 6)), PICTURE, SQUARE, Words((7,)), PICTURE), 13),
        ((Words((5, 6)), PICTURE), 4),
    ],
    ids=["between words", "alone", "in many places", "half computed"],
)
def test_media_are_found_again_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: Prompt, n_cells: int
) -> None:
    cells = History()
    cells.append_from(History.of(prompt), 0, n_cells)
    write(tmp_path / "s", WITH_PROJECTOR, SlotState(cells, n_cells, b"native state"))
    monkeypatch.setattr(history, "_secret", lambda: b"of another process")
    state, _ = read(tmp_path / "s", lambda: WITH_PROJECTOR, N_VOCAB)
    assert (len(state.cells), state.cells.spans) == (n_cells, cells.spans)
    asked = History.of((*prompt, Words((8,))))
    assert state.cells.common_prefix(asked) == asked.whole(n_cells)
    assert state.cells.n_positions == cells.n_positions


def test_media_of_another_projector_are_refused_and_text_does_not_depend_on_one(tmp_path: Path) -> None:
    cells = History.of((Words((5, 6)), PICTURE))
    write(tmp_path / "media", WITH_PROJECTOR, SlotState(cells, len(cells), b"native state"))
    write(tmp_path / "text", WITH_PROJECTOR, STATE)
    with pytest.raises(InvalidRequest, match="another projector: --mmproj"):
        read(tmp_path / "media", lambda: KEY, N_VOCAB)
    assert parts(read(tmp_path / "text", lambda: KEY, N_VOCAB)[0]) == parts(STATE)


@pytest.mark.parametrize(
    ("tokens", "chunk"),
    [
        ([5, 6, -1, 7], (9, 1, 1, 1)),
        ([5, 6, -1, 7], (2, 0, 1, 1)),
        ([5, 6, -1, 7], (2, 1, 0, 1)),
        ([5, 6, -1, 7], (2, 2, 1, 1)),
        ([5, -1, -1, 7], (2, 1, 1, 1)),
    ],
)
def test_chunks_that_do_not_fit_the_cells_are_refused(
    tmp_path: Path, tokens: list[int], chunk: tuple[int, int, int, int]
) -> None:
    head = HEAD.pack(MAGIC, VERSION, len(tokens), 0, 0, 1, 0, KEY.model, KEY.settings, KEY.projector)
    body = CHUNK.pack(*chunk, bytes(32)) + array("i", tokens).tobytes()
    checksum = hashlib.blake2b(head + body, digest_size=32).digest()
    (tmp_path / "s").write_bytes(head + checksum + body)
    with pytest.raises(InvalidRequest, match=r"contradict|vocabulary"):
        read(tmp_path / "s", lambda: KEY, N_VOCAB)


def test_another_model_and_a_smaller_vocabulary_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "s", KEY, STATE)
    with pytest.raises(InvalidRequest, match="another model"):
        read(tmp_path / "s", lambda: Keys(bytes(32), KEY.settings), N_VOCAB)
    with pytest.raises(InvalidRequest, match="other settings: RoPE"):
        read(tmp_path / "s", lambda: Keys(KEY.model, bytes(31) + b"1"), N_VOCAB)
    with pytest.raises(InvalidRequest, match="vocabulary"):
        read(tmp_path / "s", lambda: KEY, 7)


def test_adapters_are_known_by_their_content_and_not_by_their_number(tmp_path: Path) -> None:
    a, b, c = (bytes([number]) * 32 for number in (1, 2, 3))
    state = SlotState(History((5, 6, 7), ((0, 0.5), (2, -1.0))), 2, b"native state")
    n_written = write(tmp_path / "s", KEY, state, [a, b, c])
    found, n_read = read(tmp_path / "s", lambda: KEY, N_VOCAB, [a, b, c])
    assert (parts(found), n_read) == (parts(state), n_written)
    renumbered = SlotState(History((5, 6, 7), ((0, -1.0), (1, 0.5))), 2, b"native state")
    assert parts(read(tmp_path / "s", lambda: KEY, N_VOCAB, [c, a])[0]) == parts(renumbered)
    for known in ([], [a, b], [b, c]):
        with pytest.raises(InvalidRequest, match="LoRA adapter"):
            read(tmp_path / "s", lambda: KEY, N_VOCAB, known)


def test_an_adapter_that_is_loaded_twice_is_found_twice(tmp_path: Path) -> None:
    a = bytes([1]) * 32
    state = SlotState(History((5,), ((0, 0.5), (1, 2.0))), 1, b"")
    write(tmp_path / "s", KEY, state, [a, a])
    assert parts(read(tmp_path / "s", lambda: KEY, N_VOCAB, [a, a])[0]) == parts(state)
    with pytest.raises(InvalidRequest, match="LoRA adapter"):
        read(tmp_path / "s", lambda: KEY, N_VOCAB, [a])


def test_no_file_and_a_folder_say_so(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(InvalidRequest, match="Unable to restore slot"):
            read(path, KEY, N_VOCAB)
    with pytest.raises(ServerFault, match="cannot write"):
        write(tmp_path / "missing" / "s", KEY, STATE)
