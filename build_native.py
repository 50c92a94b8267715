"""Builds the native prefix: sources → CMake → libraries + cffi module + build.json.

A command line tool (`python build_native.py --help`), and the in-tree PEP 517 backend: `pip install` does the same.
Results are kept under the user's cache folder by the hash of all that went into them: building twice costs seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamabox.bindings import prefix as prefixes
from native import libraries, sources
from native.sources import BuildError, Source

ROOT = Path(__file__).resolve().parent
PACKAGED = ROOT / "llamabox" / "_native"
BUILD_REQUIRES = ["setuptools>=77", "cffi>=1.16", "cmake>=3.21", "ninja>=1.10", "pip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to build. `llama_cpp` None means the pinned sources."""

    backend: str = "cpu"
    portable: bool = False
    llama_cpp: Path | None = None
    jobs: int = 0  # 0: one for each core


class Progress:
    """Says how far the build is: on a terminal in place, elsewhere a line for every tenth."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._tty = sys.stderr.isatty()
        self._said = -1

    def __call__(self, state: str) -> None:
        done, _, total = state.partition("/")
        if not total:
            self._write(f"{self._label}: {state}", end="\n")
        elif self._tty:
            self._write(
                f"\r{self._label}: {state} ({int(done) * 100 // int(total)} %)", end="\n" if done == total else ""
            )
        elif (tenth := int(done) * 10 // int(total)) > self._said:
            self._said = tenth
            self._write(f"{self._label}: {state} ({int(done) * 100 // int(total)} %)", end="\n")

    def _write(self, text: str, end: str) -> None:
        sys.stderr.write(text + end)
        sys.stderr.flush()


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "llamabox" / "native"


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def cpu_features() -> str:
    """What GGML_NATIVE adapts to, so that a home shared by unlike machines has a build for each."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return digest(sorted(line.partition(":")[2].split()))
    return platform.processor()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One build of a thing at a time, whoever else builds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            Progress("llamabox native")("waiting for another build of the same")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def publish(staging: Path, target: Path) -> None:
    """Move a finished folder to its place, over what may be there. Running processes keep the files they mapped."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    if target.exists():
        target.rename(old / target.name)
    staging.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def source_of(options: Options) -> Source:
    return sources.checkout_source(options.llama_cpp) if options.llama_cpp else sources.read_versions()


def recipe(options: Options, source: Source) -> dict[str, Any]:
    """All that the libraries depend on; its digest is their name in the cache."""
    native = not options.portable
    return {
        "source": {"package": source.package, "version": source.version, "sha256": source.sha256},
        "commit": source.commit,
        "number": source.number,
        "backend": options.backend,
        "portable": options.portable,
        "flags": libraries.cmake_flags(options.backend, portable=options.portable),
        "compiler": libraries.compilers(),
        "machine": sysconfig.get_platform(),
        "cpu": cpu_features() if native else "any",
        "environment": {name: os.environ.get(name, "") for name in ("CFLAGS", "CXXFLAGS", "LDFLAGS", "CMAKE_ARGS")},
    }


def get_sources(options: Options, source: Source, target: Path) -> None:
    if options.llama_cpp:
        sources.copy_checkout(options.llama_cpp, target)
    else:
        Progress("llamabox native")(f"getting {source.package} {source.version}")
        sources.unpack(sources.fetch(source, cache_folder() / "downloads"), source, target)


def built_libraries(options: Options, source: Source, made_of: dict[str, Any]) -> Path:
    """The folder of libraries and headers for a recipe, from the cache or built now."""
    cache, key = cache_folder(), digest(made_of)
    target = cache / f"libs-{key}"
    with locked(cache / f"libs-{key}.lock"):
        if target.is_dir():
            return target
        work = cache / f"work-{key}"
        tree, output, staging = work / "source", work / "build", work / "install"
        log = cache / "logs" / f"{key}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        if not (work / "unpacked").exists():
            get_sources(options, source, tree)
            (work / "unpacked").touch()
        check_cdef(tree)
        version = [f"-DLLAMA_BUILD_COMMIT={source.commit}", f"-DLLAMA_BUILD_NUMBER={source.number}"]
        flags = [*made_of["flags"], *version, *os.environ.get("CMAKE_ARGS", "").split()]
        report = Progress(f"llama.cpp ({options.backend}{', portable' if options.portable else ''})")
        libraries.build(tree, output, flags, options.jobs or cores(), log, report)
        shutil.rmtree(staging, ignore_errors=True)
        libraries.install(tree, output, staging)
        publish(staging, target)
        shutil.rmtree(work, ignore_errors=True)
    return target


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_cdef(tree: Path) -> None:
    """Whether the headers of a source tree have what native/cdef declares. Costs two seconds; the build, minutes."""
    from native import module  # cffi need not be installed to ask for --help or for the PEP 517 requirements

    with tempfile.TemporaryDirectory() as scratch:
        module.check([tree / folder for folder in libraries.PUBLIC_HEADERS], Path(scratch))


def build_prefix(options: Options) -> Path:
    """The complete prefix in the cache."""
    from native import module

    source = source_of(options)
    made_of = recipe(options, source)
    libs = built_libraries(options, source, made_of)
    cache = cache_folder()
    key = digest([libs.name, module.cdef(), module.own_code(), prefixes.FORMAT])
    target = cache / f"prefix-{key}"
    with locked(cache / f"prefix-{key}.lock"), tempfile.TemporaryDirectory(dir=cache) as scratch:
        if target.is_dir():
            return target
        headers = [libs / "include"]
        staging = Path(scratch, "prefix")
        shutil.copytree(libs, staging, ignore=shutil.ignore_patterns("include"))
        module.check(headers, Path(scratch))
        built = module.link(headers, libs, Path(scratch))
        shutil.copy(built, staging / built.name)
        write_manifest(staging, built.name, made_of, headers[0])
        publish(staging, target)
    return target


def write_manifest(staging: Path, module_name: str, made_of: dict[str, Any], headers: Path) -> None:
    suffixes = (".so", ".dylib")
    files = [path for path in sorted(staging.iterdir()) if path.suffix in suffixes]
    manifest = {
        "format": prefixes.FORMAT,
        "version": library_version(staging, module_name),
        "module": module_name,
        "headers_sha256": sources.tree_hash(headers),
        **made_of,
        "files": {path.name: prefixes.fingerprint(path) for path in files},
    }
    (staging / prefixes.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def library_version(staging: Path, module_name: str) -> str:
    """What llama_version() says, asked in a process of its own: it also proves that everything links."""
    code = (
        "import importlib.util as u, sys\n"
        f"s = u.spec_from_file_location({Path(module_name).name.partition('.')[0]!r}, {str(staging / module_name)!r})\n"
        "m = u.module_from_spec(s); s.loader.exec_module(m)\n"
        "sys.stdout.write(m.ffi.string(m.lib.llama_version()).decode())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise BuildError(f"the libraries were built but do not load: {reason[0]}")
    return done.stdout


def make(options: Options, target: Path) -> Path:
    """Build and put the prefix at `target`, replacing one that is there and nothing else."""
    if target.exists() and any(target.iterdir()) and not (target / prefixes.MANIFEST).exists():
        raise BuildError(f"{target} is not a native prefix: name a new or an empty folder")
    built = build_prefix(options)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-new-", dir=target.parent))
    try:
        shutil.copytree(built, staging, dirs_exist_ok=True)
        staging.chmod(0o755)
        publish(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def check(options: Options) -> None:
    """The cdefs against the headers of the chosen sources, building nothing."""
    if options.llama_cpp:
        sources.checkout_source(options.llama_cpp)
        check_cdef(options.llama_cpp)
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "source")
        get_sources(options, source_of(options), tree)
        check_cdef(tree)


def bump(version: str) -> None:
    """Pin another version of the sdist, provided that native/cdef fits its headers."""
    cache = cache_folder() / "downloads"
    source, text = sources.bump(version, cache)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "source")
        sources.unpack(cache / source.archive, source, tree)
        check_cdef(tree)
    sources.VERSIONS.write_text(text)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build llamabox's native libraries and the cffi module for them.")
    parser.add_argument("--backend", choices=libraries.BACKENDS, default="cpu", help="default: cpu")
    parser.add_argument(
        "--portable", action="store_true", help="every CPU variant as a loadable backend, for any machine"
    )
    parser.add_argument(
        "--llama-cpp", type=Path, metavar="DIR", help="build this checkout instead of the pinned sources"
    )
    parser.add_argument(
        "--prefix", type=Path, metavar="DIR", default=PACKAGED, help="where to put it (default: the package)"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", default=0, help="parallel compilers (default: one for each core)"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--check", action="store_true", help="only check native/cdef against the headers")
    only.add_argument(
        "--bump", metavar="VERSION", help="pin this llama-cpp-python version if native/cdef fits its headers"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    parsed = parse(arguments)
    checkout = parsed.llama_cpp.resolve() if parsed.llama_cpp else None
    options = Options(backend=parsed.backend, portable=parsed.portable, llama_cpp=checkout, jobs=max(parsed.jobs, 0))
    try:
        if parsed.check:
            check(options)
            done = "native/cdef fits the headers"
        elif parsed.bump:
            bump(parsed.bump)
            done = f"pinned llama-cpp-python {parsed.bump}; native/cdef fits its headers"
        else:
            done = f"native libraries are in {make(options, parsed.prefix.absolute())}"
    except BuildError as exc:
        sys.stderr.write(f"build_native.py: {exc}\n")
        return 1
    except ModuleNotFoundError as exc:
        sys.stderr.write(f'build_native.py: {exc.name} is not installed: run "pip install cffi cmake ninja"\n')
        return 1
    sys.stdout.write(done + "\n")
    return 0


# ---- PEP 517 and 660 -------------------------------------------------------------------------------------------------


def pep517_options(settings: dict[str, Any] | None) -> Options:
    """--config-settings backend=cuda and the like; else LLAMABOX_BACKEND, _PORTABLE, _LLAMA_CPP, _JOBS."""

    def setting(name: str) -> str:
        return str((settings or {}).get(name) or os.environ.get("LLAMABOX_" + name.upper().replace("-", "_"), ""))

    jobs, checkout = setting("jobs"), setting("llama-cpp")
    if jobs and not jobs.isdigit():
        raise BuildError(f"jobs must be a number, not {jobs!r}")
    return Options(
        backend=setting("backend") or "cpu",
        portable=setting("portable").lower() in ("1", "on", "true", "yes"),
        llama_cpp=Path(checkout).resolve() if checkout else None,
        jobs=int(jobs or 0),
    )


def make_for_pip(settings: dict[str, Any] | None) -> None:
    try:
        make(pep517_options(settings), PACKAGED)
    except BuildError as exc:
        raise SystemExit(f"llamabox: {exc}") from None


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    return BUILD_REQUIRES


def get_requires_for_build_editable(config_settings: dict[str, Any] | None = None) -> list[str]:
    return BUILD_REQUIRES


def get_requires_for_build_sdist(config_settings: dict[str, Any] | None = None) -> list[str]:
    return BUILD_REQUIRES[:1]


def prepare_metadata_for_build_wheel(directory: str, config_settings: dict[str, Any] | None = None) -> str:
    from setuptools import build_meta

    return str(build_meta.prepare_metadata_for_build_wheel(directory))


def prepare_metadata_for_build_editable(directory: str, config_settings: dict[str, Any] | None = None) -> str:
    from setuptools import build_meta

    return str(build_meta.prepare_metadata_for_build_editable(directory))


def build_wheel(directory: str, config_settings: dict[str, Any] | None = None, metadata: str | None = None) -> str:
    from setuptools import build_meta

    make_for_pip(config_settings)
    shutil.rmtree(ROOT / "build" / "lib" / "llamabox" / "_native", ignore_errors=True)  # setuptools keeps stale files
    tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return str(build_meta.build_wheel(directory, {"--build-option": [f"--plat-name={tag}"]}, metadata))


def build_editable(directory: str, config_settings: dict[str, Any] | None = None, metadata: str | None = None) -> str:
    from setuptools import build_meta

    make_for_pip(config_settings)
    return str(build_meta.build_editable(directory, None, metadata))


def build_sdist(directory: str, config_settings: dict[str, Any] | None = None) -> str:
    from setuptools import build_meta

    return str(build_meta.build_sdist(directory, config_settings))


if __name__ == "__main__":
    sys.exit(main())
