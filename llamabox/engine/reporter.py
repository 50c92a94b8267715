"""What the engine tells about its sequences: events, the counters behind /metrics, and how likely tokens were."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from llamabox import errors
from llamabox.engine.events import (
    Activity,
    Delta,
    Event,
    Failed,
    Finished,
    FinishReason,
    Likely,
    PrefillStart,
    Progress,
    PromptProbs,
    Started,
    StopType,
    Timings,
    TokenProbs,
)
from llamabox.engine.logprobs import log
from llamabox.engine.request import Request
from llamabox.engine.scheduling.work import Share
from llamabox.engine.seams import Runner
from llamabox.engine.sequence import Sequence
from llamabox.engine.text.detokenizer import Piece


class Reporter:
    """Collects the events of a step. Changes nothing of a sequence but its timings. Owned by the engine's thread."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self.done = Activity()

    @property
    def is_empty(self) -> bool:
        return not self._events

    def take(self) -> list[Event]:
        """All events since the last call, in order."""
        events, self._events = self._events, []
        return events

    def forget(self, request_id: str) -> None:
        """Drop what was not yet taken of an aborted request."""
        self._events = [event for event in self._events if event.request_id != request_id]

    def admitted(self, sequence: Sequence, now: float, n_step: int) -> None:
        """It has a slot, of whose cells a step computes at most `n_step`."""
        if sequence.params.return_progress:
            self.progress(sequence, now)
        elif sequence.n_pending > n_step and not sequence.index:
            told = PrefillStart(sequence.request_id, sequence.index, sequence.n_prompt, sequence.n_cached)
            self._events.append(told)

    def progress(self, sequence: Sequence, now: float) -> None:
        """Where the request wants to know: this much of the prompt is computed."""
        if not sequence.params.return_progress or sequence.index:
            return
        assert sequence.slot is not None
        n_new = max(sequence.n_computed - sequence.n_cached, 0)  # a cell that was cached may be computed again
        if sequence.n_cached + n_new <= sequence.n_progress:  # it had lost its slot
            return
        sequence.n_progress = sequence.n_cached + n_new
        timings = Timings(sequence.n_cached, n_new, prompt_ms=(now - sequence.admitted) * 1e3)
        self._events.append(
            Progress(sequence.request_id, sequence.index, sequence.slot.slot_id, sequence.n_prompt, timings)
        )

    def prompt_probs(self, sequence: Sequence, probs: list[TokenProbs]) -> None:
        """So likely were the tokens of a part of the prompt."""
        self._events.append(PromptProbs(sequence.request_id, sequence.index, probs))

    def started(self, sequence: Sequence, now: float) -> None:
        """The prompt is computed."""
        timings = sequence.timings
        timings.cache_n = sequence.n_cached
        timings.prompt_n = sequence.n_prompt - sequence.n_cached
        timings.queue_ms = (sequence.admitted - sequence.arrived) * 1e3
        timings.prompt_ms = (now - sequence.admitted) * 1e3
        self.done.n_cached += timings.cache_n
        self.done.n_prompt += timings.prompt_n
        self.done.prompt_ms += timings.prompt_ms
        assert sequence.slot is not None
        self._events.append(
            Started(
                sequence.request_id,
                sequence.index,
                sequence.slot.slot_id,
                sequence.n_prompt,
                sequence.n_cached,
                sequence.seed,
                sequence.request.logit_bias,
                sequence.request.prompt_text,
                sequence.request.n_audio,
            )
        )

    def generated(self, sequence: Sequence, now: float, n_tokens: int = 1) -> None:
        """So many more tokens were generated, at `now`."""
        timings = sequence.timings
        timings.predicted_n = len(sequence.said)
        predicted_ms = (now - sequence.first_token) * 1e3
        self.done.n_predicted += n_tokens
        self.done.predicted_ms += predicted_ms - timings.predicted_ms
        timings.predicted_ms = predicted_ms

    def said(self, sequence: Sequence, piece: Piece) -> None:
        """Text and tokens to be sent, if there are any."""
        if piece.text or piece.tokens:
            # A copy: the sequence may move on before the event is written out.
            timings = sequence.timings.snapshot()
            delta = Delta(sequence.request_id, sequence.index, piece.text, piece.tokens, timings)
            if sequence.params.n_probs:
                n_tokens = len(piece.tokens)
                delta.probs, sequence.probs = sequence.probs[:n_tokens], sequence.probs[n_tokens:]
            self._events.append(delta)

    def finished(self, sequence: Sequence, stop_type: StopType, word: str) -> None:
        assert sequence.slot is not None
        self._events.append(
            Finished(
                sequence.request_id,
                sequence.index,
                FinishReason.LENGTH if stop_type is StopType.LIMIT else FinishReason.STOP,
                stop_type,
                word,
                sequence.truncated,
                sequence.detokenizer.has_new_line,
                sequence.n_prompt,
                sequence.n_computed,
                sequence.slot.slot_id,
                sequence.seed,
                sequence.timings,
            )
        )

    def failed(self, sequence: Sequence, error: errors.LlamaboxError) -> None:
        self._events.append(Failed(sequence.request_id, sequence.index, errors.to_wire(error)))

    def nothing(self, request: Request) -> None:
        """An empty prompt without BOS has no logits to go on from: as in llama.cpp, its answer is empty."""
        seed = request.params.sampling.seed
        for index in range(request.params.n):
            self._events += (
                Started(*(request.request_id, index, -1, 0, 0, seed, request.logit_bias, request.prompt_text)),
                Finished(
                    request.request_id,
                    index,
                    FinishReason.STOP,
                    StopType.NONE,
                    stopping_word="",
                    truncated=False,
                    has_new_line=False,
                    n_prompt=0,
                    n_resident=0,
                    id_slot=-1,
                    seed=seed,
                    timings=Timings(),
                ),
            )


