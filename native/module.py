"""The cffi module: cdef files → C → checked against headers → compiled and linked with the libraries."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

import cffi

from native.libraries import MACOS, ORIGIN, compilers
from native.sources import BuildError

HERE = Path(__file__).parent
MODULE = "_llamabox_llama"
CDEFS = ("ggml.h", "ggml-cpu.h", "ggml-backend.h", "llama.h", "mtmd.h")  # each is named after the header it trims
HELPER = "llamabox_helper"
COMPILED = (f"{HELPER}.c", "llamabox_wide.c")
INCLUDES = ("ggml.h", "ggml-cpu.h", "ggml-backend.h", "llama.h", "mtmd.h", f"{HELPER}.h")
LINKED = ("mtmd", "llama", "ggml", "ggml-base")

STRICT = ("implicit-function-declaration", "incompatible-pointer-types", "int-conversion")
"""C warnings that here mean: the header declares something else than the cdef."""

MISSING = (
    re.compile(r"implicit declaration of function '(\w+)'"),
    re.compile(r"call to undeclared function '(\w+)'"),
    re.compile(r"(?:error: )'(\w+)' undeclared"),
    re.compile(r"use of undeclared identifier '(\w+)'"),
    re.compile(r"has no member named '(\w+)'"),
    re.compile(r"no member named '(\w+)' in"),
    re.compile(r"unknown type name '(\w+)'"),
    re.compile(r"incomplete type '(?:struct |enum )?(\w+)'"),
)


def cdef(folder: Path = HERE) -> str:
    """All that is declared to cffi, in an order in which names are known before they are used."""
    parts = [(folder / "cdef" / name).read_text() for name in CDEFS]
    helper = (folder / f"{HELPER}.h").read_text().splitlines()
    parts.append("\n".join(line for line in helper if not line.startswith("#")))
    return "\n".join(parts)


def own_code(folder: Path = HERE) -> str:
    """Everything of ours that is compiled."""
    return "".join(path.read_text() for path in sorted((*folder.glob("llamabox_*.c"), *folder.glob("llamabox_*.h"))))


def generate(target: Path, folder: Path = HERE) -> Path:
    """Write the module's C source."""
    ffi = cffi.FFI()
    ffi.cdef(cdef(folder))
    ffi.set_source(MODULE, "".join(f'#include "{name}"\n' for name in INCLUDES))
    path = target / f"{MODULE}.c"
    with contextlib.redirect_stdout(io.StringIO()):  # it says what it generates
        ffi.emit_c_code(str(path))
    return path


def compile_command(headers: list[Path], folder: Path = HERE) -> list[str]:
    compiler = compilers()["C"].split(": ")[0]
    include = [*headers, folder, Path(sysconfig.get_path("include"))]
    # Nobody reads floating-point exception flags, and for their sake GCC would put branches into loops.
    flags = ["-std=gnu11", "-O3", "-fno-trapping-math", "-fPIC"]
    return [*shlex.split(compiler), *flags, *(f"-I{path}" for path in include)]


def check(headers: list[Path], scratch: Path, folder: Path = HERE) -> None:
    """Compile the generated C for its errors only. BuildError names what the headers lack."""
    source = generate(scratch, folder)
    strict = [f"-Werror={name}" for name in STRICT]
    sources = [source, *(folder / name for name in COMPILED)]
    command = [*compile_command(headers, folder), *strict, "-fsyntax-only", *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain_locale())
    if done.returncode != 0:
        raise BuildError(explain(done.stderr, headers, folder))


def plain_locale() -> dict[str, str]:
    """An environment in which the compiler writes English and ASCII quotes."""
    return {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}


def explain(errors: str, headers: list[Path], folder: Path = HERE) -> str:
    """The compiler's errors as a sentence that names each symbol and the header it was expected in."""
    symbols = dict.fromkeys(name for pattern in MISSING for name in pattern.findall(errors))
    named = [f"{symbol} ({where})" for symbol in symbols if (where := declared_in(symbol, folder))]
    places = ", ".join(str(path) for path in headers)
    if named:
        return f"the headers in {places} lack what native/cdef declares: {', '.join(named)}"
    lines = [line for line in errors.splitlines() if "error" in line][:10]
    return f"native/cdef does not fit the headers in {places}:\n" + "\n".join(lines)


def declared_in(symbol: str, folder: Path = HERE) -> str | None:
    """The cdef file, which is also the header's name, that declares a symbol."""
    for name in CDEFS:
        if re.search(rf"\b{symbol}\b", (folder / "cdef" / name).read_text()):
            return name
    return None


def link(headers: list[Path], libraries: Path, scratch: Path, folder: Path = HERE) -> Path:
    """Compile module and helper and link them with the libraries. The result uses Python's limited API only."""
    target = scratch / f"{MODULE}.abi3.so"
    command = [
        *compile_command(headers, folder),
        str(scratch / f"{MODULE}.c"),
        *(str(folder / name) for name in COMPILED),
        *(("-bundle", "-undefined", "dynamic_lookup") if MACOS else ("-shared", "-Wl,--disable-new-dtags")),
        f"-L{libraries}",
        *(f"-l{name}" for name in LINKED),
        "-lm",
        f"-Wl,-rpath,{ORIGIN}",
        *([] if MACOS else ["-ldl", "-pthread"]),
        "-o",
        str(target),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain_locale())
    if done.returncode != 0:
        raise BuildError(f"the cffi module does not compile:\n{done.stderr[-3000:]}")
    return target
