"""What is published: the sdist, what it requires, and the images."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

import build_native

ROOT = Path(build_native.__file__).parent
MADE = {"PKG-INFO", "setup.cfg"}
"""What setuptools adds to an sdist."""

SAFE = {
    "h11": ((0, 16), "CVE-2025-43859: chunked bodies that end wrong are taken"),
    "h2": ((4, 3), "CVE-2025-57804: a request is smuggled in a header"),
    "jinja2": ((3, 1, 6), "CVE-2025-27516: templates leave their sandbox by |attr"),
    "orjson": ((3, 11, 6), "CVE-2025-67221: deep nesting overflows the stack"),
    "pillow": ((12, 1, 1), "CVE-2026-25990 and earlier: pictures that write beyond their memory"),
    "python-multipart": ((0, 0, 26), "CVE-2024-53981 and later: what stands around the parts stalls the reader"),
    "starlette": ((0, 49, 1), "CVE-2025-62727: ranges that take quadratic time"),
    "tqdm": ((4, 66, 3), "CVE-2024-34062: arguments are evaluated"),
}  # fmt: skip


def test_no_version_with_a_known_hole_is_enough() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floors = {}
    for requirement in project["dependencies"]:
        name, floor = re.match(r"([\w-]+)>=([\d.]+)", requirement).groups()
        floors[name] = tuple(map(int, floor.split(".")))
    assert {name: why for name, (least, why) in SAFE.items() if floors[name] < least} == {}


def published() -> set[str]:
    """All files of the repository; in an unpacked sdist, which is none, all that it came with."""
    if (ROOT / ".git").exists():
        command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return {name for name in names if (ROOT / name).exists()}
    [listed] = ROOT.glob("*.egg-info/SOURCES.txt")
    return {name for name in listed.read_text().splitlines() if ".egg-info/" not in name} - MADE


def test_an_sdist_has_all_that_the_repository_has(tmp_path: Path) -> None:
    """Its tests read tools/ and the Dockerfiles, and somebody may build an image from it."""
    tree = tmp_path / "tree"
    names = published()
    for name in (*names, "llamabox/_native/libllama.so", "tests/__pycache__/x.cpython-311.pyc"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name if name in names else os.devnull, tree / name)
    code = "import build_native; build_native.build_sdist('out')"
    subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, check=True)
    [archive] = (tree / "out").iterdir()
    with tarfile.open(archive) as tar:
        found = {name.partition("/")[2] for name in (member.name for member in tar if member.isfile())}
    assert {name for name in found if ".egg-info/" not in name} - MADE == names


@pytest.mark.parametrize("backend", ["cpu", "cuda", "rocm"])
def test_an_image_serves_without_rights_and_asks_for_its_health(backend: str) -> None:
    stages = (ROOT / f"Dockerfile.{backend}").read_text().split("\nFROM ")
    served = stages[-1]
    assert re.search(r"^USER [1-9]\d*(:[1-9]\d*)?$", served, re.MULTILINE), "by number: --user and runAsNonRoot look"
    assert re.search(r'^HEALTHCHECK .*CMD \["llamabox", "health"\]$', served, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["llamabox"\]$', served, re.MULTILINE)
    assert re.search(r"^ENV .*\bXDG_CACHE_HOME=", served, re.MULTILINE)


def test_an_image_is_built_from_what_the_build_reads() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    taken = {line[1:] for line in lines if line.startswith("!")}
    assert taken == {"LICENSE", "MANIFEST.in", "README.md", "build_native.py", "pyproject.toml", "llamabox", "native"}
    assert lines.index("llamabox/_native") > lines.index("!llamabox")
