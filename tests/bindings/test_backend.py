"""Devices and what the build offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llamabox import libllama
from llamabox.bindings import backend, ffi
from llamabox.bindings.media import projector
from llamabox.bindings.media.projector import Projector, ProjectorParams
from llamabox.bindings.model import Model
from llamabox.errors import ModelLoadError, NativeError


def test_there_is_a_cpu_device_with_memory(native: ffi.Native) -> None:
    found = [device for device in backend.devices(native) if device.kind == "cpu"]
    assert found
    assert found[0].name == "CPU"
    assert found[0].memory_total >= found[0].memory_free > 0


def test_an_unknown_device_is_refused_and_the_known_are_named(native: ffi.Native) -> None:
    with pytest.raises(NativeError, match="CPU"):
        backend.device_handle(native, "CUDA99")


def test_the_rpc_server_can_be_reached_through_the_registry(native: ffi.Native) -> None:
    assert backend.proc_address(native, "RPC", "ggml_backend_rpc_start_server", "void *") is not None
    assert backend.proc_address(native, "RPC", "no_such_function", "void *") is None
    assert backend.proc_address(native, "no such backend", "x", "void *") is None


def test_system_info_names_the_backend(native: ffi.Native) -> None:
    assert "CPU" in backend.system_info(native)


ASK = """
from llamabox.bindings import backend, ffi
native = ffi.load()
before = backend.kernels(native)
backend.start(native)
print(before, backend.kernels(native) == native.text(native.lib.lb_use_kernels()))
"""


def test_asking_for_the_kernels_does_not_install_them() -> None:
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert done.stdout == "None True\n"


ANOTHER = """
import ctypes, pathlib, sys
from llamabox.bindings import backend, ffi, prefix
here = prefix.read(None).path
ctypes.CDLL(str(here / "libggml-base.so"))
[library, *_] = here.glob("libggml-cpu*.so")
pathlib.Path(sys.argv[1]).write_bytes(library.read_bytes().replace(b"libggml-cpu.so", b"libggml-abc.so"))  # its SONAME
ctypes.CDLL(sys.argv[1])
native = ffi.load()
backend.start(native)
bufts = "ggml_backend_buffer_type_t *(*)(ggml_backend_dev_t)"
offered = backend.proc_address(native, "CPU", "ggml_backend_dev_get_extra_bufts", bufts)
found = offered(backend.device_handle(native, "CPU"))
names = []
while found[len(names)]:
    names.append(native.text(native.lib.ggml_backend_buft_name(found[len(names)])))
print(backend.kernels(native) is not None, "CPU_LLAMABOX" in names)
"""


def test_the_kernels_are_those_of_the_cpu_backend_that_computes(tmp_path: Path) -> None:
    """A portable build's process may hold other CPU backends, which ggml tried before it chose."""
    command = [sys.executable, "-c", ANOTHER, str(tmp_path / "libggml-cpu-another.so")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    has_kernels, are_offered = done.stdout.split()
    assert has_kernels == are_offered


def test_what_options_know_of_libllama_is_so(native: ffi.Native) -> None:
    entry = native.ffi.new("struct llama_model_kv_override *")
    assert libllama.MAX_KV_TEXT + 1 == native.ffi.sizeof(entry.key) == native.ffi.sizeof(entry.val_str)
    for name in libllama.CACHE_TYPES:
        assert native.text(native.lib.ggml_type_name(getattr(native.lib, f"GGML_TYPE_{name.upper()}"))) == name


def test_build_info_has_the_library_s_own_version(native: ffi.Native) -> None:
    info = ffi.build_info(native)
    assert info["version"] == native.text(native.lib.llama_version())
    assert info["build"].startswith("b")


# ---- a libllama that lacks what a feature alone needs ----------------------------------------------------------------


@pytest.fixture
def older(native: ffi.Native, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a module whose cdef has none of the optional functions. The struct says how weights are loaded."""
    monkeypatch.setattr(ffi.Native, "has", lambda self, name: name == "LLAMA_LOAD_MODE_AUTO")


def test_names_come_from_elsewhere(native: ffi.Native, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Model.load(native, model_path) as newer:
        expected = (newer.ftype, newer.vocab.suppress_tokens)
    monkeypatch.setattr(ffi.Native, "has", lambda self, name: name == "LLAMA_LOAD_MODE_AUTO")
    with Model.load(native, model_path) as model:
        assert (model.ftype, model.vocab.suppress_tokens) == expected
    info = ffi.build_info(native)
    assert info["version"] == native.prefix.manifest["version"]
    assert info["lacks"] == []


@pytest.mark.usefixtures("older")
def test_a_projector_is_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "check_projector", lambda path, model: None)
    with pytest.raises(ModelLoadError, match=r"^mm\.gguf: this build's llama\.cpp is too old for pictures and sound"):
        Projector(model, "mm.gguf", ProjectorParams())
