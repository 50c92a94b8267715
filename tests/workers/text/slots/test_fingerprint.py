"""What tells one model's cells from another's: every byte of its files, and every setting that they depend on."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llamabox.bindings.context import Context, ContextParams, FlashAttention, Rope, RopeScaling
from llamabox.errors import ServerFault
from llamabox.workers.text.slots.fingerprint import LENGTH_MATTERS, Fingerprint, settings_digest

CONTENT = bytes(range(256)) * 40_000
PARAMS = ContextParams(n_ctx=512, n_batch=64, n_ubatch=64, n_seq_max=2, kv_unified=False)


def files(folder: Path, *contents: bytes) -> list[Path]:
    paths = [folder / f"{number}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def key(folder: Path, *contents: bytes) -> bytes:
    fingerprint = Fingerprint(files(folder, *contents), b"")
    try:
        return fingerprint.keys().model
    finally:
        fingerprint.close()


def test_equal_files_have_equal_keys_and_any_changed_byte_another(tmp_path: Path) -> None:
    same = key(tmp_path, CONTENT, b"second part")
    assert key(tmp_path, CONTENT, b"second part") == same
    others = [(CONTENT[:-1] + b"?", b"second part"), (CONTENT, b"second paru"), (CONTENT,), (b"", CONTENT)]
    for at in (0, 5 << 20, len(CONTENT) - 1):
        others.append((CONTENT[:at] + b"\xaa" + CONTENT[at + 1 :], b"second part"))
    found = [key(tmp_path, *contents) for contents in others if contents[0] != CONTENT or len(contents) == 1]
    assert len({same, *found}) == 1 + len(found)


def test_a_file_that_was_replaced_meanwhile_is_not_taken_for_the_loaded_one(tmp_path: Path) -> None:
    expected = key(tmp_path, CONTENT)
    fingerprint = Fingerprint(files(tmp_path, CONTENT), b"")
    (tmp_path / "other").write_bytes(b"another model")
    os.replace(tmp_path / "other", tmp_path / "0")
    assert fingerprint.keys().model == expected
    fingerprint.close()


def test_a_file_that_was_changed_in_place_is_refused(tmp_path: Path) -> None:
    fingerprint = Fingerprint(files(tmp_path, CONTENT), b"")
    (tmp_path / "0").write_bytes(CONTENT + b"more")
    with pytest.raises(ServerFault, match="was changed while it was in use"):
        fingerprint.keys()
    fingerprint.close()


def test_a_file_that_cannot_be_opened_again_is_told_when_it_is_needed(tmp_path: Path) -> None:
    fingerprint = Fingerprint([tmp_path / "gone"], b"")
    with pytest.raises(ServerFault, match="could not be read again"):
        fingerprint.keys()
    fingerprint.close()


def settings(tensors: tuple[str, ...] = (), n_ctx_seq: int = 256, **changes: Any) -> bytes:
    overrides = changes.pop("overrides", {})
    steering = changes.pop("steering", b"")
    build = changes.pop("build", "b1")
    params = replace(PARAMS, **changes)
    context = SimpleNamespace(
        params=params,
        kv_unified=params.kv_unified,
        n_seq_max=params.n_seq_max,
        n_ctx_seq=n_ctx_seq,
        model=SimpleNamespace(header=SimpleNamespace(tensors=dict.fromkeys(tensors))),
    )
    return settings_digest(cast(Context, context), build, overrides, steering)


def test_each_setting_that_cells_depend_on_makes_another_key() -> None:
    ropes = [
        Rope(scaling=RopeScaling.YARN),
        Rope(freq_base=1e6),
        Rope(freq_scale=0.5),
        Rope(yarn_ext_factor=0.5),
        Rope(yarn_attn_factor=0.5),
        Rope(yarn_beta_fast=4.0),
        Rope(yarn_beta_slow=4.0),
        Rope(yarn_orig_ctx=100),
    ]
    changes: list[dict[str, Any]] = [{"rope": rope} for rope in ropes]
    changes += [{"type_k": "q8_0"}, {"type_v": "q8_0"}, {"flash_attn": FlashAttention.ON}, {"swa_full": True}]
    changes += [{"kv_unified": True}, {"n_seq_max": 3}, {"steering": b"1"}, {"build": "b2"}]
    changes += [{"overrides": {"llama.rope.freq_base": 1e6}}, {"overrides": {"llama.rope.freq_base": 2e6}}]
    found = [settings(**change) for change in ({}, *changes)]
    assert len(set(found)) == len(found)


def test_what_cells_do_not_depend_on_makes_no_other_key() -> None:
    assert settings(n_batch=32) == settings(n_ctx_seq=512) == settings(n_threads=3) == settings()
    assert settings(kv_unified=True, n_seq_max=2) == settings(kv_unified=True, n_seq_max=8)


def test_the_context_s_length_counts_where_a_model_s_rope_depends_on_it() -> None:
    assert settings((LENGTH_MATTERS,), 256) != settings((LENGTH_MATTERS,), 512)
