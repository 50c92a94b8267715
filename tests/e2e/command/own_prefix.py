"""A prefix built from a changed copy of llama.cpp's sources: another version string, one struct longer by a field.

`python -m tests.e2e.command.own_prefix FOLDER` makes it as FOLDER/prefix: a minute's work of all cores, in the first
run on a machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from native.build.cache import cache_folder
from native.build.sources import fetch, read_versions, unpack

ROOT = Path(__file__).parents[3]
VERSION = "98.76.54"
FIELD = "struct llama_context * ctx_other;"
HASTY = "-DCMAKE_C_FLAGS_RELEASE='-O0 -DNDEBUG' -DCMAKE_CXX_FLAGS_RELEASE='-O0 -DNDEBUG -U__AMX_INT8__'"
"""CMake's words for libraries that say eight tokens: to make them fast would take longer than to use them slow."""

UNITY = "set_target_properties({0} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 16)\n"
IN_HASTE = {
    "src/CMakeLists.txt": UNITY.format("llama"),
    "tools/mtmd/CMakeLists.txt": UNITY.format("mtmd")
    + "set_source_files_properties(mtmd-helper.cpp mtmd-helper-gen.cpp PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)\n",
}
"""Lines that have CMake compile sixteen files as one: their headers, which are most of the work, are read once."""


def build(folder: Path) -> int:
    """Build it by the one command that users have for it. Returns the exit status of that."""
    source = read_versions()
    checkout = folder / "llama.cpp"
    unpack(fetch(source, cache_folder() / "downloads"), source, checkout)
    _replace(checkout / "CMakeLists.txt", 'set(LLAMA_VERSION "${LLAMA_VERSION_BASE}', f'set(LLAMA_VERSION "{VERSION}')
    _replace(checkout / "include/llama.h", FIELD, f"{FIELD}\n        int64_t a_field_of_my_own;")
    for name, lines in IN_HASTE.items():
        with (checkout / name).open("a") as file:
            file.write(f"\n{lines}")
    words = ("--llama-cpp", str(checkout), "--prefix", str(folder / "prefix"), "--without-images")
    command = [sys.executable, "build_native.py", *words]
    return subprocess.run(command, check=False, cwd=ROOT, env={**os.environ, "CMAKE_ARGS": HASTY}).returncode


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} no longer says {old!r}"
    path.write_text(text.replace(old, new))


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1])))
