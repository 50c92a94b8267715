"""Grammars and JSON schemas on their way to the engine: tried out, compiled and kept, never on the engine's thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llguidance import LLTokenizer

from llamabox.bindings.sampling.guidance import guidance_pieces, guidance_tokenizer
from llamabox.bindings.vocab import Vocab
from llamabox.engine.request import GenerationParams, InnerGrammar, Request
from llamabox.errors import InvalidRequest, LlamaboxError, ServerFault
from llamabox.grammar import gbnf
from llamabox.grammar.constraint import GuidedGrammar
from llamabox.grammar.free_text import FreeText
from llamabox.grammar.guidance import answer_grammar, lark_grammar, schema_grammar, schemas_in
from llamabox.grammar.inputs.inner import OWN, input_grammar
from llamabox.grammar.lark import to_lark
from llamabox.quarantine.trial import Cause, Death, Limits, Trial
from llamabox.workers.text.grammars.ahead import AheadGrammar
from llamabox.workers.text.grammars.beside import Beside
from llamabox.workers.text.grammars.coming import ComingGrammar, GrammarCame
from llamabox.workers.text.grammars.trial import LIMITS
from llamabox.workers.text.helpers import Helpers

logger = logging.getLogger(__name__)

MAX_KEPT = 8
"""Compiled grammars to keep, as clients send the same one again. One may take 60 MB (grammar.guidance.limits)."""

GBNF = "gbnf"
"""The syntax of an inner grammar that is the answer's own, behind a thought."""

SEARCH = 4.0
"""Seconds to look for the one schema of many that is at fault."""

MAX_KEPT_TEXT = 4 << 20
"""Characters that the texts of compiled grammars may have in all."""


@dataclass(frozen=True, slots=True)
class GrammarTexts:
    """The three texts of a request that make a grammar, of which at most one is not empty, and more of the last."""

    grammar: str = ""
    json_schema: str = ""
    answer: str = ""
    inner: tuple[InnerGrammar, ...] = ()  # to which the answer's refers
    opening: str | None = None  # of a call in it, where any text may come first
    is_plain: bool = False  # the answer's can do no harm

    @property
    def n_characters(self) -> int:
        own = len(self.grammar) + len(self.json_schema) + len(self.answer)
        return own + sum(len(one.definition) for one in self.inner)


class GrammarTrial:
    """The process that grammars are tried out in, before they are compiled here. Not thread-safe."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.process = Trial("llamabox.workers.text.grammars.trial", limits)

    def run(self, grammar: str) -> str | None:
        """The reason why `grammar`, in llguidance's form, cannot be used, or None."""
        answer = self.process.ask(grammar.encode())
        if not isinstance(answer, Death):
            return answer.decode() or None
        if answer.cause is Cause.SILENCE:
            return f"the process that tries it out said nothing for {answer.seconds:g} s; try again"
        return "it is too large, too deep, or has too many combinations to be compiled"

    def close(self) -> None:
        """End the process; idempotent, and the next `run` starts another."""
        self.process.close()


