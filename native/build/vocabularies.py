"""stable-diffusion.cpp's tokenizer vocabularies: 130 MB of source text, which a compiler takes a minute to read.

In our copy of the sources each array becomes a file that the assembler includes: the same bytes in the library.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path("src", "tokenizers", "vocab")
BEGINNING, MIDDLE, END = b"static const unsigned char ", b"[] = {", b"};"

INCLUDED = """\
extern "C" {{ extern const unsigned char {name}[{size}] __attribute__((visibility("hidden"))); }}
__asm__(
    ".pushsection .rodata\\n"
    ".hidden {name}\\n"
    ".globl {name}\\n"
    "{name}:\\n"
    ".incbin \\"{path}\\"\\n"
    ".popsection\\n"
);
"""


def shorten(tree: Path) -> int:
    """Rewrite the headers of a source tree for an assembler of ELF files. Returns how many arrays there were.

    Headers that are made otherwise, as another version's may be, stay as they are.
    """
    n_arrays = 0
    for header in sorted((tree / FOLDER).glob("*.hpp")):
        arrays = read_arrays(header.read_bytes())
        if arrays is None or any(character in str(header) for character in '"\\\n'):
            continue
        parts = []
        for name, data in arrays.items():
            path = header.with_name(f"{name}.bin")
            path.write_bytes(data)
            parts.append(INCLUDED.format(name=name, size=len(data), path=path))
        header.write_text("".join(parts))
        n_arrays += len(arrays)
    return n_arrays


def read_arrays(text: bytes) -> dict[str, bytes] | None:
    """The arrays that a header consists of; None where it has anything else."""
    found: dict[str, bytes] = {}
    at = 0
    while rest := text[at : at + 1]:
        if rest.isspace():
            at += 1
            continue
        middle, end = text.find(MIDDLE, at), text.find(END, at)
        name = text[at + len(BEGINNING) : middle]
        if not text.startswith(BEGINNING, at) or not at < middle < end or not name.decode("latin-1").isidentifier():
            return None
        numbers = text[middle + len(MIDDLE) : end]
        try:
            found[name.decode()] = bytes.fromhex(numbers.replace(b"0x", b"").replace(b",", b" ").decode())
        except ValueError:
            return None
        at = end + len(END)
    return found
