"""The text worker's receiving thread: it tokenises beside the decode that is running."""

from __future__ import annotations

import queue
from collections.abc import Callable
from functools import partial

from llamabox.engine.events import Failed
from llamabox.engine.request import Request
from llamabox.errors import LlamaboxError, to_wire
from llamabox.wire.common import Shutdown
from llamabox.wire.frames import Message
from llamabox.wire.questions import SlotQuestion
from llamabox.wire.text import Abort, Call, Embed, Reply, Step, Submit, SubmitAll
from llamabox.workers.body import Body, ChannelReader
from llamabox.workers.text.calls import QuickCalls
from llamabox.workers.text.embedding.lanes import LaneDone
from llamabox.workers.text.grammars.coming import GrammarCame
from llamabox.workers.text.grammars.desk import GrammarDesk, has_grammar_text
from llamabox.workers.text.intake import Intake, Passages
from llamabox.workers.text.long_texts import LongTexts, Text, is_long
from llamabox.workers.text.media.encoder import EncodingsDone
from llamabox.workers.text.slots.calls import FileDone

Task = Request | Passages | LaneDone | EncodingsDone | GrammarCame | Abort | Call | Shutdown | FileDone
"""A thing for the loop to do between two steps."""


class TextReader(ChannelReader):
    """Receives, tokenises and answers questions about the vocabulary, while another thread decodes.

    Long texts have a thread of their own: an abort or a short prompt must not wait for them.
    """

    def __init__(self, body: Body) -> None:
        super().__init__(body)
        self._intake: Intake | None = None
        self._calls: QuickCalls | None = None
        self._grammars: GrammarDesk | None = None
        self.tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._long_texts = LongTexts(self._prepare, body.pulse)

    def start(self) -> None:
        super().start()
        self._long_texts.start()

    def serve(self, intake: Intake, calls: QuickCalls, grammars: GrammarDesk) -> None:
        """From now on requests are taken in. Called before Ready is sent."""
        self._intake, self._calls, self._grammars = intake, calls, grammars

    def refuse(self, request_id: str, error: LlamaboxError) -> None:
        """Answer a request that the engine does not get. From any thread."""
        self._channel.send(Step([Failed(request_id, 0, to_wire(error))]))

    def _end(self) -> bool:
        self.tasks.put(Shutdown())
        return self._intake is not None

    def _take(self, message: Message) -> bool:
        match message:
            case Submit() | Embed() | Call() if self._takes_long(message):
                self._long_texts.put(message)
            case Submit() | Embed() | Call():
                self._prepare(message)()
            case SubmitAll():
                take = self._long_texts.put if self._takes_long(message) else self._take
                for submit in message.submits:
                    take(submit)
            case Abort():
                self._long_texts.abort(message.request_id)
                if self._grammars is not None:
                    self._grammars.forget(message.request_id)
                self.tasks.put(message)
            case _:
                return False
        return True

    def _takes_long(self, message: Text | SubmitAll) -> bool:
        assert self._intake is not None, "a request before Ready"
        return is_long(message) or (
            isinstance(message, Submit | SubmitAll) and not self._intake.is_known(message.params)
        )

    def _prepare(self, message: Text) -> Callable[[], None]:
        """Does what needs the vocabulary; the function returned hands on what came of it."""
        match message:
            case Submit():
                return self._request(message)
            case Embed():
                return self._passages(message)
        return self._answer(message)

    def _passages(self, embed: Embed) -> Callable[[], None]:
        assert self._intake is not None, "a request before Ready"
        try:
            return partial(self.tasks.put, self._intake.passages(embed))
        except LlamaboxError as error:
            return partial(self.refuse, embed.request_id, error)

    def _request(self, submit: Submit) -> Callable[[], None]:
        assert self._intake is not None, "a request before Ready"
        assert self._grammars is not None
        try:
            request = self._intake.request(submit)
        except LlamaboxError as error:
            return partial(self.refuse, submit.request_id, error)
        has_grammar = has_grammar_text(submit.params)
        return partial(self._grammars.take if has_grammar else self.tasks.put, request)

    def _answer(self, call: Call) -> Callable[[], None]:
        assert self._calls is not None, "a call before Ready"
        if isinstance(call.question, SlotQuestion):
            return lambda: self.tasks.put(call)
        try:
            reply = Reply(call.call_id, self._calls.answer(call.question))
        except LlamaboxError as error:
            reply = Reply(call.call_id, error=to_wire(error))
        return lambda: self._channel.send(reply)
