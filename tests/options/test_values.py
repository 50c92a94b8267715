"""Facts of libllama that the options repeat, since the server process does not load its bindings."""

from __future__ import annotations

from llamabox.bindings import context, model
from llamabox.options import values


def test_the_types_of_the_kv_memory_are_those_of_the_bindings() -> None:
    assert tuple(values.CACHE_TYPES) == context.CACHE_TYPES


def test_names_and_texts_of_metadata_have_the_room_that_libllama_has() -> None:
    assert values.MAX_KV_TEXT == model.MAX_KV_TEXT
