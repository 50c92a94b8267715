"""Errors in Anthropic's words, for every reply under the paths of its API (docs/api.md, Messages)."""

from __future__ import annotations

from typing import Any

from llamabox import errors
from llamabox.server.http.errors import ErrorWords, status_of
from llamabox.server.http.json import dump_line

PATH = "/v1/messages"
"""What stands under it is Anthropic's."""

OVERLOADED = 529
"""Anthropic's own status for a server that has too much to do."""

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    410: "invalid_request_error",
    413: "request_too_large",
    500: "api_error",
    501: "api_error",
    503: "overloaded_error",
    OVERLOADED: "overloaded_error",
}
"""The type of the errors of each status."""


def told(error: errors.LlamaboxError) -> tuple[int, str]:
    """Status and message of an error. Clients know by the words of a prompt that is too long to make it shorter."""
    match error:
        case errors.ContextExceeded():
            n_tokens, n_most = error.details["n_prompt_tokens"], error.details["n_ctx"]
            return 400, f"prompt is too long: {n_tokens} tokens > {n_most} maximum"
        case errors.QueueFull():
            return OVERLOADED, error.message
    return status_of(type(error))[0], error.message


def body(status: int, message: str, request_id: str) -> dict[str, Any]:
    """The body of a reply, and the data of an error's event."""
    return {
        "type": "error",
        "error": {"type": KINDS.get(status, "api_error"), "message": message},
        "request_id": request_id,
    }


def event(error: errors.LlamaboxError, request_id: str) -> bytes:
    """The last event of a stream that fails after its headers went out."""
    status, message = told(error)
    return b"event: error\ndata: " + dump_line(body(status, message, request_id)) + b"\n\n"


WORDS = ErrorWords(told, body, b"request-id")


def words_at(path: str) -> ErrorWords | None:
    """The words of errors at a path, where they are Anthropic's."""
    return WORDS if path == PATH or path.startswith(PATH + "/") else None
