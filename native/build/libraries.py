"""CMake and Ninja: from a source folder to shared libraries. The two projects that are built, and how."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from native.build import vulkan
from native.build.sources import BuildError

NATIVE = Path(__file__).parents[1]
"""The folder with all that is compiled."""

BACKENDS = ("cpu", "cuda", "rocm", "vulkan", "metal")
GPU_FLAGS = {
    "cuda": ["-DGGML_CUDA=ON"],
    "rocm": ["-DGGML_HIP=ON"],
    "vulkan": ["-DGGML_VULKAN=ON"],
    "metal": ["-DGGML_METAL=ON", "-DGGML_METAL_EMBED_LIBRARY=ON"],
}
DIFFUSION_GPU_FLAGS = {
    "cuda": ["-DSD_CUDA=ON"],
    "rocm": ["-DSD_HIPBLAS=ON"],
    "vulkan": ["-DSD_VULKAN=ON"],
    "metal": ["-DSD_METAL=ON", "-DGGML_METAL_EMBED_LIBRARY=ON"],
}
MACOS = sys.platform == "darwin"
WITHOUT_AMX = "-DCMAKE_CXX_FLAGS_RELEASE=-O3 -DNDEBUG -U__AMX_INT8__"
"""ggml's AMX kernels are left out, by taking away the compiler's word that the processor has AMX.

GCC up to 12 drops the stores to the tile configuration, since its _tile_loadconfig claims to read only 8 bytes of it
(amxtileintrin.h): the first product ends the process. Those kernels also compute a row differently beside others.
"""
ORIGIN = "@loader_path" if MACOS else "$ORIGIN"

Report = Callable[[str], None]


def cmake_flags(backend: str, *, portable: bool) -> list[str]:
    """CMake's flags for llama.cpp: everything that makes one build differ from another."""
    if backend not in BACKENDS:
        raise BuildError(f"no backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    flags = [
        "-DCMAKE_BUILD_TYPE=Release",
        WITHOUT_AMX,
        "-DBUILD_SHARED_LIBS=ON",
        # One file per library: a wheel has no symbolic links.
        "-DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON",
        "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
        f"-DCMAKE_INSTALL_RPATH={ORIGIN}",
        "-DLLAMA_BUILD_COMMON=OFF",
        "-DLLAMA_BUILD_TOOLS=OFF",
        "-DLLAMA_BUILD_SERVER=OFF",
        "-DLLAMA_BUILD_TESTS=OFF",
        "-DLLAMA_BUILD_EXAMPLES=OFF",
        "-DLLAMA_BUILD_APP=OFF",
        "-DLLAMA_BUILD_MTMD=ON",
        "-DMTMD_VIDEO=OFF",  # it starts ffmpeg as a child process
        "-DGGML_RPC=ON",
        f"-DGGML_NATIVE={'OFF' if portable else 'ON'}",
        *GPU_FLAGS.get(backend, []),
    ]
    if portable:
        flags += ["-DGGML_BACKEND_DL=ON", "-DGGML_CPU_ALL_VARIANTS=ON"]
    if MACOS and backend != "metal":
        flags.append("-DGGML_METAL=OFF")
    if not MACOS:
        # DT_RPATH, unlike DT_RUNPATH, comes before LD_LIBRARY_PATH: another libllama on it is not picked up.
        flags += [f"-DCMAKE_{kind}_LINKER_FLAGS=-Wl,--disable-new-dtags" for kind in ("SHARED", "MODULE")]
    return flags


