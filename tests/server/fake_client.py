"""A text client without a worker: answers are scripted, or written event by event by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from llamabox.clients.state import WorkerState
from llamabox.clients.text.embedding import Embedding
from llamabox.engine.events import (
    Activity,
    Delta,
    Event,
    Finished,
    FinishReason,
    Started,
    StepTimes,
    StopType,
    Timings,
    Vector,
)
from llamabox.engine.request import PromptPart, PromptText
from llamabox.errors import LlamaboxError, Unavailable
from llamabox.server.hosted.seams import Stream, TextService, VectorStream
from llamabox.wire.questions import (
    A,
    CountTokens,
    Detokenise,
    FindControlTokens,
    Layout,
    LayOutInfill,
    Question,
    Text,
    TokenCount,
    TokenIds,
    Tokenise,
    Tokens,
)
from llamabox.wire.text import Embed, Submit
from llamabox.wire.text_config import ModelInfo

Script = Callable[[Submit], list[list[Event]] | LlamaboxError]

INFO = ModelInfo(
    path="/models/tiny.gguf",
    n_ctx=256,
    n_ctx_total=512,
    n_slots=2,
    n_ctx_train=2048,
    n_vocab=1000,
    n_embd=64,
    n_params=1_000_000,
    size=4_000_000,
    vocab_type=1,
    ftype="Q4_1",
    description="tiny",
    chat_template=None,
    bos_token="<s>",
    eos_token="</s>",
    add_bos=True,
    context_shift=True,
    build="b1-abc",
    eog_tokens=[2, 3],
    longest_piece=16,
)


def timings(n: int, *, n_prompt: int = 8, n_cached: int = 0) -> Timings:
    return Timings(
        cache_n=n_cached, prompt_n=n_prompt - n_cached, prompt_ms=20.0, predicted_n=n, predicted_ms=10.0 * max(n - 1, 0)
    )


def started(submit: Submit, index: int = 0, *, n_prompt: int = 8, n_cached: int = 0) -> Started:
    """As by a worker to whom each text is tokens 7 and 8, and all ids of a prompt are one text."""
    entries, prompt = submit.params.sampling.logit_bias, submit.prompt
    biases = {one: bias for token, bias in entries for one in ([7, 8] if isinstance(token, str) else [token])}
    has_texts = any(isinstance(token, str) for token, _ in entries)
    ids = "five six" if any(isinstance(part, int) for part in prompt) else ""
    text = "".join(["<s>"] * isinstance(prompt[0], str) + [part for part in prompt if isinstance(part, str)]) + ids
    return Started(
        *(submit.request_id, index, index, n_prompt, n_cached, 42),
        tuple(biases.items()) if has_texts else None,
        text if submit.params.return_prompt else None,
    )


def delta(submit: Submit, text: str, n: int, index: int = 0) -> Delta:
    return Delta(submit.request_id, index, text, [100 + n], timings(n))


def finished(
    submit: Submit, n: int, index: int = 0, *, n_cached: int = 0, reason: FinishReason = FinishReason.LENGTH
) -> Finished:
    stop_type = StopType.LIMIT if reason is FinishReason.LENGTH else StopType.EOS
    return Finished(
        request_id=submit.request_id,
        index=index,
        reason=reason,
        stop_type=stop_type,
        stopping_word="",
        truncated=False,
        has_new_line=False,
        n_prompt=8,
        n_resident=8 + n - 1,
        id_slot=index,
        seed=42,
        timings=timings(n, n_cached=n_cached),
    )


def saying(*words: str, n_cached: int = 0) -> Script:
    """Each sequence says the words, one a step; every sequence after the first adds its index to the first word."""

    def script(submit: Submit) -> list[list[Event]]:
        everyone = range(submit.params.n)
        steps: list[list[Event]] = [[started(submit, i, n_cached=n_cached) for i in everyone]]
        for n, word in enumerate(words, 1):
            steps.append([delta(submit, f"{i}{word}" if i and n == 1 else word, n, i) for i in everyone])
        steps.append([finished(submit, len(words), i, n_cached=n_cached) for i in everyone])
        return steps

    return script


class FakeGeneration:
    """Events as the test pushes them."""

    def __init__(self, submit: Submit) -> None:
        self.submit = submit
        self.aborted = asyncio.Event()
        self.n_aborts = 0
        self._queue: asyncio.Queue[list[Event] | LlamaboxError] = asyncio.Queue()
        self._n_running = submit.params.n
        self._ended = False

    def push(self, *events: Event) -> None:
        self._queue.put_nowait(list(events))

    def fail(self, error: LlamaboxError) -> None:
        self._queue.put_nowait(error)

    async def batch(self) -> list[Event]:
        if not self._n_running:
            self._ended = True
            return []
        item = await self._queue.get()
        if isinstance(item, LlamaboxError):
            self._ended = True
            raise item
        self._n_running -= sum(isinstance(event, Finished) for event in item)
        return item

    def abort(self) -> None:
        if not self._ended and self._n_running:
            self.n_aborts += 1
            self.aborted.set()


class FakeTextClient:
    """The face of TextClient. Without a script the test takes each generation from `submitted()` and pushes events."""

    def __init__(self, script: Script | None = None, *, info: ModelInfo = INFO) -> None:
        self.state = WorkerState.READY
        self.info: ModelInfo | None = info
        self.trouble = ""
        self.script = script
        self.activity = Activity()
        self.n_restarts = 0
        self.on_step: Callable[[StepTimes], None] = lambda times: None
        self.submits: list[Submit] = []
        self.embedded: list[PromptText] = []
        self.generations: list[FakeGeneration] = []
        self.asked: list[Question[Any]] = []
        self.answers: dict[type[Question[Any]], Any] = {  # or an error
            Tokenise: TokenIds.of([5, 6, 7]),
            CountTokens: TokenCount(3),
            Detokenise: Text("five six"),
            LayOutInfill: Layout([1, 2, 3], "five"),
        }
        self.load_error: LlamaboxError | None = None
        self.started = asyncio.Event()
        self.loaded = asyncio.Event()
        self.stopped = asyncio.Event()
        self.stop_asked = asyncio.Event()
        self._arrivals: asyncio.Queue[FakeGeneration] = asyncio.Queue()

    async def start(self) -> None:
        self.started.set()

    async def wait_ready(self) -> ModelInfo:
        if self.load_error is not None:
            raise self.load_error
        await self.loaded.wait()
        self.state = WorkerState.READY
        assert self.info is not None
        return self.info

    async def stop(self, grace: float) -> None:
        self.state = WorkerState.STOPPED
        for generation in self.generations:
            generation.fail(Unavailable("stopped"))
        self.stopped.set()

    def check_room(self) -> None:
        """There is room always."""

    def generate_all(self, submits: Sequence[Submit]) -> list[FakeGeneration]:
        return [self.generate(submit) for submit in submits]

    def generate(self, submit: Submit) -> FakeGeneration:
        if self.state is not WorkerState.READY:
            raise Unavailable("Loading model")
        self.submits.append(submit)
        generation = FakeGeneration(submit)
        self.generations.append(generation)
        if self.script is None:
            self._arrivals.put_nowait(generation)
            return generation
        answer = self.script(submit)
        if isinstance(answer, LlamaboxError):
            generation.fail(answer)
        else:
            for step in answer:
                generation.push(*step)
        return generation

    async def submitted(self) -> FakeGeneration:
        """The next generation that a request asked for."""
        return await self._arrivals.get()

    def embed(
        self, prompts: Sequence[Sequence[PromptPart]], *, add_special: bool = True, parse_special: bool = True
    ) -> VectorStream:
        """Each prompt gets a vector of zeros at once."""
        self.embedded += [list(prompt) for prompt in prompts]

        def answer(part: Embed) -> None:
            for i, prompt in enumerate(part.prompts):
                embedding.push(Vector("embed", part.first + i, len(prompt), bytes(4 * n_vector)))

        n_vector = self.info.n_vector if self.info is not None else 0
        empty = Embed(request_id="embed", first=0, n_left=0, prompts=[])
        embedding = Embedding(empty, prompts, answer, lambda embedding, ending: None, lambda part: None)
        return embedding

    def rank(
        self, query: str, documents: Sequence[str], *, field: str, n_document: int | None, truncate: bool
    ) -> VectorStream:
        raise AssertionError("this fake ranks nothing")

    async def ask(self, question: Question[A]) -> A:
        self.asked.append(question)
        if isinstance(question, FindControlTokens):  # its vocabulary has none
            return cast(A, Tokens([-1] * len(question.texts)))
        answer = self.answers[type(question)]
        if isinstance(answer, LlamaboxError):
            raise answer
        assert type(answer) is question.answer_type()
        return cast(A, answer)


if TYPE_CHECKING:  # mypy holds each fake to the seam that it stands for
    _generation: type[Stream[Event]] = FakeGeneration
    _text_service: type[TextService] = FakeTextClient
