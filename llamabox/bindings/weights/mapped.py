"""Pages that take no memory: of a mapped file, once its weights are packed, and of cells that nobody has used."""

from __future__ import annotations

from pathlib import Path

from llamabox.bindings.ffi import Native

MAPS = Path("/proc/self/maps")


def forget_pages(native: Native) -> None:
    """Give back to the system what was read through read-only maps of files.

    Packed weights (native/added) lie in memory of their own, and what they were read from would count twice. What is
    still used, such as the rows of an embedding, comes back page by page out of the system's cache. Does nothing where
    the system does not list its maps.
    """
    if not MAPS.exists():
        return
    for line in MAPS.read_text().splitlines():
        addresses, permissions, *_ = line.split(maxsplit=2)
        if permissions == "r--s":
            start, end = (int(address, 16) for address in addresses.split("-"))
            native.lib.lb_forget_pages(native.ffi.cast("void *", start), end - start)


def untouched(native: Native) -> int:
    """Bytes of the cells of all contexts made so far that took no memory then, and will as they are used.

    0 where they took it all at once: with libraries without native/added, and outside Linux.
    """
    return int(native.lib.lb_untouched())
