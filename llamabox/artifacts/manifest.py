"""build.json: the file of a native prefix that names its other files.

The build writes it, llamabox.bindings.prefix reads it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

MANIFEST = "build.json"
FORMAT = 1
"""Number of the manifest's format. A prefix with another one was made by another version of llamabox."""

WHOLE_FILE = 32 << 20
EDGE = 1 << 20


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's size and bytes; of a very large one (GPU kernels) its first and last MiB only.

    The linker's build id, a digest of everything in the file, lies in the first page.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(f"{size}\n".encode())
        if size <= WHOLE_FILE:
            digest.update(file.read())
        else:
            digest.update(file.read(EDGE))
            file.seek(-EDGE, os.SEEK_END)
            digest.update(file.read())
    return digest.hexdigest()
