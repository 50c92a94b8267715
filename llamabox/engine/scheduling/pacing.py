"""How much prefill a step may carry, so that running streams do not feel it."""

from __future__ import annotations

SMOOTHING = 0.2
"""Weight of the newest measurement in the moving averages."""

MIN_CHUNK = 8
"""Smallest chunk: with fewer prompt tokens a step would cost nearly as much and bring the prompt nowhere."""

MEDIA_SHARE = 0.7
"""Of what a stream's gap may grow by beside prompts, what it grows by beside those with pictures or sounds. These keep
memory and processors busy before they come to the engine, and as much longer their chunks take than they did.
"""

MIN_MEDIA_CHUNK = 4
"""Smallest chunk beside these."""

OUTLIER = 2.0
"""A step counts as at most so many usual ones: one that another process held up is no reason for larger chunks."""

RECOVERY = 1.02
"""By how many times what counts as the time of a step that nothing held up grows with each that takes longer: 35 steps
double it."""

AT_FIRST = 16.0
"""How much longer streams that have begun before others which came with them wait for those. Simulated with eight equal
prompts, of which the last has its first token after 1.09 to 1.13 times as long as in one batch with 10, and after 1.03
to 1.12 times with 16, by machines and kernels; with 1 it was twice as long."""

LEAST_PAUSE = 0.08
"""Seconds between two steps that a reader does not notice."""

MAX_CHUNK = 1 << 31
"""Larger than any batch. A clock that stood still would otherwise allow infinitely many tokens."""


class Pacing:
    """Sizes the prefill chunk beside decoding rows from measured step times.

    A step of n decoding rows alone takes t_decode(n) seconds; each prompt token adds t_token. A chunk of
    (factor - 1) * t_decode(n) / t_token tokens keeps a step, hence a stream's gap, near factor * t_decode(n).
    Both are moving averages. Beside media the quickest steps count instead of t_decode: pictures that come together
    keep the processors busy before they reach the engine, and what holds up steps then would make chunks larger.

    Where more prompts wait than streams run, the chunk grows in proportion: sixteen clients that come together should
    not be served by ones because one of them was first.
    """

    def __init__(self, *, factor: float) -> None:
        """`factor`: what a stream's gap may grow to beside prompts, in decode-only steps.

        Measured with SmolLM2-135M on two cores: beside a prompt of 1,200 words the longest gap of four streams was
        39 ms (llama-server's 4,628) with 2.0 and with 3.0, and the prompt took half as long as there. Of short and long
        prompts that come together, 95 in 100 gaps were below 52 ms with 2.0 and 80 ms with 3.0, at 116 and 169 tokens a
        second.
        """
        assert factor > 1.0
        self._factor = factor
        self._decode: dict[int, float] = {}  # decoding rows: seconds of a step with them and no prefill
        self._calm: dict[int, float] = {}  # the same, of steps that nothing held up
        self._token = 0.0  # seconds that one prompt token adds

    def observe(self, *, n_decode: int, n_prefill: int, n_forced: int = 0, seconds: float) -> None:
        """Take in one executed step.

        It had `n_decode` rows of streams, drafts among them, `n_forced` cells that grammars force on streams, and
        `n_prefill` cells of prompts. A few forced cells are as good as decoding rows, many as good as a prompt.
        """
        n_prefill += n_forced if n_prefill or n_forced >= MIN_CHUNK else 0
        if n_prefill == 0 and n_decode:
            n_rows = n_decode + n_forced
            known = self._decode.get(n_rows, 0.0)
            self._decode[n_rows] = _blend(known, min(seconds, OUTLIER * known) if known else seconds)
            calm = self._calm.get(n_rows) or self._time_of(n_rows, self._calm) or seconds
            self._calm[n_rows] = min(seconds, RECOVERY * calm)
        elif n_prefill >= MIN_CHUNK:
            self._token = _blend(self._token, max(seconds - self._decode_time(n_decode), 0.0) / n_prefill)

    def chunk(
        self,
        n_decode: int,
        n_prompts: int = 1,
        idle: float = 0.0,
        *,
        at_first: bool = False,
        is_media: bool = False,
    ) -> int:
        """Number of tokens that `n_prompts` together may add to a step of `n_decode` rows.

        `idle`: seconds by which the step may last longer because no stream is due earlier; below 0 where streams have
        waited so long before it. `at_first`: the streams have but begun, and the prompts came before that. `is_media`:
        pictures or sounds are among them.
        """
        decode = self._time_of(n_decode, self._calm if is_media else self._decode)
        if not decode or not self._token:
            return MIN_CHUNK
        patience = (self._factor - 1.0) * max(AT_FIRST if at_first else 1.0, n_prompts / n_decode)
        patience *= MEDIA_SHARE if is_media else 1.0
        n_least = MIN_MEDIA_CHUNK if is_media else MIN_CHUNK
        return int(min(max(n_least, (patience * decode + idle) / self._token), MAX_CHUNK))

    def spare(self, n_decode: int) -> float:
        """Seconds that a step of `n_decode` streams may be longer than usual; inf where it is unknown, or none runs."""
        return (self._factor - 1.0) * self._decode_time(n_decode) or float("inf")

    def pause(self, n_decode: int) -> float:
        """Longest pause between two steps, in seconds, while `n_decode` streams run; inf without streams."""
        if not n_decode:
            return float("inf")
        return max(LEAST_PAUSE, (self._factor - 1.0) * self._decode_time(n_decode))

    def _decode_time(self, n_rows: int) -> float:
        """Estimated seconds of a step of `n_rows` and nothing else; 0 if no such step was measured."""
        return self._time_of(n_rows, self._decode)

    @staticmethod
    def _time_of(n_rows: int, measured: dict[int, float]) -> float:
        """Estimated seconds of a step of `n_rows` from those `measured`, by their numbers of rows.

        Rows cost less together than each alone: from the nearest number of rows that was measured, a proportional guess
        is too high for more rows and too low for fewer, and its time as it is errs the other way. Their mean is taken.
        """
        if not n_rows or not measured:
            return 0.0
        nearest = min(measured, key=lambda known: abs(known - n_rows))
        return measured[nearest] * (1.0 + n_rows / nearest) / 2.0


def _blend(average: float, value: float) -> float:
    return value if average == 0.0 else average + SMOOTHING * (value - average)
