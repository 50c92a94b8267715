"""The cffi modules, one for each library: cdef files → C → checked against headers → compiled and linked."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import cffi

from native.build import optional
from native.build.libraries import MACOS, NATIVE, ORIGIN, compilers, plain_locale
from native.build.sources import BuildError

HELPER = "helper"
"""Folder of the C sources that are compiled into the modules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """The parts of one cffi module. Each cdef is named after the header it trims; `own` are headers of ours."""

    name: str
    cdefs: tuple[str, ...]
    own: tuple[str, ...]
    compiled: tuple[str, ...]  # C, and C++ by its suffix
    linked: tuple[str, ...]
    extern: str = ""  # callbacks into Python, declared to cffi alone
    probes: tuple[tuple[str, str], ...] = ()  # macro, and the pattern in the headers for which it is defined


LLAMA = Module(
    name="_llamabox_llama",
    cdefs=("ggml.h", "ggml-cpu.h", "ggml-backend.h", "llama.h", "mtmd.h"),
    own=("llamabox_log.h", "llamabox_helper.h"),
    compiled=(
        "llamabox_helper.c",
        "llamabox_log.c",
        "llamabox_sample.c",
        "llamabox_wide.c",
        "llamabox_dist.c",
        "llamabox_except.c",
        "llamabox_dry.c",
        "llamabox_nextn.cpp",
    ),
    linked=("mtmd", "llama", "ggml", "ggml-base"),
    probes=(
        ("LB_LLAMA_SAMPLER_COPY", r"void\s+llama_sampler_copy\s*\("),
        ("LB_LLAMA_DRY_TAKES_CONTEXT", r"llama_sampler_init_dry\([^)]*n_ctx_train"),
        ("LB_GGML_TELLS_ABORTS", r"ggml_set_abort_callback\("),
        ("LB_LLAMA_MTP", optional.PARTS["mtp"].pattern),
        ("LB_LLAMA_MEDIA", optional.PARTS["media"].pattern),
    ),
)
DIFFUSION = Module(
    name="_llamabox_diffusion",
    cdefs=("stable-diffusion.h",),
    own=("llamabox_log.h", "llamabox_diffusion.h"),
    compiled=("llamabox_diffusion.c", "llamabox_log.c"),
    linked=("stable-diffusion",),
    # On the thread that draws, which is one of Python's.
    extern="""
extern "Python" void lb_on_progress(int step, int steps, float time, void* data);
extern "Python" void lb_on_preview(int step, int frame_count, sd_image_t* frames, bool is_noisy, void* data);
""",
    probes=(
        ("LB_SD_FREES_PARAMS", r"bool free_params_immediately;"),
        ("LB_SD_DECODES_ONLY", r"bool vae_decode_only;"),
        ("LB_SD_RETURNS_BOOL", r"bool generate_image\("),
        ("LB_SD_UPSCALER_BACKENDS", r"new_upscaler_ctx\([^)]*params_backend"),
    ),
)

STANDARDS = {"C": ("-std=gnu11",), "C++": ("-std=gnu++17", "-fno-exceptions", "-fno-rtti")}
"""Of each language. The C++ is linked as C, without the libraries of C++."""

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


def cdef(folder: Path = NATIVE, module: Module = LLAMA, headers: list[Path] | None = None) -> str:
    """The declarations for cffi, in an order in which names are known before they are used.

    Those for libraries with these headers; without any, those for the newest ones.
    """
    text = None if headers is None else optional.text_of(headers, module.cdefs)
    parts = [optional.chosen((folder / "cdef" / name).read_text(), text) for name in module.cdefs]
    for name in module.own:
        lines = (folder / HELPER / name).read_text().splitlines()
        parts.append("\n".join(line for line in lines if not line.startswith("#")))
    return "\n".join([*parts, module.extern])


def own_code(folder: Path = NATIVE) -> str:
    """Everything of ours that is compiled."""
    helper = folder / HELPER
    paths = (path for suffix in ("c", "cpp", "h") for path in helper.glob(f"*.{suffix}"))
    return "".join(path.read_text() for path in sorted(paths))


def generate(headers: list[Path], target: Path, folder: Path = NATIVE, module: Module = LLAMA) -> Path:
    """Write the C source of the module for libraries with these headers."""
    ffi = cffi.FFI()
    ffi.cdef(cdef(folder, module, headers))
    ffi.set_source(module.name, "".join(f'#include "{name}"\n' for name in (*module.cdefs, *module.own)))
    path = target / f"{module.name}.c"
    with contextlib.redirect_stdout(io.StringIO()):  # it says what it generates
        ffi.emit_c_code(str(path))
    return path


def compile_command(
    headers: list[Path], folder: Path = NATIVE, module: Module = LLAMA, language: str = "C"
) -> list[str]:
    """How sources in C, or in C++, are compiled, up to what is to be made of which."""
    compiler = compilers()[language].split(": ")[0]
    include = [*headers, folder / HELPER, python_headers()]
    # Nobody reads floating-point exception flags, and for their sake GCC would put branches into loops.
    flags = [*STANDARDS[language], "-O3", "-fno-trapping-math", "-fPIC", *probed(headers, module)]
    return [*shlex.split(compiler), *flags, *(f"-I{path}" for path in include)]


