"""The text worker as the server process sees it: an async face over supervisor and channel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llamabox.clients.client import NO_ENV, WorkerClient
from llamabox.clients.crowd import MAX_WAITING, Crowd
from llamabox.clients.inbox import MAX_LAG, Ending
from llamabox.clients.supervisor import Backoff
from llamabox.clients.suspects import Suspects
from llamabox.clients.text.comeback import Comeback
from llamabox.clients.text.embedding import Embedding
from llamabox.clients.text.generation import Generation
from llamabox.engine.events import Activity, Event, Failed, StepTimes, Vector
from llamabox.engine.request import PromptPart
from llamabox.errors import ChannelBroken, LlamaboxError, ServerFault, Unavailable
from llamabox.wire.common import read_error
from llamabox.wire.frames import Message
from llamabox.wire.questions import A, Question
from llamabox.wire.text import Abort, Call, Configure, Embed, Ready, Reply, Step, Submit, SubmitAll, Vectors
from llamabox.wire.text_config import ModelInfo, TextConfig

__all__ = ["Generation", "TextClient"]


class TextClient(WorkerClient[TextConfig, ModelInfo]):
    """Runs a text worker and speaks to it; see WorkerClient."""

    def __init__(
        self,
        config: TextConfig,
        *,
        module: str = "llamabox.workers.text",
        env: Mapping[str, str] = NO_ENV,  # on top of this process' own
        backoff: Backoff | None = None,
        max_lag: int = MAX_LAG,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        super().__init__("text", config, module=module, env=env, backoff=backoff)
        self.on_step: Callable[[StepTimes], None] = lambda times: None
        self._past = Activity()  # of the workers that ended
        self._present = Activity()  # of the one that runs
        self._generations: dict[str, Generation] = {}
        self._embeddings: dict[str, Embedding] = {}
        self._n_embeddings = 0
        self._calls: dict[int, tuple[type[Any], asyncio.Future[Any]]] = {}  # by call_id, with the answer's type
        self._n_calls = 0
        self._suspects = Suspects(time.monotonic)
        self._comeback = Comeback(config.rpc_servers, self._suspects, self._notify)
        self._max_lag = max_lag
        self._crowd = Crowd(max_waiting)

    @property
    def activity(self) -> Activity:
        """The activity of all workers so far, as last told by each."""
        return self._present.after(self._past)

    @property
    def trouble(self) -> str:
        return self._comeback.trouble

    @property
    def _what(self) -> str:
        where = f" over the RPC servers {', '.join(self.config.rpc_servers)}" if self.config.rpc_servers else ""
        return self.config.model + where

    def check_room(self) -> None:
        """Raises QueueFull while as many texts wait for a slot as may; a request of many is taken whole or not at all.

        A request for vectors counts as a text.
        """
        n_slots = self.info.n_slots if self.info is not None else 0
        n_texts = sum(one.submit.params.n for one in self._generations.values())
        self._crowd.check(n_texts + len(self._embeddings) - n_slots)

    def generate(self, submit: Submit) -> Generation:
        """Sends the request. `request_id` must not be that of one that runs.

        Raises Unavailable when the worker takes no requests now, ServerFault for a request that killed two workers.
        """
        [generation] = self.generate_all([submit])
        return generation

    def generate_all(self, submits: Sequence[Submit]) -> list[Generation]:
        """Send several prompts, at least one, that share their params. All of them are sent, or none is."""
        channel = self._open_channel()
        params = submits[0].params
        for submit in submits:
            assert submit.params is params
            assert submit.request_id not in self._generations, f"request {submit.request_id} runs already"
            self._refuse_guilty(submit)
        is_one = len(submits) == 1
        channel.send(submits[0] if is_one else SubmitAll([(one.request_id, one.prompt) for one in submits], params))
        generations = [Generation(submit, self._leave, self._max_lag) for submit in submits]
        self._generations |= {generation.submit.request_id: generation for generation in generations}
        return generations

    def embed(self, prompts: Sequence[Sequence[PromptPart]]) -> Embedding:
        """The vectors of prompts, at least one; texts and token ids in order, as in a Submit. Sends nothing yet.

        `await client.embed(prompts).all()` gives them in order. Raises Unavailable when the worker takes nothing now.
        """
        return self._embed(prompts)

    def rank(
        self, query: str, documents: Sequence[str], *, field: str, n_document: int | None, truncate: bool
    ) -> Embedding:
        """The vectors of a reranker: its classifier's outputs for each document, at least one, together with the query.

        `field` is what errors call the documents; see Embed.
        """
        prompts = [[document] for document in documents]
        return self._embed(prompts, query=query, field=field, n_document=n_document, truncate=truncate)

    async def ask(self, question: Question[A]) -> A:
        """The worker's answer. Raises what the question raises; Unavailable when the worker is not ready or dies."""
        channel = self._open_channel()
        self._n_calls += 1
        call_id = self._n_calls
        call = Call(call_id, question)
        channel.send(call)
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._calls[call_id] = question.answer_type(), answer
        try:
            return await answer
        except asyncio.CancelledError:  # its client went away
            if self._channel is channel:
                channel.send(Abort(call.request_id))
            raise
        finally:
            self._calls.pop(call_id, None)

    def _embed(self, prompts: Sequence[Sequence[PromptPart]], **settings: Any) -> Embedding:
        self._open_channel()
        self.check_room()
        self._n_embeddings += 1
        empty = Embed(request_id=f"embed {self._n_embeddings}", first=0, n_left=0, prompts=[], **settings)
        embedding = Embedding(empty, prompts, self._send_part, self._leave_embedding, self._suspects.clear)
        self._embeddings[empty.request_id] = embedding
        return embedding

    def _refuse_guilty(self, message: Submit | Embed) -> None:
        if self._suspects.is_guilty(message):
            raise ServerFault(
                "This request was running each time when the text worker died, twice: it is refused for an hour"
            )

    def _send_part(self, part: Embed) -> None:
        channel = self._open_channel()
        self._refuse_guilty(part)
        channel.send(part)

    def _leave_embedding(self, embedding: Embedding, ending: Ending) -> None:
        self._embeddings.pop(embedding.request_id, None)
        self._crowd.left()
        if ending is not Ending.COMPLETED and self._channel is not None:
            self._channel.send(Abort(embedding.request_id))

    def _leave(self, generation: Generation, ending: Ending) -> None:
        self._generations.pop(generation.submit.request_id, None)
        self._crowd.left()
        if ending is Ending.COMPLETED:
            self._suspects.clear(generation.submit)
        elif self._channel is not None:
            self._channel.send(Abort(generation.submit.request_id))

    async def _may_start(self) -> bool:
        """Wait for the RPC servers. Before the first worker a server that is away is an error."""
        if self.info is not None:
            await self._comeback.again()
            return True
        try:
            await self._comeback.first()
        except LlamaboxError as error:
            self._cannot_load(error)
            return False
        return True

    def _configure(self) -> Message:
        return Configure(self.config)

    def _handle(self, message: Message) -> None:
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
            case Ready():
                self._is_ready(message.info)
                self._resume()
            case _:
                raise ChannelBroken(f"a text worker does not send {type(message).__name__}")

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            generation = self._generations.get(event.request_id)
            if generation is not None:
                generation.push(event)
                continue
            embedding = self._embeddings.get(event.request_id)
            if embedding is not None and isinstance(event, Failed):  # else it was aborted, and this crossed the Abort
                embedding.fail(read_error(event.error))

    def _hand_out(self, vectors: list[Vector]) -> None:
        for vector in vectors:
            embedding = self._embeddings.get(vector.request_id)
            if embedding is not None:  # else it was aborted
                embedding.push(vector)

    def _answer(self, reply: Reply) -> None:
        wanted, answer = self._calls.get(reply.call_id, (None, None))
        if wanted is None or answer is None or answer.done():  # the caller went away
            return
        if reply.error is not None:
            answer.set_exception(read_error(reply.error))
        elif type(reply.answer) is wanted:
            answer.set_result(reply.answer)
        else:
            raise ChannelBroken(f"a question is answered with a {wanted.__name__}, not with {reply.answer!r:.80}")

    def _lost(self, sentence: str, *, died: bool) -> None:
        self._past = self.activity
        self._present = Activity()
        if died:
            parts = [part for embedding in self._embeddings.values() for part in embedding.in_flight]
            self._comeback.died([*(one.submit for one in self._generations.values()), *parts], self._give_up)
        self._fail_all(sentence, but=self._comeback.holds)

    def _give_up(self) -> None:
        """No other worker came for too long: fail what waited for it."""
        self._fail_all(self._refusal().message)

    def _resume(self) -> None:
        """Send the generations that waited for this worker. There are no others: requests are taken in READY only."""
        self._comeback.resume()
        for generation in list(self._generations.values()):
            try:
                self._refuse_guilty(generation.submit)
                self._open_channel().send(generation.submit)
            except LlamaboxError as error:
                generation.fail(error)

    def _fail_all(self, sentence: str, but: Callable[[Generation], bool] = lambda generation: False) -> None:
        """Fail each request with an exception of its own, because its task adds a traceback to it."""
        for generation in list(self._generations.values()):
            if not but(generation):
                generation.fail(Unavailable(sentence))
        for embedding in list(self._embeddings.values()):
            embedding.fail(Unavailable(sentence))
        for _, answer in self._calls.values():
            if not answer.done():
                answer.set_exception(Unavailable(sentence))
