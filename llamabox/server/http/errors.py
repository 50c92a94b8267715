"""Errors as HTTP: one table from the exception tree to status and type, and the bodies made of it.

Body: `{"error": {"code", "message", "type", …}, "detail": message}` (docs/api.md, Errors).
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from llamabox import errors
from llamabox.server.http.json import JsonResponse, dumps

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

EXTRA: dict[type[errors.LlamaboxError], tuple[str, ...]] = {errors.ContextExceeded: ("n_prompt_tokens", "n_ctx")}
"""The details that each error shows as fields beside code, message and type."""

HTTP_TYPES = {404: "not_found_error", 405: "invalid_request_error", 413: "invalid_request_error"}
"""Types of the errors that Starlette itself raises."""


def status_of(kind: type[errors.LlamaboxError]) -> tuple[int, str]:
    """HTTP status and error type of a class of the tree."""
    return next(STATUS[cls] for cls in kind.__mro__ if cls in STATUS)


def error_object(error: errors.LlamaboxError) -> dict[str, Any]:
    """The value of `"error"`, in bodies and in streams."""
    status, kind = status_of(type(error))
    extra = {name: error.details[name] for name in EXTRA.get(type(error), ()) if name in error.details}
    return {"code": status, "message": error.message, "type": kind, **extra}


def error_response(error: errors.LlamaboxError) -> Response:
    """The whole reply. A 503 asks to come back, in a second unless the error knows better."""
    value = error_object(error)
    if isinstance(error, errors.RateTooHigh | errors.WrongModel):  # plain text, as llama-box has it
        return PlainTextResponse(error.message, value["code"])
    headers: dict[str, str] = {}
    if value["code"] == 503:
        headers["retry-after"] = str(error.details.get("retry_after", 1))
    if isinstance(error, errors.AuthenticationFailed):
        headers["www-authenticate"] = "Bearer"
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
    response = error_response(error)
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
    kind = HTTP_TYPES.get(error.status_code, "invalid_request_error")
    value = {"code": error.status_code, "message": message, "type": kind}
    return JsonResponse({"error": value, "detail": message}, error.status_code, dict(error.headers or {}))


async def on_fault(request: Request, error: Exception) -> Response:
    """A bug of ours outside a handler; Starlette re-raises it to the server's log after this reply."""
    return error_response(errors.ServerFault(f"{request.url.path} failed with an error that is not the request's"))
