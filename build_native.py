"""Builds the native prefix: sources → CMake → libraries + cffi module + build.json.

A command line tool (`python build_native.py --help`), and the in-tree PEP 517 backend: `pip install` does the same.
Results are kept under the user's cache folder by the hash of all that went into them: building twice costs seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llamabox.artifacts.manifest import FORMAT, MANIFEST, fingerprint
from llamabox.machine import processors
from native.build import libraries, sources, vocabularies
from native.build.cache import Progress, cache_folder, cpu_features, digest, locked, publish
from native.build.libraries import DIFFUSION, LLAMA, Project
from native.build.sources import BuildError, Source

ROOT = Path(__file__).resolve().parent
PACKAGED = ROOT / "llamabox" / "_native"
WITHOUT_ADDED = "no kernels of native/added, which do not fit its insides"
"""What users miss with a llama.cpp of their own that those do not fit."""

BUILD_REQUIRES = ["setuptools>=77", "cffi>=1.16", "cmake>=3.21", "ninja>=1.10", "pip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to build. `llama_cpp` and `stable_diffusion_cpp` are checkouts; None means the pinned sources."""

    backend: str = "cpu"
    portable: bool = False
    llama_cpp: Path | None = None
    images: bool = True  # stable-diffusion.cpp, too
    stable_diffusion_cpp: Path | None = None
    added: bool = True  # native/added in llama.cpp's libraries
    jobs: int = 0  # 0: one for each core

    @property
    def projects(self) -> tuple[Project, ...]:
        return (LLAMA, DIFFUSION) if self.images else (LLAMA,)

    def checkout(self, project: Project) -> Path | None:
        return self.llama_cpp if project is LLAMA else self.stable_diffusion_cpp

    def includes(self, project: Project) -> bool:
        return self.added or project is not LLAMA


def source_of(options: Options, project: Project = LLAMA) -> Source:
    checkout = options.checkout(project)
    if checkout:
        return sources.checkout_source(checkout, project.name, project.header)
    return sources.read_versions(name=project.pinned)


def recipe(options: Options, source: Source, project: Project = LLAMA) -> dict[str, Any]:
    """Everything that the libraries depend on; its digest is their name in the cache."""
    native = not options.portable
    return {
        "source": {"package": source.package, "version": source.version, "sha256": source.sha256},
        "commit": source.commit,
        "number": source.number,
        "backend": options.backend,
        "portable": options.portable,
        "flags": project.flags(options.backend, portable=options.portable),
        "compiler": libraries.compilers(),
        "machine": sysconfig.get_platform(),
        "cpu": cpu_features() if native else "any",
        "environment": {name: os.environ.get(name, "") for name in ("CFLAGS", "CXXFLAGS", "LDFLAGS", "CMAKE_ARGS")},
        "include": project.included() if options.includes(project) else "",
    }


def get_sources(options: Options, source: Source, target: Path, project: Project = LLAMA) -> None:
    if checkout := options.checkout(project):
        sources.copy_checkout(checkout, target)
    else:
        Progress("llamabox native")(f"getting {source.package} {source.version}")
        sources.unpack(sources.fetch(source, cache_folder() / "downloads"), source, target)


def built_libraries(options: Options, source: Source, made_of: dict[str, Any], project: Project = LLAMA) -> Path:
    """The folder of a project's libraries and headers for a recipe, from the cache or built now."""
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
            get_sources(options, source, tree, project)
            if project is DIFFUSION and not libraries.MACOS:
                vocabularies.shorten(tree)
            (work / "unpacked").touch()
        check_cdef(tree, project)
        flags = [*made_of["flags"], *unrecorded_flags(options, source, project)]
        report = Progress(f"{project.name} ({options.backend}{', portable' if options.portable else ''})")
        arguments = [*flags, *libraries.cmake_arguments()]
        libraries.build(tree, output, arguments, options.jobs or cores(), log, report)
        shutil.rmtree(staging, ignore_errors=True)
        libraries.install(tree, output, staging, project)
        publish(staging, target)
        shutil.rmtree(work, ignore_errors=True)
    return target


def unrecorded_flags(options: Options, source: Source, project: Project) -> list[str]:
    """Flags that say what the recipe says elsewhere, or where something lies."""
    flags = []
    if project is LLAMA:
        flags += [f"-DLLAMA_BUILD_COMMIT={source.commit}", f"-DLLAMA_BUILD_NUMBER={source.number}"]
    if options.includes(project):
        flags.append(f"-DCMAKE_PROJECT_{project.cmake_name}_INCLUDE={libraries.NATIVE / project.include}")
    return flags


def cores() -> int:
    return processors.n_logical()


def check_cdef(tree: Path, project: Project = LLAMA) -> list[str]:
    """Whether the headers of a source tree have what native/cdef declares. Costs two seconds; the build, minutes.

    Returns what users miss with this tree, a sentence each.
    """
    from native.build import module  # cffi need not be installed to ask for --help or for the PEP 517 requirements

    spec = module.LLAMA if project is LLAMA else module.DIFFUSION
    with tempfile.TemporaryDirectory() as scratch:
        return module.check([tree / folder for folder in project.headers], Path(scratch), module=spec)


def fitting(options: Options) -> Options:
    """Without native/added where it does not fit the insides of somebody's own llama.cpp; else as they are."""
    if not options.added or options.llama_cpp is None or not (options.llama_cpp / LLAMA.header).is_file():
        return options
    wrong = libraries.why_added_does_not_fit(options.llama_cpp)
    if wrong is None:
        return options
    Progress("llamabox native")(f"native/added does not fit {options.llama_cpp} and is left out: {wrong}")
    return replace(options, added=False)


