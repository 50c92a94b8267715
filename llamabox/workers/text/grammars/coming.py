"""Grammars on their way: the engine computes a prompt while they are tried out and compiled."""

from __future__ import annotations

from dataclasses import dataclass

from llamabox.engine.grammar import Constraint, Grammar
from llamabox.errors import LlamaboxError


@dataclass(frozen=True, slots=True)
class GrammarCame:
    """The grammar of a request that the engine has is ready, or will never be."""

    request_id: str
    error: LlamaboxError | None = None


class ComingGrammar:
    """A Grammar that another thread than the engine's brings. It is never ready where it cannot be compiled."""

    def __init__(self) -> None:
        self._grammar: Grammar | None = None

    @property
    def is_ready(self) -> bool:
        return self._grammar is not None

    def bring(self, grammar: Grammar) -> None:
        """It is compiled. Who waits for it is not woken by that."""
        self._grammar = grammar

    def start(self) -> Constraint:
        assert self._grammar is not None, "a grammar that is not ready"
        return self._grammar.start()
