"""What the doctor found, as text and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import llamabox

Fact = str | int | float | bool | None | Sequence["Fact"] | Mapping[str, "Fact"]

AREA_WIDTH, LEVEL_WIDTH, WIDTH = 15, 9, 118
"""Columns."""


class Level(StrEnum):
    """How bad a finding is. `problem`: something does not work. `warning`: it works, slower or less than it could."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `advice` says what to do, and is empty only where all is well."""

    level: Level
    area: str
    text: str
    advice: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)


def ok(area: str, text: str, **facts: Fact) -> Finding:
    return Finding(Level.OK, area, text, facts=facts)


def warning(area: str, text: str, advice: str, **facts: Fact) -> Finding:
    return Finding(Level.WARNING, area, text, advice, facts)


def problem(area: str, text: str, advice: str, **facts: Fact) -> Finding:
    return Finding(Level.PROBLEM, area, text, advice, facts)


def exit_status(findings: Iterable[Finding]) -> int:
    """1 where something does not work; warnings leave it at 0."""
    return int(any(finding.level is Level.PROBLEM for finding in findings))


def as_text(findings: Sequence[Finding]) -> str:
    """A line or more for each finding, and a last one that sums up."""
    lines = [line for finding in findings for line in _lines(finding)]
    return "\n".join([*lines, "", _sum(findings)])


def as_json(findings: Sequence[Finding]) -> str:
    """One object: version, exit status, counts, and the findings in order."""
    report = {
        "version": llamabox.__version__,
        "status": exit_status(findings),
        "problems": _count(findings, Level.PROBLEM),
        "warnings": _count(findings, Level.WARNING),
        "findings": [
            {
                "level": finding.level.value,
                "area": finding.area,
                "text": finding.text,
                "advice": finding.advice,
                "facts": finding.facts,
            }
            for finding in findings
        ],
    }
    return json.dumps(report, indent=2)


def _lines(finding: Finding) -> list[str]:
    level = finding.level.value
    head = f"{finding.area:{AREA_WIDTH}}{level if finding.level is Level.OK else level.upper():{LEVEL_WIDTH}}"
    margin = " " * len(head)
    lines = _wrapped(finding.text, head, margin)
    return lines + (_wrapped(finding.advice, f"{margin}-> ", f"{margin}   ") if finding.advice else [])


def _wrapped(text: str, first: str, margin: str) -> list[str]:
    # Paths and commands stay whole: they are copied.
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False
    )


def _sum(findings: Sequence[Finding]) -> str:
    n_problems, n_warnings = _count(findings, Level.PROBLEM), _count(findings, Level.WARNING)
    warnings = f"{n_warnings} {'warning' if n_warnings == 1 else 'warnings'}"
    if not n_problems:
        return f"all well, {warnings}" if n_warnings else "all well"
    return f"{n_problems} {'problem' if n_problems == 1 else 'problems'}, {warnings}"


def _count(findings: Iterable[Finding], level: Level) -> int:
    return sum(finding.level is level for finding in findings)