def build_prefix(options: Options) -> Path:
    """The complete prefix in the cache."""
    from native.build import module

    wanted, options = options, fitting(options)
    specs = {LLAMA: module.LLAMA, DIFFUSION: module.DIFFUSION}
    made_of, libs = {}, {}
    for project in options.projects:
        source = source_of(options, project)
        made_of[project] = recipe(options, source, project)
        libs[project] = built_libraries(options, source, made_of[project], project)
    cache = cache_folder()
    cdefs = [module.cdef(module=specs[project]) for project in options.projects]
    carrying = [libraries.RUNTIME_LICENCE] if options.portable else []
    made_with = [*cdefs, module.own_code(), options != wanted, *carrying, FORMAT]
    key = digest([*(folder.name for folder in libs.values()), *made_with])
    target = cache / f"prefix-{key}"
    with locked(cache / f"prefix-{key}.lock"), tempfile.TemporaryDirectory(dir=cache) as scratch:
        if target.is_dir():
            return target
        staging = Path(scratch, "prefix")
        manifests: dict[Project, dict[str, Any]] = {}
        for project, folder in libs.items():
            headers = [folder / "include"]
            shutil.copytree(folder, staging, ignore=shutil.ignore_patterns("include"), dirs_exist_ok=True)
            lacks = module.check(headers, Path(scratch), module=specs[project])
            if project is LLAMA and options != wanted:
                lacks.append(WITHOUT_ADDED)
            built = module.link(headers, folder, Path(scratch), specs[project])
            shutil.copy(built, staging / built.name)
            manifests[project] = manifest(staging, folder, built.name, made_of[project], project) | {"lacks": lacks}
        images = {"images": manifests[DIFFUSION]} if DIFFUSION in manifests else {}
        if options.portable:
            runtimes = libraries.carry_runtimes(staging)
            manifests[LLAMA]["files"] |= {name: fingerprint(staging / name) for name in runtimes}
        whole = {"format": FORMAT, **manifests[LLAMA], **images}
        (staging / MANIFEST).write_text(json.dumps(whole, indent=1) + "\n")
        publish(staging, target)
    return target


def manifest(staging: Path, libs: Path, name: str, made_of: dict[str, Any], project: Project) -> dict[str, Any]:
    """The part of build.json about one project's libraries, which came from `libs`, and their module."""
    from native.build import module

    suffixes = (".so", ".dylib")
    files = sorted(path.name for path in libs.iterdir() if path.suffix in suffixes)
    function = "llama_version" if project is LLAMA else "sd_version"
    said = module.library_version(staging / name, function)
    known = made_of["source"]["version"] or made_of["commit"]
    return {
        "version": made_of["source"]["version"] or said if project is DIFFUSION else said or known,
        "module": name,
        "headers_sha256": sources.tree_hash(libs / "include"),
        **made_of,
        "files": {file: fingerprint(staging / file) for file in sorted([*files, name])},
    }


def make(options: Options, target: Path) -> Path:
    """Build and put the prefix at `target`, replacing one that is there and nothing else."""
    if target.exists() and any(target.iterdir()) and not (target / MANIFEST).exists():
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


def check(options: Options) -> list[str]:
    """The cdefs against the headers of the chosen sources, building nothing. Returns what users miss with them."""
    lacks = [] if fitting(options) == options else [WITHOUT_ADDED]
    for project in options.projects:
        source = source_of(options, project)
        if checkout := options.checkout(project):
            lacks += check_cdef(checkout, project)
            continue
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder, "source")
            get_sources(options, source, tree, project)
            lacks += check_cdef(tree, project)
    return lacks


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
        "--stable-diffusion-cpp", type=Path, metavar="DIR", help="the same for the library that draws images"
    )
    parser.add_argument("--without-images", action="store_true", help="leave out stable-diffusion.cpp")
    parser.add_argument(
        "--without-added", action="store_true", help="llama.cpp as it is, without the kernels of native/added"
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
    options = Options(
        backend=parsed.backend,
        portable=parsed.portable,
        llama_cpp=parsed.llama_cpp and parsed.llama_cpp.resolve(),
        images=not parsed.without_images,
        stable_diffusion_cpp=parsed.stable_diffusion_cpp and parsed.stable_diffusion_cpp.resolve(),
        added=not parsed.without_added,
        jobs=max(parsed.jobs, 0),
    )
    try:
        if parsed.check:
            done = "native/cdef fits the headers" + "".join(f"\n  not with these: {lost}" for lost in check(options))
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
    """--config-settings backend=cuda and the like; else LLAMABOX_BACKEND, _PORTABLE, _LLAMA_CPP and so on."""

    def setting(name: str) -> str:
        return str((settings or {}).get(name) or os.environ.get("LLAMABOX_" + name.upper().replace("-", "_"), ""))

    def folder(name: str) -> Path | None:
        return Path(setting(name)).resolve() if setting(name) else None

    def switch(name: str) -> bool:
        return setting(name).lower() in ("1", "on", "true", "yes")

    jobs = setting("jobs")
    if jobs and not jobs.isdigit():
        raise BuildError(f"jobs must be a number, not {jobs!r}")
    return Options(
        backend=setting("backend") or "cpu",
        portable=switch("portable"),
        llama_cpp=folder("llama-cpp"),
        images=not switch("without-images"),
        stable_diffusion_cpp=folder("stable-diffusion-cpp"),
        added=not switch("without-added"),
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