class GrammarCompiler:
    """Compiles for one vocabulary. One thread at a time; the first call takes a part of a second more, or `make_ready`.

    llguidance keeps the interpreter locked for most of that, and so rests every stream.
    """

    def __init__(self, vocab: Vocab, helper: Beside) -> None:
        self._vocab = vocab
        self._helper = helper
        self._pieces: list[bytes] = []
        self._tokenizer: LLTokenizer | None = None
        self._free: FreeText | None = None  # that of the last answer which had one: a model's form has one opening
        self._trial = GrammarTrial()

    def compile(self, texts: GrammarTexts, field: str = "") -> AheadGrammar:
        """The one of the three texts that is not empty. Raises InvalidRequest naming the field.

        `field` is where the request has it, unless it is an answer's grammar, which comes of several fields.
        """
        if texts.answer:
            field = "tools"
        field = field or ("json_schema" if texts.json_schema else "grammar")
        tokenizer = self.make_ready()
        try:
            if texts.json_schema:
                text = schema_grammar(texts.json_schema)
            elif texts.answer:
                text = answer_grammar(texts.answer, {one.name: self._inner_text(one) for one in texts.inner})
            else:
                text = lark_grammar(self._of_gbnf(texts.grammar))
            if not texts.is_plain:
                self._try_out(text, texts)
            try:
                made = GuidedGrammar(text, tokenizer, self._free_text(texts.opening), self._pieces)
            except InvalidRequest:
                if texts.is_plain:
                    self._try_out(text, texts)  # which finds the field
                raise
            return AheadGrammar(made, self._helper)
        except InvalidRequest as error:
            if error.field is not None:
                raise
            raise _wrong(field, error.message) from error

    def make_ready(self) -> LLTokenizer:
        """llguidance's form of the vocabulary, made once. Raises NotSupported for a model that has none."""
        if self._tokenizer is None:
            self._pieces = guidance_pieces(self._vocab)
            self._tokenizer = guidance_tokenizer(self._vocab, self._pieces)
        return self._tokenizer

    def close(self) -> None:
        self._trial.close()

    def _try_out(self, text: str, texts: GrammarTexts) -> None:
        """Raise InvalidRequest where `text`, of which `texts` are the origin, cannot be used."""
        reason = self._trial.run(text)
        if reason is not None:
            self._check_schemas(texts.answer)
            self._check_inner(texts.inner)
            raise InvalidRequest(reason)

    def _free_text(self, opening: str | None) -> FreeText | None:
        """What is to be known of an answer's text before the opening of its first call; None: it begins otherwise."""
        if opening is None:
            return None
        if self._free is None or self._free.opening != opening.encode():
            self._free = FreeText(opening.encode(), self._pieces)
        return self._free

    def _check_schemas(self, text: str) -> None:
        """Raise InvalidRequest naming the field, for the first schema in a text that cannot be used by itself.

        Others wait for their grammars meanwhile: after some seconds the rest is not looked at.
        """
        tried: set[str] = set()
        until = time.monotonic() + SEARCH
        for field, grammar in schemas_in(text):
            if time.monotonic() > until:
                break
            if grammar not in tried and (reason := self._trial.run(grammar)) is not None:
                raise _wrong(field, reason)
            tried.add(grammar)

    def _check_inner(self, inner: Sequence[InnerGrammar]) -> None:
        """Raise InvalidRequest naming the field and the tool, for the first that cannot be used by itself."""
        of_clients = {one.name: self._inner_text(one) for one in inner if one.syntax != OWN}
        for one in sorted(inner, key=lambda one: one.syntax == OWN):
            if one.syntax == OWN:
                self._check_schemas(one.definition)
                reason = self._trial.run(answer_grammar(self._inner_text(one), of_clients))
            else:
                reason = self._trial.run(lark_grammar(self._inner_text(replace(one, is_escaped=False))))
                reason = reason or self._trial.run(lark_grammar(of_clients[one.name]))
            if reason is not None:
                raise _wrong_inner(one, reason)

    def _inner_text(self, one: InnerGrammar) -> str:
        """Its Lark text. Raises InvalidRequest naming the field and the tool."""
        try:
            if one.syntax == GBNF:
                return self._of_gbnf(one.definition)
            return input_grammar(one.syntax, one.definition, is_escaped=one.is_escaped)
        except InvalidRequest as error:
            raise _wrong_inner(one, error.message) from error

    def _of_gbnf(self, grammar: str) -> str:
        """The Lark text of a grammar in GBNF. Raises InvalidRequest."""
        return to_lark(gbnf.parse(grammar, self._find_token, self._vocab.n_tokens))

    def _find_token(self, text: str) -> int | None:
        found = self._vocab.tokenize(text, add_special=False, parse_special=True)
        return found[0] if len(found) == 1 else None