class Likelihoods:
    """Says how likely a sampled token was, in the form that its request asks for. Reads the runner's last batch."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def of(self, sequence: Sequence, token: int, row: int) -> TokenProbs:
        """The `token` that was sampled from `row`, among the likeliest tokens there."""
        params = sequence.params
        if sequence.tells_distribution:
            left = sequence.distribution
            assert left is not None
            logprob, top = log(left.of(token)), [(each, log(p)) for each, p in left.top(params.n_probs)]
        else:
            logprob, top = self._runner.logprobs(row, token, params.n_probs)
        return self._entry(token, logprob, top, special=params.special)

    def of_prompt(self, share: Share) -> list[TokenProbs]:
        """The tokens behind the prompt cells of a share, and the prompt's first one where that is among these cells.

        Special tokens have their text, whatever the answer shows of them: they are what was asked.
        """
        sequence, start = share.sequence, share.stop - len(share.prompt_rows)
        n_told, stop = sequence.n_prompt_told, min(share.stop + 1, sequence.n_prompt)
        sequence.n_prompt_told = max(n_told, stop)
        keys = sequence.cells.keys(start, stop)
        found = [] if n_told else [self._entry(keys[0], 0.0, [], special=True)]
        assert all(key >= 0 for key in keys), "media have no log-probabilities"
        n_again = max(n_told - start - 1, 0)  # they were told before it lost its slot
        for token, row in list(zip(keys[1:], share.prompt_rows, strict=False))[n_again:]:
            logprob, top = self._runner.logprobs(row, token, sequence.params.n_prompt_probs)
            found.append(self._entry(token, logprob, top, special=True))
        return found

    def _entry(self, token: int, logprob: float, top: Seq[tuple[int, float]], *, special: bool) -> TokenProbs:
        chosen, *rest = (
            Likely(each, self._runner.piece(each, special), value) for each, value in [(token, logprob), *top]
        )
        return TokenProbs(chosen, rest)
