"""What a library of the last half year may lack: its part of the cdef is left out, and what needs it says so.

A cdef file tells by lines of its own what goes together:

    //if PART      what follows is there where the headers declare this part (PARTS)
    //else         and this where they do not
    //end
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Part:
    """What newer headers declare. `lost` is what users miss without it; empty where something else does as well."""

    pattern: str
    lost: str = ""


PARTS = {
    "load_mode": Part(r"\bllama_load_mode\b"),  # flags in its place say the same
    "ftype_name": Part(r"\bllama_ftype_name\b"),  # a model's description ends with it
    "version": Part(r"\bllama_version\b"),  # build.json has that of the sources, or their commit
    "penalties_of_vocab": Part(r"llama_sampler_init_penalties\(\s*int32_t\s+n_vocab\b"),
    "dry_without_context": Part(r"llama_sampler_init_dry\(\s*const struct llama_vocab \*\s*vocab,\s*float\b"),
    "sampler_copy": Part(r"\bllama_sampler_copy\b"),  # nobody calls what it would call
    "suppress_tokens": Part(
        r"\bllama_vocab_get_suppress_tokens\b",
        "tokens that a model bars for good (tokenizer.ggml.suppress_tokens) are not barred",
    ),
    "media": Part(r"\bmtmd_tokenize_from_parts\b", "no pictures and no sound: --mmproj is refused"),
    "mtp": Part(
        r"bool load_mtp;[\s\S]*struct llama_context \* ctx_other;[\s\S]*llama_model_n_layer_nextn",
        "no drafts by a model's heads (MTP)",
    ),
}

COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
DIRECTIVE = re.compile(r"//(if|else|end)\b ?(\w*)$")


def text_of(headers: list[Path], names: tuple[str, ...]) -> str:
    """The headers of these names in the folders, without comments, which may speak of what is not there."""
    paths = [path / name for path in headers for name in names]
    return COMMENT.sub("", "\n".join(path.read_text() for path in paths if path.is_file()))


def declares(text: str, part: str) -> bool:
    return re.search(PARTS[part].pattern, text) is not None


def chosen(cdef: str, text: str | None) -> str:
    """The lines of a cdef that fit headers with this text; those for the newest ones where it is None."""
    lines: list[str] = []
    keeps: list[bool] = []
    for line in cdef.splitlines():
        found = DIRECTIVE.match(line.strip())
        if found is None:
            if all(keeps):
                lines.append(line)
        elif found[1] == "if":
            assert found[2] in PARTS, f"native/build/optional.py says nothing of {found[2]}"
            keeps.append(text is None or declares(text, found[2]))
        elif found[1] == "else":
            keeps[-1] = not keeps[-1]
        else:
            keeps.pop()
    assert not keeps, "an //if without its //end"
    return "\n".join(lines) + "\n"


def lost(text: str) -> list[str]:
    """What users miss with headers of this text, a sentence each."""
    return [part.lost for name, part in PARTS.items() if part.lost and not declares(text, name)]
