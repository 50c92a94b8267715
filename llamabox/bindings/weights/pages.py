"""Pages that take no memory: those of a mapped file once its weights are packed, and those of cells not used yet."""

from __future__ import annotations

from pathlib import Path

from llamabox.bindings.ffi import Native

MAPS = Path("/proc/self/maps")


def forget_pages(native: Native) -> None:
    """Give back to the system what was read through read-only maps of files.

    Packed weights (native/added) lie in memory of their own, and the pages that they were read from would count twice.
    Pages that are still used, such as the rows of an embedding, come back out of the system's cache. Does nothing where
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
    """Bytes of the cells of all contexts made so far that took no memory when they were made, and will when used.

    0 where all cells took memory at once: with libraries without native/added, and outside Linux.
    """
    return int(native.lib.lb_untouched())