def python_headers() -> Path:
    """The folder of Python.h, which Debian has in a package of its own."""
    folder = Path(sysconfig.get_path("include"))
    if not (folder / "Python.h").is_file():
        raise BuildError(
            f"{folder} has no Python.h: install the headers of Python (Debian: apt-get install python3-dev)"
        )
    return folder


def probed(headers: list[Path], module: Module) -> list[str]:
    """The macros that tell one version of a header from another."""
    paths = [path / name for path in headers for name in module.cdefs if module.probes]
    text = "".join(path.read_text() for path in paths if path.is_file())
    return [f"-D{macro}" for macro, pattern in module.probes if re.search(pattern, text)]


def check(headers: list[Path], scratch: Path, folder: Path = NATIVE, module: Module = LLAMA) -> list[str]:
    """Compile the generated C for its errors only. BuildError names what the headers lack and must have.

    Returns what users miss with them, a sentence each.
    """
    source = generate(headers, scratch, folder, module)
    strict = [f"-Werror={name}" for name in STRICT]
    commands = [
        [*compile_command(headers, folder, module), *strict, str(source), *own_sources(module, "C", folder)],
        *([*compile_command(headers, folder, module, "C++"), path] for path in own_sources(module, "C++", folder)),
    ]
    for command in commands:
        done = subprocess.run(
            [*command, "-fsyntax-only"], capture_output=True, text=True, check=False, env=plain_locale()
        )
        if done.returncode != 0:
            raise BuildError(explain(done.stderr, headers, folder))
    return optional.lost(optional.text_of(headers, module.cdefs)) if module is LLAMA else []


def own_sources(module: Module, language: str, folder: Path = NATIVE) -> list[str]:
    """The paths of those of the module's own files that are written in C, or in C++."""
    return [str(folder / HELPER / name) for name in module.compiled if name.endswith(".cpp") == (language == "C++")]


def explain(errors: str, headers: list[Path], folder: Path = NATIVE) -> str:
    """The compiler's errors as a sentence that names each symbol and the header it was expected in."""
    symbols = dict.fromkeys(name for pattern in MISSING for name in pattern.findall(errors))
    named = [f"{symbol} ({where})" for symbol in symbols if (where := declared_in(symbol, folder))]
    places = ", ".join(str(path) for path in headers)
    if named:
        return f"the headers in {places} lack what native/cdef declares: {', '.join(named)}"
    lines = [line for line in errors.splitlines() if "error" in line][:10]
    return f"native/cdef does not fit the headers in {places}:\n" + "\n".join(lines)


def declared_in(symbol: str, folder: Path = NATIVE) -> str | None:
    """The cdef file, which is also the header's name, that declares a symbol."""
    for name in (*LLAMA.cdefs, *DIFFUSION.cdefs):
        if re.search(rf"\b{symbol}\b", (folder / "cdef" / name).read_text()):
            return name
    return None


def linked(headers: list[Path], module: Module = LLAMA) -> list[str]:
    """The libraries that the module needs. An older llama.cpp builds libmtmd with its tools alone, so not here."""
    has_media = module is not LLAMA or optional.declares(optional.text_of(headers, module.cdefs), "media")
    return [name for name in module.linked if has_media or name != "mtmd"]


def link(headers: list[Path], libraries: Path, scratch: Path, module: Module = LLAMA) -> Path:
    """Compile module and helpers and link them with the libraries. The result uses Python's limited API only."""
    target = scratch / f"{module.name}.abi3.so"
    objects = []
    for path in own_sources(module, "C++"):
        objects.append(str(scratch / f"{Path(path).stem}.o"))
        _compile([*compile_command(headers, NATIVE, module, "C++"), "-c", path, "-o", objects[-1]])
    command = [
        *compile_command(headers, NATIVE, module),
        str(scratch / f"{module.name}.c"),
        *own_sources(module, "C"),
        *objects,
        *(("-bundle", "-undefined", "dynamic_lookup") if MACOS else ("-shared", "-Wl,--disable-new-dtags")),
        f"-L{libraries}",
        *(f"-l{name}" for name in linked(headers, module)),
        "-lm",
        f"-Wl,-rpath,{ORIGIN}",
        *([] if MACOS else ["-ldl", "-pthread"]),
        "-o",
        str(target),
    ]
    _compile(command)
    return target


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain_locale())
    if done.returncode != 0:
        raise BuildError(f"the cffi module does not compile:\n{done.stderr[-3000:]}")


def library_version(path: Path, function: str) -> str:
    """The version that a module's library says, asked in a process of its own: that proves as well that all links.

    Empty where the library is too old to say it.
    """
    code = (
        "import importlib.util as u, sys\n"
        f"s = u.spec_from_file_location({path.name.partition('.')[0]!r}, {str(path)!r})\n"
        "m = u.module_from_spec(s); s.loader.exec_module(m)\n"
        f"said = getattr(m.lib, {function!r}, None)\n"
        "sys.stdout.write(m.ffi.string(said()).decode() if said else '')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise BuildError(f"the libraries were built but do not load: {reason[0]}")
    return done.stdout