class GrammarDesk:
    """Gives requests their grammar and passes them on. Every method may be called from any thread.

    `deliver` takes the request with its grammar. One that is not known is compiled, after those of earlier requests:
    it is delivered as a ComingGrammar when its turn comes, and GrammarCame behind it. So one request at a time may hold
    a slot without having its grammar.
    """

    def __init__(self, vocab: Vocab, helpers: Helpers, deliver: Callable[[Request | GrammarCame], None]) -> None:
        self._worker = helpers.grammars
        self._compiler = GrammarCompiler(vocab, helpers.beside)
        self._deliver = deliver
        self._lock = threading.Lock()
        self._pending: set[str] = set()  # requests whose turn has not come
        self._n_compiling = 0  # of these and the one whose turn it is
        self._kept: OrderedDict[GrammarTexts, AheadGrammar] = OrderedDict()

    def take(self, request: Request) -> None:
        """Deliver a request: at once where its grammar is known or the next one to be compiled, else when it is that.

        The engine need not wait for the thread that compiles, which yields to all others.
        """
        grammar = self._find(_key(request))
        if grammar is not None:
            self._deliver(replace(request, grammar=grammar))
            return
        coming = ComingGrammar()
        with self._lock:
            is_next = self._n_compiling == 0
            self._n_compiling += 1
            if is_next:
                self._deliver(replace(request, grammar=coming))
            else:
                self._pending.add(request.request_id)
        self._worker.submit(self._serve, request, coming, is_delivered=is_next)

    def forget(self, request_id: str) -> None:
        """A request that is not delivered is not wanted any more. Nothing for others."""
        with self._lock:
            self._pending.discard(request_id)

    def prepare(self, grammar: str, json_schema: str) -> None:
        """Compile and keep what requests are going to bring. Raises InvalidRequest."""
        self._worker.submit(self._compiled, GrammarTexts(grammar, json_schema), "").result()

    def make_ready(self) -> None:
        """Begin what the first grammar would have to wait for, and all streams with it. Returns at once."""
        self._worker.submit(self._compiler.make_ready)  # a model without a vocabulary tells whoever wants a grammar

    def close(self) -> None:
        """End the trial process. The helpers' threads must have ended."""
        self._compiler.close()

    def _serve(self, request: Request, coming: ComingGrammar, *, is_delivered: bool) -> None:
        try:
            if is_delivered or self._begin(request, coming):
                self._compile(request, coming)
        finally:
            with self._lock:
                self._n_compiling -= 1

    def _begin(self, request: Request, coming: ComingGrammar) -> bool:
        """Deliver a request whose turn has come. Whether its grammar is to be compiled."""
        known = self._find(_key(request))
        with self._lock:  # so that an abort comes before or after, and is not lost
            if request.request_id not in self._pending:
                return False
            self._pending.remove(request.request_id)
            self._deliver(replace(request, grammar=known or coming))
        return known is None

    def _compile(self, request: Request, coming: ComingGrammar) -> None:
        request_id = request.request_id
        error: LlamaboxError | None = None
        try:
            coming.bring(self._compiled(_key(request), request.params.form_field))
        except LlamaboxError as exc:
            error = exc
        except Exception as exc:
            logger.exception("grammar of request %s", request_id)
            error = ServerFault(f"the grammar could not be compiled: {exc}")
        self._deliver(GrammarCame(request_id, error))

    def _compiled(self, key: GrammarTexts, field: str) -> AheadGrammar:
        grammar = self._find(key)
        if grammar is None:
            grammar = self._compiler.compile(key, field)
            self._keep(key, grammar)
        return grammar

    def _find(self, key: GrammarTexts) -> AheadGrammar | None:
        with self._lock:
            grammar = self._kept.get(key)
            if grammar is not None:
                self._kept.move_to_end(key)
            return grammar

    def _keep(self, key: GrammarTexts, grammar: AheadGrammar) -> None:
        with self._lock:
            self._kept[key] = grammar
            while len(self._kept) > MAX_KEPT or sum(texts.n_characters for texts in self._kept) > MAX_KEPT_TEXT:
                self._kept.popitem(last=False)


def _key(request: Request) -> GrammarTexts:
    params = request.params
    return GrammarTexts(
        params.grammar,
        params.json_schema,
        params.answer_grammar,
        params.inner_grammars,
        params.answer_opening,
        params.answer_is_plain,
    )


def _wrong_inner(one: InnerGrammar, reason: str) -> InvalidRequest:
    what = f"the grammar of the tool {one.tool!r} cannot be used: " if one.tool else ""
    return _wrong(one.field, f"{what}{reason}")


def _wrong(field: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"Field '{field}': {reason}", field=field)


def has_grammar_text(params: GenerationParams) -> bool:
    """Whether a request wants a grammar."""
    return bool(params.grammar or params.json_schema or params.answer_grammar)
