"""What the tests with real models share."""

from __future__ import annotations

import pytest

from llamabox.bindings import backend, ffi


@pytest.fixture(scope="module")
def native() -> ffi.Native:
    native = ffi.load()
    backend.start(native)
    return native
