"""A prefix is used as a whole or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llamabox.artifacts.manifest import FORMAT, MANIFEST
from llamabox.bindings import prefix as prefixes
from llamabox.bindings.ffi import INTERFACE
from llamabox.errors import NativeMismatch, NativeMissing

HEADER = Path(__file__).resolve().parents[2] / "native" / "helper" / "llamabox_helper.h"

LOAD = """
import sys
from llamabox.bindings import ffi
from llamabox.errors import NativeError
try:
    native = ffi.load(sys.argv[1])
except NativeError as exc:
    sys.stdout.write(f"{type(exc).__name__}: {exc}")
    sys.exit(2)
sys.stdout.write(native.text(native.lib.llama_version()))
"""


def load(prefix: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Load a prefix in a process of its own: a segfault there is a negative exit code here."""
    import os

    command = [sys.executable, "-c", LOAD, str(prefix)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A prefix of its own to do harm to."""
    return Path(shutil.copytree(prefixes.packaged(), tmp_path / "prefix"))


def test_a_copied_prefix_loads_and_says_its_version(copy: Path) -> None:
    done = load(copy)
    assert (done.returncode, done.stdout) == (0, prefixes.read(copy).manifest["version"]), done.stderr


@pytest.mark.parametrize("name", ["libllama.so", "libggml-base.so", "_llamabox_llama.abi3.so"])
def test_a_replaced_file_is_refused_with_a_sentence(copy: Path, name: str) -> None:
    shutil.copy(copy / "libmtmd.so", copy / name)
    done = load(copy)
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith("NativeMismatch: ")
    assert name in done.stdout
    assert f"python build_native.py --prefix {copy}" in done.stdout


def test_one_changed_byte_is_enough(copy: Path) -> None:
    library = copy / "libllama.so"
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 1
    library.write_bytes(data)
    assert load(copy).returncode == 2


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "libggml.so").unlink()
    done = load(copy)
    assert done.returncode == 2
    assert "libggml.so is missing" in done.stdout


def test_another_libllama_in_the_environment_is_not_used(copy: Path, tmp_path: Path) -> None:
    """LD_LIBRARY_PATH comes before the DT_RUNPATH of a library, but not before its DT_RPATH."""
    decoys = tmp_path / "decoys"
    decoys.mkdir()
    for name in ("libllama.so", "libggml.so"):
        shutil.copy(copy / "libmtmd.so", decoys / name)
    assert load(copy, LD_LIBRARY_PATH=str(decoys)).returncode == 0


def test_a_preloaded_libllama_is_refused(copy: Path) -> None:
    done = load(copy, LD_PRELOAD=str(prefixes.packaged() / "libllama.so"))
    assert done.returncode == 2, done.stderr
    assert str(prefixes.packaged()) in done.stdout


def test_nothing_built_names_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(NativeMissing, match=r"python build_native\.py --prefix"):
        prefixes.read(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"format": FORMAT + 1})])
def test_a_foreign_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(NativeMismatch):
        prefixes.read(tmp_path)


def test_the_environment_names_the_prefix_unless_an_argument_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(prefixes.ENVIRONMENT, raising=False)
    assert prefixes.locate() == prefixes.packaged()
    monkeypatch.setenv(prefixes.ENVIRONMENT, str(tmp_path))
    assert prefixes.locate() == tmp_path
    assert prefixes.locate("/elsewhere") == Path("/elsewhere")


def test_helper_and_package_agree_on_the_interface() -> None:
    assert f"enum {{ LB_INTERFACE = {INTERFACE} }};" in HEADER.read_text()


def test_importing_the_package_maps_no_library() -> None:
    code = (
        "import llamabox, llamabox.bindings.ffi, llamabox.bindings.context, llamabox.bindings.sampling.sampler\n"
        "assert 'libllama' not in open('/proc/self/maps').read()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