def diffusion_flags(backend: str, *, portable: bool) -> list[str]:
    """CMake's flags for stable-diffusion.cpp, which has another version of ggml than llama.cpp.

    That ggml is linked in and hidden: the libraries' functions have the same names and other structs. So there is one
    build of it and no loadable variants: a portable one runs on every CPU with AVX2 (x86-64-v3).
    """
    if backend not in BACKENDS:
        raise BuildError(f"no backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    flags = [
        "-DCMAKE_BUILD_TYPE=Release",
        WITHOUT_AMX,
        "-DSD_BUILD_SHARED_LIBS=ON",
        "-DSD_BUILD_EXAMPLES=OFF",
        "-DSD_WEBP=OFF",
        "-DSD_WEBM=OFF",
        f"-DGGML_NATIVE={'OFF' if portable else 'ON'}",
        *DIFFUSION_GPU_FLAGS.get(backend, []),
    ]
    if MACOS and backend != "metal":
        flags.append("-DGGML_METAL=OFF")
    if portable and not MACOS:
        # Where a runtime lies that is carried with it (carry_runtimes).
        flags += ["-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON", f"-DCMAKE_INSTALL_RPATH={ORIGIN}"]
    if not MACOS:  # where each library's references name the library they are to be found in
        flags.append("-DCMAKE_SHARED_LINKER_FLAGS=-Wl,--disable-new-dtags -Wl,--exclude-libs,ALL")
    return flags


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One of the two upstream projects, as the build sees it."""

    name: str
    cmake_name: str  # what it calls itself in project()
    pinned: str  # its table in versions.toml
    header: str  # by which its source folder is known
    headers: tuple[str, ...]  # folders of public headers
    library: str  # the file that the build must leave, without its suffix
    licences: tuple[str, ...]  # patterns
    flags: Callable[..., list[str]]  # (backend, *, portable)
    include: str  # a file in `native` that CMake reads behind the call of project()

    def included(self) -> str:
        """Digest of all that a file of ours adds to the project: of that file, or of all of native/added."""
        path = NATIVE / self.include
        files = sorted(path.parent.iterdir()) if path.parent == NATIVE / "added" else [path]
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


LLAMA = Project(
    name="llama.cpp",
    cmake_name="llama.cpp",
    pinned="llama_cpp",
    header="include/llama.h",
    headers=("include", "ggml/include", "tools/mtmd"),
    library="libllama",
    licences=("LICENSE", "licenses/*"),
    flags=cmake_flags,
    include="added/llama.cmake",
)
DIFFUSION = Project(
    name="stable-diffusion.cpp",
    cmake_name="stable-diffusion",
    pinned="stable_diffusion_cpp",
    header="include/stable-diffusion.h",
    headers=("include",),
    library="libstable-diffusion",
    licences=("LICENSE", "ggml/LICENSE", "thirdparty/LICENSE*"),
    flags=diffusion_flags,
    include="build/diffusion.cmake",
)


ADDED = (
    ("C++", "kernels.cpp", ("-std=gnu++17",), ("ggml/include", "ggml/src", "ggml/src/ggml-cpu")),
    ("C", "clear.c", ("-std=gnu11",), ("ggml/include",)),
)
"""Files of native/added that llama.cpp's libraries compile: language, name, flags, folders of llama.cpp's headers."""


def why_added_does_not_fit(tree: Path) -> str | None:
    """The first error of native/added with the headers of a llama.cpp, or None. Takes some seconds."""
    vectors = ["-mavx2", "-mfma", "-mf16c"] if platform.machine() in ("x86_64", "AMD64") else []
    for language, name, flags, folders in ADDED:
        compiler = compilers()[language].split(": ")[0]
        headers = [f"-I{tree / folder}" for folder in folders]
        command = [*shlex.split(compiler), *flags, *vectors, *headers, "-fsyntax-only", str(NATIVE / "added" / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain_locale())
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            return errors[0].partition("error: ")[2] or errors[0] if errors else f"{name} does not compile"
    return None


def tool(name: str) -> str:
    """Path of cmake or ninja: from its wheel when that is installed, else from PATH."""
    try:
        files = importlib.metadata.distribution(name).files or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    programs = [file for file in files if file.name == name and file.parent.name == "bin"]
    programs.sort(key=lambda file: "data" not in file.parts)  # cmake's own program before the script that starts it
    for program in programs:
        path = Path(str(program.locate())).resolve()
        if path.is_file():
            return str(path)
    found = shutil.which(name)
    if not found:
        raise BuildError(f'{name} is not installed: run "pip install {name}"')
    return found


def compilers() -> dict[str, str]:
    """The C and C++ compilers and their versions."""
    found = {}
    for language, variable, default in (("C", "CC", "cc"), ("C++", "CXX", "c++")):
        command = os.environ.get(variable) or default
        try:
            done = subprocess.run([*words(variable, default), "--version"], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as exc:
            raise BuildError(
                f"no {language} compiler: {command!r} does not run. Install one (Debian: apt-get install g++, "
                f"macOS: xcode-select --install) or set {variable}"
            ) from exc
        found[language] = f"{command}: {done.stdout.splitlines()[0]}"
    return found


def plain_locale() -> dict[str, str]:
    """An environment in which the compiler writes English and ASCII quotes."""
    return {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}


def cmake_arguments() -> list[str]:
    """The user's own, from CMAKE_ARGS, quoted as for a shell."""
    return words("CMAKE_ARGS")


