"""Replies of /completion: llama-box's keys and llama-server's (docs/api.md, Native completion)."""

from __future__ import annotations

from typing import Any

from llamabox.engine.events import Delta, Progress, Started, StopType
from llamabox.server.fields.request import Options, ResponseField
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.logprobs import entries, entries_of
from llamabox.server.generation.timings import progress_object, timings_object
from llamabox.server.http.json import dump_line, dump_text, dumps


def final_object(choice: Choice, options: Options, settings: dict[str, Any], *, streamed: bool) -> dict[str, Any]:
    """The last word on one sequence. In a stream the text went before, so `content` and `tokens` are empty.

    `settings` are the request's, of settings_object.
    """
    finished = choice.finished
    result = {
        "index": choice.index,
        "content": "" if streamed else choice.text,
        "tokens": choice.tokens if options.return_tokens and not streamed else [],
        "id_slot": finished.id_slot,
        "stop": True,
        "model": options.model,
        "tokens_predicted": finished.timings.predicted_n,
        "tokens_evaluated": finished.n_prompt,
        "tokens_cached": finished.n_resident,
        "generation_settings": settings | {"seed_cur": finished.seed},
        "prompt": choice.prompt,
        "has_new_line": finished.has_new_line,
        "truncated": finished.truncated,
        "stop_type": finished.stop_type,
        "stopped_eos": finished.stop_type is StopType.EOS,
        "stopped_word": finished.stop_type is StopType.WORD,
        "stopped_limit": finished.stop_type is StopType.LIMIT,
        "stopping_word": finished.stopping_word,
        "timings": timings_object(finished.timings),
    }
    if options.n_top is not None and not streamed:
        result["completion_probabilities"] = entries([one.probs for one in entries_of(choice)], options)
    return result


def select_fields(result: dict[str, Any], fields: list[ResponseField]) -> dict[str, Any]:
    """Keep only `response_fields`; `a/b` lifts a nested value to a key of that name. Missing ones are left out."""
    if not fields:
        return result
    selected: dict[str, Any] = {}
    for field, path in fields:
        value: Any = result
        for part in path:
            if not isinstance(value, dict) or part not in value:
                break
            value = value[part]
        else:
            selected[field] = value
    return selected


def progress_chunk(index: int, event: Progress, options: Options) -> bytes:
    """An SSE event without text, before the first one with text."""
    chunk = {
        "index": index,
        "content": "",
        "tokens": [],
        "tokens_predicted": 0,
        "tokens_evaluated": event.n_prompt,
        "id_slot": event.id_slot,
        "stop": False,
        "model": options.model,
        "prompt_progress": progress_object(event),
    }
    if options.timings_per_token:
        chunk["timings"] = timings_object(event.timings)
    return b"data: " + dump_line(chunk) + b"\n\n"


class PartialChunks:
    """Builds one sequence's chunks: what is constant is encoded once, each event adds text, ids and a count."""

    def __init__(self, index: int, started: Started, options: Options) -> None:
        self._head = b'data: {"index":%d,"content":' % index
        self._tail = b',"tokens_evaluated":%d,"id_slot":%d,"stop":false,"model":%b' % (
            started.n_prompt,
            started.id_slot,
            dump_text(options.model),
        )
        self._with_timings = options.timings_per_token
        self._options = options

    def chunk(self, delta: Delta) -> bytes:
        """One SSE event."""
        return b"".join(
            (
                self._head,
                dump_text(delta.text),
                b',"tokens":',
                dumps(delta.tokens),
                b',"tokens_predicted":%d' % delta.timings.predicted_n,
                self._tail,
                b',"timings":' + dumps(timings_object(delta.timings)) if self._with_timings else b"",
                b"" if self._options.n_top is None else self._probabilities(delta),
                b"}\n\n",
            )
        )

    def _probabilities(self, delta: Delta) -> bytes:
        return b',"completion_probabilities":' + dump_line(entries(delta.probs or (), self._options))
