from __future__ import annotations

import json
import logging
import unicodedata
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from llamabox.log import entries as log


@pytest.fixture(autouse=True)
def keep_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("llamabox")
    kept = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:], root.level = kept[0], kept[1]
    ours.setLevel(kept[2])


def written(capfd: pytest.CaptureFixture[str]) -> str:
    for handler in logging.getLogger().handlers:
        handler.flush()
    return capfd.readouterr().err


def test_an_entry_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    log.setup(0)
    logging.getLogger("llamabox.server.api.openai.chat.route").warning("a %s", "b\n12:00:00 forged")
    line = written(capfd)
    assert line.count("\n") == 1
    assert line.endswith(" W server.api.openai.chat.route: a b\\n12:00:00 forged\n")


CONTROLS = [
    chr(code) for code in range(0x110000)
    if unicodedata.category(chr(code)) in ("Cc", "Zl", "Zp", "Cs")
    or unicodedata.bidirectional(chr(code)) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
]  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True])
def test_no_text_steers_the_terminal_or_ends_its_line(as_json: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """ESC, BEL, NEL, LS and their like, in a message and in the text of an exception."""
    log.setup(0, as_json=as_json)
    text = "a" + "".join(reversed(CONTROLS)) + "\n12:00:00 forged"
    logging.getLogger("llamabox.x").warning("%s", text)
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("llamabox.x").exception("bad")
    lines = written(capfd).split("\n")
    assert not set("".join(lines)) & set(CONTROLS)
    assert not [line for line in lines if line.startswith("12:00:00 forged")]
    assert len([line for line in lines if line and not line.startswith("  ")]) == 2
    if as_json:
        assert json.loads(lines[0])["message"] == text
    else:
        assert "\\x1b" in lines[0]
        assert "\\u2028" in lines[0]


@pytest.mark.parametrize(
    ("verbosity", "shown"), [(-1, "W"), (0, "IW"), (1, "MIW"), (2, "DMIW"), (99, "DMIW")]
)  # fmt: skip
def test_levels(verbosity: int, shown: str, capfd: pytest.CaptureFixture[str]) -> None:
    log.setup(verbosity)
    logger = logging.getLogger("llamabox.x")
    for level in (logging.DEBUG, log.MORE, logging.INFO, logging.WARNING):
        logger.log(level, "text")
    assert "".join(line.split()[1] for line in written(capfd).splitlines()) == shown


def test_colors_only_when_asked(capfd: pytest.CaptureFixture[str]) -> None:
    log.setup(0)
    logging.getLogger("llamabox").error("x")
    assert "\033" not in written(capfd)
    log.setup(0, colors=True)
    logging.getLogger("llamabox").error("x")
    assert written(capfd).startswith("\033[31m")


def test_json_lines_have_the_facts_by_name(capfd: pytest.CaptureFixture[str]) -> None:
    log.setup(0, colors=True, as_json=True)
    logger = logging.getLogger("llamabox.server.api.openai.chat.route")
    logger.info("a %s", "b\n\ud800 forged", extra={log.FACTS: {"status": None, "route": "/x", "total_ms": 1.5}})
    try:
        raise ValueError("odd")
    except ValueError:
        logger.exception("bad")
    logging.getLogger("somebody.else").warning("w")
    first, second, third = map(json.loads, written(capfd).splitlines())
    time = first.pop("time")
    assert datetime.fromisoformat(time).utcoffset() == timedelta(0)
    assert first == {
        "level": "info", "logger": "server.api.openai.chat.route", "message": "a b\n\ud800 forged", "status": None,
        "route": "/x", "total_ms": 1.5,
    }  # fmt: skip
    assert (second["level"], second["message"]) == ("error", "bad")
    assert second["exception"].endswith("ValueError: odd")
    assert third["logger"] == "somebody.else"


@pytest.mark.parametrize("as_json", [False, True])
def test_no_line_has_a_secret(as_json: bool, capfd: pytest.CaptureFixture[str]) -> None:
    log.setup(0, as_json=as_json)
    logger = logging.getLogger("llamabox.x")
    logger.info("got %s", "Authorization: Bearer S3CRET", extra={log.FACTS: {"route": "/?api_key=S3CRET"}})
    try:
        raise ValueError("Authorization: Bearer S3CRET")
    except ValueError:
        logger.exception("X-Api-Key: S3CRET")
    shown = written(capfd)
    assert "S3CRET" not in shown
    assert shown.count("***") >= 3


def test_warnings_are_log_lines(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "_warnings_showwarning", None)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        log.setup(0, as_json=True)
        warnings.warn("odd", stacklevel=1)
    assert "odd" in json.loads(written(capfd))["message"]
