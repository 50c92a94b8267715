"""Errors as HTTP: one table from the exception tree to status and type, and the bodies made of it.

Body: `{"error": {"code", "message", "type", …}, "detail": message}` (docs/api.md, Errors), but for the paths of an API
that has words of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

from llamabox import errors
from llamabox.server.http.json import JsonResponse, dumps
from llamabox.server.http.record import record_of

logger = logging.getLogger(__name__)

STATUS: dict[type[errors.LlamaboxError], tuple[int, str]] = {
    errors.LlamaboxError: (500, "server_error"),
    errors.NativeError: (500, "server_error"),
    errors.OptionsError: (500, "server_error"),
    errors.RequestError: (400, "invalid_request_error"),
    errors.InvalidRequest: (400, "invalid_request_error"),
    errors.ContextExceeded: (400, "exceed_context_size_error"),
    errors.BodyTooLarge: (413, "invalid_request_error"),
    errors.AuthenticationFailed: (401, "authentication_error"),
    errors.Forbidden: (403, "permission_error"),
    errors.NotFound: (404, "not_found_error"),
    errors.RateTooHigh: (410, "invalid_request_error"),
    errors.NotSupported: (501, "not_supported_error"),
    errors.ServiceError: (500, "server_error"),
    errors.Unavailable: (503, "unavailable_error"),
    errors.ServerFault: (500, "server_error"),
}
"""A class without a row has that of its nearest ancestor."""

EXTRA: dict[type[errors.LlamaboxError], dict[str, str]] = {
    errors.ContextExceeded: {"n_prompt_tokens": "n_prompt_tokens", "n_ctx": "n_ctx"},
    errors.InvalidRequest: {"field": "param"},
}
"""The details that each error shows beside code, message and type, and their names there, which are OpenAI's."""

HTTP_TYPES = {404: "not_found_error", 405: "invalid_request_error", 413: "invalid_request_error"}
"""Types of the errors that Starlette itself raises."""


WORDS = "llamabox.error_words"
"""Key of a scope whose path has ErrorWords."""


@dataclass(frozen=True, slots=True)
class ErrorWords:
    """How an API tells errors, where it does not do so in ours."""

    told: Callable[[errors.LlamaboxError], tuple[int, str]]  # status and message of an error
    body: Callable[[int, str, str], dict[str, Any]]  # of a status, a message and the request's id
    id_header: bytes  # the name under which replies also have the request's id


def status_of(kind: type[errors.LlamaboxError]) -> tuple[int, str]:
    """HTTP status and error type of a class of the tree."""
    return next(STATUS[cls] for cls in kind.__mro__ if cls in STATUS)


def error_object(error: errors.LlamaboxError) -> dict[str, Any]:
    """The value of `"error"`, in bodies and in streams."""
    status, kind = status_of(type(error))
    shown = EXTRA.get(type(error), {})
    extra = {name: error.details[detail] for detail, name in shown.items() if detail in error.details}
    return {"code": status, "message": error.message, "type": kind, **extra}


def error_response(error: errors.LlamaboxError, scope: Scope) -> Response:
    """The whole reply, in the words of the scope's API. Unavailable asks to come back, in a second unless the error
    knows better.
    """
    headers: dict[str, str] = {}
    if isinstance(error, errors.Unavailable):
        headers["retry-after"] = str(error.details.get("retry_after", 1))
    if isinstance(error, errors.AuthenticationFailed):
        headers["www-authenticate"] = "Bearer"
    words: ErrorWords | None = scope.get(WORDS)
    if words is not None:
        status, message = words.told(error)
        return JsonResponse(words.body(status, message, record_of(scope).request_id), status, headers)
    value = error_object(error)
    if isinstance(error, errors.RateTooHigh | errors.WrongModel):  # plain text, as llama-box has it
        return PlainTextResponse(error.message, value["code"])
    return JsonResponse({"error": value, "detail": error.message}, value["code"], headers)


def error_event(error: errors.LlamaboxError) -> bytes:
    """The last SSE event of a stream that fails after its headers went out."""
    return b"data: " + dumps({"error": error_object(error)}) + b"\n\n"


def image_error_event(error: errors.LlamaboxError) -> bytes:
    """The error's event on /v1/images/*, after the line that llama-box's tools read."""
    return b"error: " + dumps(error_object(error)) + b"\n" + error_event(error)


async def on_llamabox_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for every class of the tree."""
    assert isinstance(error, errors.LlamaboxError)
    response = error_response(error, request.scope)
    if response.status_code >= 500 and not isinstance(error, errors.NotSupported | errors.Unavailable):
        logger.error("%s %s: %s", request.method, request.url.path, error.message)
    return response


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, chiefly 404 and 405, in our words."""
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code == 404:
        message = "Not Found"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.method} is not allowed on {request.url.path}; it takes {allowed}"
    words: ErrorWords | None = request.scope.get(WORDS)
    if words is not None:
        value = words.body(error.status_code, message, record_of(request.scope).request_id)
        return JsonResponse(value, error.status_code, dict(error.headers or {}))
    kind = HTTP_TYPES.get(error.status_code, "invalid_request_error")
    value = {"code": error.status_code, "message": message, "type": kind}
    return JsonResponse({"error": value, "detail": message}, error.status_code, dict(error.headers or {}))


async def on_fault(request: Request, error: Exception) -> Response:
    """A bug of ours outside a handler; Starlette re-raises it to the server's log after this reply."""
    fault = errors.ServerFault(f"{request.url.path} failed with an error that is not the request's")
    return error_response(fault, request.scope)
