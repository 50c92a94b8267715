"""Requests that were in flight when workers died: one that kills workers is refused in the end."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace

from llamabox.engine.request import GenerationParams
from llamabox.wire.frames import encode
from llamabox.wire.image import Draw
from llamabox.wire.text import Embed, Submit

MEMORY = 3600.0
"""Seconds until a death is forgotten."""

MAX_SUSPECTS = 1024
"""Requests that are remembered. Those longest unseen are forgotten first."""

Question = Submit | Embed | Draw

PLAIN = GenerationParams()
"""Stand in for a request's params, which have a digest of their own."""

GUILTY = 2
"""Deaths at which a request must have been in flight to be refused."""


class Suspects:
    """Counts deaths by what a request asks, whatever its id. A request that is served to its end is cleared.

    An innocent one that runs beside the killer at two deaths, and never completes in between, is refused with it:
    nothing outside the worker can tell them apart.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deaths: OrderedDict[bytes, tuple[int, float]] = OrderedDict()  # fingerprint → deaths, time of the last
        self._params: GenerationParams | None = None  # of the last question, and their digest
        self._params_digest = b""

    def add(self, in_flight: Iterable[Question]) -> None:
        """Note that a worker died while these questions were in flight."""
        self._forget()
        for fingerprint in {self._fingerprint(question) for question in in_flight}:
            n_deaths, _ = self._deaths.pop(fingerprint, (0, 0.0))
            self._deaths[fingerprint] = (n_deaths + 1, self._clock())
        while len(self._deaths) > MAX_SUSPECTS:
            self._deaths.popitem(last=False)

    def clear(self, question: Question) -> None:
        """A question was served to its end."""
        if self._deaths:
            self._deaths.pop(self._fingerprint(question), None)

    def is_guilty(self, question: Question) -> bool:
        if not self._deaths:  # the usual case costs nothing: fingerprints are taken after a death only
            return False
        self._forget()
        n_deaths, _ = self._deaths.get(self._fingerprint(question), (0, 0.0))
        return n_deaths >= GUILTY

    def _forget(self) -> None:
        horizon = self._clock() - MEMORY
        while self._deaths and next(iter(self._deaths.values()))[1] < horizon:
            self._deaths.popitem(last=False)

    def _fingerprint(self, question: Question) -> bytes:
        match question:
            case Draw():  # the server draws a seed where the client gives none, and no seed is deadly
                return _digest(Draw(replace(question.job, request_id="", seed=0)))
            case Submit():
                rest = replace(question, request_id="", params=PLAIN)
                return _digest(rest, self._digest_of_params(question.params))
        return _digest(replace(question, request_id=""))

    def _digest_of_params(self, params: GenerationParams) -> bytes:
        """Digest of params. Computed once for all prompts that share them, because they may be long."""
        if params is not self._params:
            self._params, self._params_digest = params, _digest(Submit(request_id="", prompt=[], params=params))
        return self._params_digest


def _digest(question: Question, key: bytes = b"") -> bytes:
    return hashlib.blake2b(encode(question), digest_size=16, key=key).digest()
