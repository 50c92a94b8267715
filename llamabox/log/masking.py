"""Masks secrets before they are printed: values of a command line, and words of a log line that look like keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

MASK = "***"

SECRET_WORD = re.compile(r"key|token|secret|passw|bearer|credential|auth", re.IGNORECASE)
"""Words in the names of options that take a secret."""

NOT_SECRET = re.compile(r"file|path|dir|tokens|override|cache|type|author", re.IGNORECASE)
"""Words in the names of options that only sound so."""

NAME = re.compile(r"[\w-]+")
"""An option's name whose dashes got lost."""

SECRETS = re.compile(
    r"""
    (?P<start>
        \bbearer\s+
      | \b(?:proxy-)?authorization["']?\s*[:=]\s*["']?(?:basic\s+)?
      | (?<![a-z])(?:api|access|secret)[-_]?(?:key|token)["']?\s*[:=]\s*["']?
      | [?&](?:key|token|password|secret|auth)=
    )
    (?!bearer\s|basic\s)[^\s"'&,;]+
    | \b(?:sk|pk|hf|ghp|xox[bp])[-_][A-Za-z0-9_-]{16,}
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""A secret by what stands before it, or by the form that well-known services give theirs."""


DASHES = ("-", "\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2212")
"""Characters that a flag begins with; text editors make the others of a hyphen."""


HINTS = (
    *("bearer", "authorization", "key=", "token=", "password=", "secret=", "auth="),
    *(a + between + b for a in ("api", "access", "secret") for between in ("", "-", "_") for b in ("key", "token")),
    *(start + end for start in ("sk", "pk", "hf", "ghp", "xoxb", "xoxp") for end in "-_"),
)
"""One of these is in every text with a secret, and looking for them takes a fiftieth of the time."""


def masked(text: str) -> str:
    """The text without what looks like a secret."""
    lower = text.lower()
    if not any(hint in lower for hint in HINTS):
        return text
    return SECRETS.sub(lambda found: (found["start"] or "") + MASK, text)


def is_secret(flag: str) -> bool:
    """Whether an option of this name, known or not, is likely to be followed by a secret."""
    return SECRET_WORD.search(flag) is not None and NOT_SECRET.search(flag) is None


def masked_words(argv: Sequence[str]) -> Iterator[str]:
    """A command line's words. After an option that takes a secret everything up to the next option is masked."""
    hides = is_next = False
    for word in argv:
        flag, joined, _ = word.partition("=")
        is_flag = flag.startswith(DASHES) and not is_next  # a secret may begin with a dash
        if joined and not is_next and is_secret(flag) and (is_flag or NAME.fullmatch(flag)):
            yield flag + joined + MASK
        else:
            yield MASK if hides and not is_flag else masked(word)
        is_next = is_flag and not joined and is_secret(flag)
        hides = is_next or (hides and not is_flag)


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that needs no key: one that loads models, or computes for others."""
    return {name: value for name, value in environ.items() if not is_secret(name)}