def words(variable: str, default: str = "") -> list[str]:
    """A variable's words, quoted as for a shell."""
    text = os.environ.get(variable) or default
    try:
        return shlex.split(text)
    except ValueError as exc:
        raise BuildError(f"{variable} is not a list of words ({exc}): {text}") from exc


def run_logged(command: list[str], log: Path, on_line: Callable[[str], None], what: str) -> None:
    """Run, everything it prints going to the log. BuildError shows the end of it."""
    last: deque[str] = deque(maxlen=30)
    with log.open("a", buffering=1) as file:
        file.write(f"$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        assert process.stdout
        with process.stdout:
            for line in process.stdout:
                file.write(line)
                last.append(line)
                on_line(line)
    if process.wait() != 0:
        raise BuildError(f"{what} failed; the end of {log} says:\n{''.join(last)}")


def progress(report: Report) -> Callable[[str], None]:
    """Turn Ninja's `[n/m] …` lines into reports."""

    def on_line(line: str) -> None:
        found = re.match(r"\[(\d+)/(\d+)\]", line)
        if found:
            report(f"{int(found[1])}/{int(found[2])}")

    return on_line


def build(source: Path, output: Path, flags: list[str], jobs: int, log: Path, report: Report) -> None:
    """Configure and compile. What an interrupted build left in `output` is used. Raises BuildError."""
    ninja = tool("ninja")
    configure = [tool("cmake"), "-S", str(source), "-B", str(output), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    report("configuring")
    try:
        run_logged([*configure, *flags], log, lambda _: None, "cmake")
    except BuildError as error:
        if lack := vulkan.missing(str(error)):
            raise BuildError(f"{lack}. All that CMake said is in {log}") from None
        raise
    vulkan.check_headers(source, output)
    run_logged([ninja, "-C", str(output), "-j", str(jobs)], log, progress(report), "compiling")


RUNTIME = re.compile(r"^\s*(lib(?:gomp|omp|iomp5)\.so\S*) => (/\S+)", re.MULTILINE)
"""A line of ldd that names a runtime of OpenMP. A bare Debian or Ubuntu has none, but libstdc++."""

RUNTIME_LICENCE = """\
libgomp, the runtime of OpenMP that is part of GCC, is under the GNU General Public License, version 3 or later, with
the GCC Runtime Library Exception, version 3.1 (https://www.gnu.org/licenses/gcc-exception-3.1.html). Its source is
GCC's (https://gcc.gnu.org). LLVM's, libomp, is under the Apache License 2.0 with LLVM exceptions (https://openmp.llvm.org).
"""


def carry_runtimes(prefix: Path) -> list[str]:
    """Copy the runtimes that a prefix's libraries need beside them, where their RPATH finds them. Returns the names.

    So a portable prefix needs nothing of another machine but its C and C++ libraries.
    """
    carried: dict[str, Path] = {}
    for library in sorted(prefix.glob("*.so")) if not MACOS else []:
        done = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=False)
        carried |= {name: Path(path) for name, path in RUNTIME.findall(done.stdout)}
    for name, path in carried.items():
        shutil.copy(path, prefix / name)
    if carried:
        (prefix / "OpenMP-LICENSE").write_text(RUNTIME_LICENCE)
    return sorted(carried)


def install(source: Path, output: Path, target: Path, project: Project = LLAMA) -> None:
    """Gather the libraries, the public headers and the licence texts."""
    target.mkdir(parents=True)
    suffix = "*.dylib" if MACOS else "*.so"
    libraries = [path for path in sorted((output / "bin").glob(suffix)) if not path.is_symlink()]
    if not any(path.stem == project.library for path in libraries):
        raise BuildError(f"the build left no {project.library} in {output / 'bin'}")
    for path in libraries:
        shutil.copy(path, target / path.name)
    headers = target / "include"
    headers.mkdir()
    for folder in project.headers:
        for path in sorted((source / folder).glob("*.h")):
            shutil.copy(path, headers / path.name)
    for path in [path for pattern in project.licences for path in sorted(source.glob(pattern))]:
        if path.is_file():
            inside = "" if path.parent.name != "ggml" else "-ggml"
            shutil.copy(path, target / f"{project.name}-{path.name}{inside}")
