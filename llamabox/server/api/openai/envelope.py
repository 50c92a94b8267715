"""What stands around the choices of a reply."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from llamabox.server.api.native.writer import final_object
from llamabox.server.api.openai.usage import usage_object
from llamabox.server.fields.request import Options
from llamabox.server.generation.choice import Choice
from llamabox.server.generation.reply import TextReply
from llamabox.server.generation.timings import rate_header, timings_object
from llamabox.server.http.json import JsonResponse
from llamabox.wire.text_config import ModelInfo

ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Envelope:
    """The fields that all chunks of one reply share, but for the object's name."""

    reply_id: str
    created: int  # seconds since the epoch
    model: str
    fingerprint: str

    @classmethod
    def new(cls, prefix: str, model: str, info: ModelInfo) -> Envelope:
        """An envelope with a new id, which begins with `prefix`."""
        suffix = "".join(secrets.choice(ALPHABET) for _ in range(32))
        return cls(prefix + suffix, int(time.time()), model, info.build)

    def fields(self, kind: str) -> dict[str, Any]:
        """Everything but `choices` and what follows them, of an object that is called `kind`."""
        return {
            "id": self.reply_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def whole_response(
    head: dict[str, Any],
    written: list[dict[str, Any]],
    choices: Sequence[Choice],
    options: Options,
    reply: TextReply,
) -> Response:
    """A plain reply: the envelope's fields, the choices as they were written, and what follows them."""
    content = {
        **head,
        "choices": written,
        "usage": usage_object(choices, options),
        "timings": timings_object(choices[0].finished.timings),
    }
    if options.verbose:
        content["__verbose"] = final_object(choices[0], options, reply.settings, streamed=False)
    return JsonResponse(content, headers=rate_header(choices[0].finished.timings))
