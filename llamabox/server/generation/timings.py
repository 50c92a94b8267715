"""The `timings` object (docs/api.md, Timings), and rates that are never infinite."""

from __future__ import annotations

from typing import Any

from llamabox.engine.events import Progress, Timings

RATE_HEADER = "x-response-tokens-per-second"


def rate(n: int, ms: float) -> float:
    """`n` per second; 0.0 where nothing was measured."""
    return 1e3 * n / ms if n > 0 and ms > 0 else 0.0


def per_token(n: int, ms: float) -> float:
    """Milliseconds for each of `n`; 0.0 where there are none."""
    return ms / n if n > 0 else 0.0


def predicted_per_second(timings: Timings) -> float:
    """Tokens per second of the decode steps. The first token comes with the prompt: n tokens took n - 1 steps."""
    return rate(timings.predicted_n - 1, timings.predicted_ms)


def timings_object(timings: Timings) -> dict[str, Any]:
    """The object `timings`, as llama-server shows it; what was drafted also in llama-box's words."""
    value = {
        "cache_n": timings.cache_n,
        "prompt_n": timings.prompt_n,
        "prompt_ms": timings.prompt_ms,
        "prompt_per_token_ms": per_token(timings.prompt_n, timings.prompt_ms),
        "prompt_per_second": rate(timings.prompt_n, timings.prompt_ms),
        "predicted_n": timings.predicted_n,
        "predicted_ms": timings.predicted_ms,
        "predicted_per_token_ms": per_token(timings.predicted_n - 1, timings.predicted_ms),
        "predicted_per_second": predicted_per_second(timings),
    }
    if timings.n_drafted:
        value |= {
            "draft_n": timings.n_drafted,
            "draft_n_accepted": timings.n_accepted,
            "drafted_n": timings.n_drafted,
            "drafted_accepted_n": timings.n_accepted,
            "drafted_accepted_p": timings.n_accepted / timings.n_drafted,
        }
    return value


def progress_object(event: Progress) -> dict[str, int]:
    """`prompt_progress`, as llama-server has it: tokens, and milliseconds since the prompt got its slot."""
    return {
        "total": event.n_prompt,
        "cache": event.timings.cache_n,
        "processed": event.n_processed,
        "time_ms": int(event.timings.prompt_ms),
    }


def rate_header(timings: Timings) -> dict[str, str]:
    """X-Response-Tokens-Per-Second: a header of plain replies, a trailer of streams."""
    return {RATE_HEADER: f"{predicted_per_second(timings):.6f}"}
