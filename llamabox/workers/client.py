"""The text worker as the server process sees it: an async face over supervisor and channel."""

from __future__ import annotations

import asyncio
import enum
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any

from llamabox.engine.events import Activity, Event, Failed, StepTimes, Vector
from llamabox.errors import ChannelBroken, LlamaboxError, NativeError, ServerFault, Unavailable
from llamabox.workers.channel import AsyncChannel
from llamabox.workers.comeback import Comeback
from llamabox.workers.embedding import Embedding
from llamabox.workers.generation import MAX_LAG, Generation
from llamabox.workers.protocol import (
    Abort,
    Call,
    Configure,
    Embed,
    LoadFailed,
    Loading,
    Message,
    Ready,
    Reply,
    Step,
    StopAsked,
    Submit,
    Vectors,
    read_error,
)
from llamabox.workers.supervisor import Backoff, Supervisor
from llamabox.workers.suspects import Suspects
from llamabox.workers.text_config import ModelInfo, TextConfig

__all__ = ["Generation", "TextClient", "WorkerState"]

logger = logging.getLogger(__name__)

MAX_UNSENT = 256 << 20
"""Bytes that may wait for the worker to read them before requests are refused."""

_NO_ENV: Mapping[str, str] = MappingProxyType({})


class WorkerState(enum.Enum):
    """Requests are taken in READY only."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"  # it died after a successful load
    FAILED = "failed"  # the first load failed: final
    STOPPED = "stopped"


_REFUSALS = MappingProxyType(
    {
        WorkerState.LOADING: "Loading model",
        WorkerState.RESTARTING: "The text worker ended unexpectedly and is being restarted: try again",
        WorkerState.FAILED: "The model could not be loaded",
        WorkerState.STOPPED: "The server is stopping",
    }
)


class TextClient:
    """Runs a text worker and speaks to it. Belongs to the server's event loop; `stop` must be awaited before that ends.

    As a context manager it starts on entry and stops on exit.
    """

    def __init__(
        self,
        config: TextConfig,
        *,
        module: str = "llamabox.workers.text",
        env: Mapping[str, str] = _NO_ENV,  # on top of this process' own
        backoff: Backoff | None = None,
        max_lag: int = MAX_LAG,
    ) -> None:
        self.config = config
        self.state = WorkerState.LOADING
        self.progress = 0.0
        self.info: ModelInfo | None = None
        self.on_step: Callable[[StepTimes], None] = lambda times: None
        self.stop_asked = asyncio.Event()  # the worker got a SIGTERM, which is meant for the whole server
        self._past = Activity()  # of the workers that ended
        self._present = Activity()  # of the one that runs
        self._load_error: LlamaboxError | None = None  # of the load that was tried last
        self._changed = asyncio.Event()  # one per change
        self._supervisor = Supervisor(
            module, self._session, self._ended, env=env, backoff=backoff or Backoff(), may_start=self._may_start
        )
        self._channel: AsyncChannel | None = None
        self._ready_since: float | None = None
        self._generations: dict[str, Generation] = {}
        self._embeddings: dict[str, Embedding] = {}
        self._n_embeddings = 0
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._n_calls = 0
        self._suspects = Suspects(time.monotonic)
        self._comeback = Comeback(config.rpc_servers, self._suspects, self._notify)
        self._max_lag = max_lag

    @property
    def n_restarts(self) -> int:
        return self._supervisor.n_restarts

    @property
    def trouble(self) -> str:
        """What a worker that is not READY waits for, as a sentence; empty where it is the model."""
        return self._comeback.trouble

    @property
    def activity(self) -> Activity:
        """Of all workers so far, as far as they told."""
        return self._present.after(self._past)

    @property
    def pid(self) -> int | None:
        """Of the worker process that runs now."""
        return self._supervisor.pid

    async def start(self) -> None:
        """Spawns the worker and returns at once; it loads in the background."""
        self._supervisor.start()

    async def wait_ready(self) -> ModelInfo:
        """Waits for READY, through restarts. Raises the error of a first load that fails, Unavailable after a stop."""
        while self.state is not WorkerState.READY or self.info is None:
            if self.state is WorkerState.FAILED and self._load_error is not None:
                raise self._load_error
            if self.state is WorkerState.STOPPED:
                raise self._refusal()
            await self.wait_change()
        return self.info

    async def wait_change(self) -> WorkerState:
        """Waits for the next change of `state` or `progress`, and returns what the state is by then."""
        await self._changed.wait()
        return self.state

    async def stop(self, grace: float) -> None:
        """Ends what runs with Unavailable, then the worker, with `grace` seconds before force. Idempotent."""
        self._enter(WorkerState.STOPPED)
        self._fail_all(_REFUSALS[self.state])
        await self._supervisor.stop(grace)

    async def __aenter__(self) -> TextClient:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.stop(grace=5.0)

    def generate(self, submit: Submit) -> Generation:
        """Sends the request. `request_id` must not be that of one that runs.

        Raises Unavailable when the worker takes no requests now, ServerFault for a request that killed two workers.
        """
        channel = self._open_channel()
        assert submit.request_id not in self._generations, f"request {submit.request_id} runs already"
        self._refuse_guilty(submit)
        channel.send(submit)
        generation = Generation(submit, self._leave, self._max_lag)
        self._generations[submit.request_id] = generation
        return generation

    def embed(
        self, prompts: Sequence[Sequence[str | int]], *, add_special: bool = True, parse_special: bool = True
    ) -> Embedding:
        """The vectors of prompts, at least one; texts and token ids in order, as in a Submit. Sends nothing yet.

        `await client.embed(prompts).all()` gives them in order. Raises Unavailable when the worker takes nothing now.
        """
        return self._embed(prompts, add_special=add_special, parse_special=parse_special)

    def rank(
        self, query: str, documents: Sequence[str], *, field: str, n_document: int | None, truncate: bool
    ) -> Embedding:
        """The same of a reranker: what its classifier makes of each document, at least one, together with the query.

        `field` is what errors call the documents; see Embed.
        """
        prompts = [[document] for document in documents]
        return self._embed(prompts, query=query, field=field, n_document=n_document, truncate=truncate)

    def _embed(self, prompts: Sequence[Sequence[str | int]], **settings: Any) -> Embedding:
        self._open_channel()
        self._n_embeddings += 1
        empty = Embed(request_id=f"embed {self._n_embeddings}", first=0, n_left=0, prompts=[], **settings)
        embedding = Embedding(empty, prompts, self._send_part, self._leave_embedding, self._suspects.clear)
        self._embeddings[empty.request_id] = embedding
        return embedding

    async def call(self, method: str, **arguments: Any) -> Any:
        """The worker's answer. Raises the Reply's error; Unavailable when the worker is not ready or dies meanwhile."""
        channel = self._open_channel()
        self._n_calls += 1
        call_id = self._n_calls
        channel.send(Call(call_id, method, arguments))
        answer = asyncio.get_running_loop().create_future()
        self._calls[call_id] = answer
        try:
            return await answer
        finally:
            self._calls.pop(call_id, None)

    def _open_channel(self) -> AsyncChannel:
        if self.state is not WorkerState.READY or self._channel is None:
            raise self._refusal()
        if self._channel.n_unsent > MAX_UNSENT:
            raise Unavailable("The text worker is not keeping up with its requests: try again")
        return self._channel

    def _refusal(self) -> Unavailable:
        return Unavailable(self.trouble or _REFUSALS[self.state])

    def _refuse_guilty(self, message: Submit | Embed) -> None:
        if self._suspects.is_guilty(message):
            raise ServerFault(
                "This request was running each time when the text worker died, twice: it is refused for an hour"
            )

    def _send_part(self, part: Embed) -> None:
        channel = self._open_channel()
        self._refuse_guilty(part)
        channel.send(part)

    def _leave_embedding(self, embedding: Embedding, completed: bool) -> None:
        self._embeddings.pop(embedding.request_id, None)
        if not completed and self._channel is not None:
            self._channel.send(Abort(embedding.request_id))

    def _leave(self, generation: Generation, completed: bool) -> None:
        self._generations.pop(generation.submit.request_id, None)
        if completed:
            self._suspects.clear(generation.submit)
        elif self._channel is not None:
            self._channel.send(Abort(generation.submit.request_id))

    async def _may_start(self) -> bool:
        """Whether there may be a worker, once its RPC servers are there; before the first one they have to be there."""
        if self.info is not None:
            await self._comeback.again()
            return True
        try:
            await self._comeback.first()
        except LlamaboxError as error:
            self._load_error = error
            self._enter(WorkerState.FAILED)
        return self.state is not WorkerState.FAILED

    async def _session(self, channel: AsyncChannel) -> float:
        """One worker's life, as the supervisor asks for it: returns the seconds for which it was ready."""
        self._channel = channel
        self._ready_since = None
        self._load_error = None
        self.progress = 0.0
        channel.send(Configure(self.config))
        try:
            await channel.serve(self._dispatch)
        except ChannelBroken as exc:
            logger.error("the text worker is taken for dead: %s", exc)
        except Exception:  # nobody else would see it, and a worker that nobody reads must not look alive
            logger.exception("a message of the text worker could not be handled: taking it for dead")
        finally:
            self._lost()
        return 0.0 if self._ready_since is None else time.monotonic() - self._ready_since

    def _dispatch(self, message: Message) -> None:
        match message:
            case Step():
                if message.activity is not None:
                    self._present = message.activity
                if message.times is not None:
                    self.on_step(message.times)
                self._deliver(message.events)
            case Vectors():
                self._present = message.activity
                self._hand_out(message.vectors)
            case Reply():
                self._answer(message)
            case Loading():
                self.progress = message.progress
                self._notify()
            case Ready():
                self.progress = 1.0
                self.info = message.info
                self._ready_since = time.monotonic()
                self._enter(WorkerState.READY)
                self._resume()
            case LoadFailed():
                self._load_error = read_error(message.error)
                if self.info is not None:  # else wait_ready raises it
                    logger.error("the text worker could not load: %s", self._load_error)
            case StopAsked():
                self.stop_asked.set()
            case _:
                raise ChannelBroken(f"a worker does not send {type(message).__name__}")

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            embedding = self._embeddings.get(event.request_id)
            if embedding is not None and isinstance(event, Failed):
                embedding.fail(read_error(event.error))
                continue
            generation = self._generations.get(event.request_id)
            if generation is not None:  # else it was aborted, and this crossed the Abort
                generation.push(event)

    def _hand_out(self, vectors: list[Vector]) -> None:
        for vector in vectors:
            embedding = self._embeddings.get(vector.request_id)
            if embedding is not None:  # else it was aborted
                embedding.push(vector)

    def _answer(self, reply: Reply) -> None:
        answer = self._calls.get(reply.call_id)
        if answer is None or answer.done():  # the caller went away
            return
        if reply.error is None:
            answer.set_result(reply.value)
        else:
            answer.set_exception(read_error(reply.error))

    def _lost(self) -> None:
        """The channel is at its end. The state tells so before anything else is awaited: /health reads it."""
        self._channel = None
        self._past = self.activity
        self._present = Activity()
        if self.state is WorkerState.READY:
            self._enter(WorkerState.RESTARTING)
            parts = [part for embedding in self._embeddings.values() for part in embedding.in_flight]
            self._comeback.died([*(one.submit for one in self._generations.values()), *parts], self._give_up)
        self._fail_all("The text worker ended while it served this request: try again", but=self._comeback.holds)

    def _give_up(self) -> None:
        """There has been no other worker for too long."""
        self._fail_all(self._refusal().message)

    def _resume(self) -> None:
        """Sends what waited for this worker. Nothing else can be there: requests are taken in READY only."""
        self._comeback.resume()
        for generation in list(self._generations.values()):
            try:
                self._refuse_guilty(generation.submit)
                self._open_channel().send(generation.submit)
            except LlamaboxError as error:
                generation.fail(error)

    def _fail_all(self, sentence: str, but: Callable[[Generation], bool] = lambda generation: False) -> None:
        """An exception for each, because each is raised in a task of its own and collects that one's traceback."""
        for generation in list(self._generations.values()):
            if not but(generation):
                generation.fail(Unavailable(sentence))
        for embedding in list(self._embeddings.values()):
            embedding.fail(Unavailable(sentence))
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(Unavailable(sentence))

    def _ended(self, code: int | None, how: str) -> bool:
        """The process is reaped: is there to be another?"""
        if self.state is WorkerState.STOPPED:
            return False
        if code == -signal.SIGTERM:  # it came before the worker could send StopAsked, and means the same
            self._enter(WorkerState.STOPPED)
            self.stop_asked.set()
            return False
        if self.info is not None:  # a load succeeded once, so another may
            return True
        if self._load_error is None:
            where = f" over the RPC servers {', '.join(self.config.rpc_servers)}" if self.config.rpc_servers else ""
            self._load_error = NativeError(f"the text worker {how} while it loaded {self.config.model}{where}")
        self._enter(WorkerState.FAILED)
        return False

    def _enter(self, state: WorkerState) -> None:
        if state is not self.state and self.state is not WorkerState.STOPPED:
            self.state = state
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
