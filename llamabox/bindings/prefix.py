"""The native prefix: a folder with the shared libraries, the cffi module compiled for them, and build.json.

Nothing native is loaded here. `build_native.py` writes what this module reads (llamabox/artifacts/manifest.py).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamabox.artifacts.manifest import FORMAT, MANIFEST, fingerprint
from llamabox.errors import NativeMismatch, NativeMissing

ENVIRONMENT = "LLAMABOX_NATIVE"
REBUILD = 'run "python build_native.py --prefix {}" to build libraries and module together'


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prefix whose build.json was read. `manifest` holds, besides what the build was made of:

    version   what llama_version() of the library says; of one without it, that of its sources, or their commit
    lacks     what users miss with this library, a sentence each
    module    file name of the cffi module
    files     file name → fingerprint, of every library and of the module
    images    the same for libstable-diffusion and its module; absent where it was left out
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def module(self) -> Path:
        return self.path / str(self.manifest["module"])

    @property
    def images(self) -> Prefix:
        """The prefix as it is for libstable-diffusion. Raises NativeMissing when that was left out of it."""
        if "images" not in self.manifest:
            raise NativeMissing(
                f"{self.path} was built without images: " + REBUILD.format(self.path) + ", without --without-images"
            )
        return Prefix(self.path, self.manifest["images"])


def locate(prefix: str | os.PathLike[str] | None = None) -> Path:
    """The prefix to use: the argument, else $LLAMABOX_NATIVE, else the one inside the package. It need not exist."""
    chosen = prefix or os.environ.get(ENVIRONMENT)
    return Path(chosen).absolute() if chosen else packaged()


def packaged() -> Path:
    """The prefix inside the package, where `pip install` and a plain `python build_native.py` put it."""
    return Path(__file__).resolve().parents[1] / "_native"


def read(prefix: str | os.PathLike[str] | None = None) -> Prefix:
    """Read build.json. Raises NativeMissing when there is none, NativeMismatch when it is not ours."""
    path = locate(prefix)
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        command = "python build_native.py" if path == packaged() else f"python build_native.py --prefix {path}"
        raise NativeMissing(f'no native libraries in {path}: run "{command}" in the source folder') from None
    except (OSError, ValueError) as exc:
        raise NativeMismatch(f"{path / MANIFEST} cannot be read ({exc}): " + REBUILD.format(path)) from exc
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise NativeMismatch(f"{path} was built for another version of llamabox: " + REBUILD.format(path))
    return Prefix(path, manifest)


def verify(prefix: Prefix) -> None:
    """Refuse a prefix one of whose files is not the one that was built with the others.

    The cffi module has the layouts of the structs in it: beside a library with other ones it would corrupt memory.
    Reading about 10 MB takes some 10 ms.
    """
    for name, expected in prefix.manifest["files"].items():
        try:
            found = fingerprint(prefix.path / name)
        except OSError as exc:
            raise NativeMismatch(f"{prefix.path / name} is missing: " + REBUILD.format(prefix.path)) from exc
        if found != expected:
            raise NativeMismatch(
                f"{prefix.path / name} is not the file that the cffi module beside it was compiled for: "
                + REBUILD.format(prefix.path)
                + " (for sources of your own add --llama-cpp DIR or --stable-diffusion-cpp DIR)"
            )
