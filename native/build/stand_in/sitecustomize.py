"""Keeps pip from running an sdist's code when it is asked only to download it.

Before pip keeps an sdist, it asks the sdist's build backend for its metadata: code that may do anything, and that pip
installs further packages for. sources.download() puts this folder on PYTHONPATH of pip and of the processes that it
starts, so that each runs this file first. It takes the place of whatever backend the pyproject.toml of the current
folder names, and answers with the metadata that lies in the sdist.
"""

from __future__ import annotations

import email
import shutil
import sys
import tomllib
from pathlib import Path


def prepare_metadata_for_build_wheel(directory: str, config_settings: object = None) -> str:
    """The hook of PEP 517 that pip calls."""
    said = email.message_from_string(Path("PKG-INFO").read_text(encoding="utf-8"))
    folder = Path(directory, f"{said['Name'].replace('-', '_')}-{said['Version']}.dist-info")
    folder.mkdir()
    shutil.copy("PKG-INFO", folder / "METADATA")
    return folder.name


def stand_in() -> None:
    """Have `import` find this module under the backend's name, and in it the object that it is to be."""
    path = Path("pyproject.toml")
    system = tomllib.loads(path.read_text(encoding="utf-8")).get("build-system", {}) if path.is_file() else {}
    name, _, inside = system.get("build-backend", "setuptools.build_meta:__legacy__").partition(":")
    sys.modules[name] = sys.modules[__name__]
    globals()["__file__"] = str(Path(*system.get("backend-path", [])[:1], "stand_in").absolute())  # some pips look
    for part in inside.split("."):
        globals()[part] = sys.modules[__name__]


try:
    stand_in()
except Exception as error:  # Python would go on, to the backend
    raise SystemExit(f"pyproject.toml: {error}") from error
