"""How much prefill a step may carry, so that running streams do not feel it."""

from __future__ import annotations

SMOOTHING = 0.2
"""Weight of the newest measurement in the moving averages."""

SHORT_PROMPT = 64
"""Prompts with no more than this left are finished in one step: splitting them only delays their first token."""

MIN_CHUNK = 8
"""Fewer prompt tokens than this would pay the decode rows' cost without getting anywhere."""


class Pacing:
    """Sizes the prefill chunk beside decoding rows from measured step times.

    A step of decoding rows alone takes t_decode seconds (moving average); each prompt token adds t_token. A chunk of
    (factor - 1) * t_decode / t_token tokens keeps a step, hence a stream's gap, near factor * t_decode.
    """

    def __init__(self, *, factor: float = 3.0) -> None:
        self._factor = factor
        self._decode = 0.0  # seconds of a step without prefill
        self._token = 0.0  # seconds that one prompt token adds

    def observe(self, *, n_decode: int, n_prefill: int, seconds: float) -> None:
        """Take in one executed step."""
        if n_prefill == 0:
            self._decode = _blend(self._decode, seconds)
        elif n_prefill >= MIN_CHUNK:
            base = self._decode if n_decode else 0.0
            self._token = _blend(self._token, max(seconds - base, 0.0) / n_prefill)

    def chunk(self, idle: float = 0.0) -> int:
        """Prompt tokens that may join a step that carries decoding rows, or could do so only in `idle` seconds."""
        if not self._decode or not self._token:
            return MIN_CHUNK
        return max(MIN_CHUNK, int(((self._factor - 1.0) * self._decode + idle) / self._token))


def _blend(average: float, value: float) -> float:
    return value if average == 0.0 else average + SMOOTHING * (value - average)
