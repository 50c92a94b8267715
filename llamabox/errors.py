"""Every exception llamabox raises on purpose.

    LlamaboxError
    ├── OptionsError              the command line or the environment is wrong
    ├── ListenError               an address cannot be listened on
    ├── NativeError               something at or below the C boundary
    │   ├── NativeMissing         no built libraries where they were looked for
    │   ├── NativeMismatch        a library that does not fit the module compiled for it
    │   ├── ModelLoadError        the model file cannot be used
    │   ├── ContextError          libllama would not make a context
    │   ├── EncodeError           an image or sound could not be encoded
    │   └── DecodeError           llama_decode did not return 0
    │       ├── NoRoom            1: no room in the KV memory; state restored
    │       ├── DecodeAborted     2: the abort callback stopped it
    │       ├── BadBatch          -1: the batch breaks a rule (our bug)
    │       └── DecodeFatal       below -1: the backend failed
    ├── RequestError              the client's request cannot be served as it stands
    │   ├── InvalidRequest        a field is wrong; `field` names it
    │   ├── ContextExceeded       the prompt does not fit; carries both numbers
    │   ├── BodyTooLarge          the body is over the limit
    │   ├── AuthenticationFailed  no API key, or a wrong one
    │   ├── Forbidden             not allowed
    │   │   └── WrongModel        not from this kind of model
    │   ├── NotFound              no such path
    │   ├── RateTooHigh           more tokens per second than the server gives
    │   └── NotSupported          a feature that is off or that the model lacks
    └── ServiceError              the request was right, the service was not
        ├── Unavailable           loading, restarting, stopping, or full
        │   └── QueueFull         too many wait already; says when to come back
        └── ServerFault           the server is at fault
            ├── ChannelBroken     a peer process sent bytes that are no message
            └── ClientTooSlow     it was cut off: it did not read its reply

Errors cross the process boundary as plain values: `to_wire()` and `from_wire()`.
"""

from __future__ import annotations

from typing import Any

DOCTOR = "see: python -m llamabox doctor"
"""Said below errors that end a start; see `hint`."""


class LlamaboxError(Exception):
    """Base of all. `message` is a sentence for the person who has to act on it."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class OptionsError(LlamaboxError):
    """The command line or the environment is wrong."""


class ListenError(LlamaboxError):
    """An address cannot be listened on: taken, not this machine's, or not allowed."""


class NativeError(LlamaboxError):
    """Something at or below the C boundary."""


class NativeMissing(NativeError):
    """No built libraries where they were looked for."""


class NativeMismatch(NativeError):
    """A library that does not fit the module compiled for it."""


class ModelLoadError(NativeError):
    """The model file cannot be used."""


class ContextError(NativeError):
    """libllama would not make a context with these parameters."""


class EncodeError(NativeError):
    """An image or sound could not be encoded."""


class DecodeError(NativeError):
    """llama_decode did not return 0."""


class NoRoom(DecodeError):
    """No room in the KV memory; the state is as before the call."""


class DecodeAborted(DecodeError):
    """The abort callback stopped the call; processed ubatches remain in memory."""


class BadBatch(DecodeError):
    """The batch breaks a rule of libllama: a bug of ours."""


class DecodeFatal(DecodeError):
    """The backend failed; processed ubatches remain in memory."""


class RequestError(LlamaboxError):
    """The client's request cannot be served as it stands."""


class InvalidRequest(RequestError):
    """A field of the request is wrong.

    `field` names it where one field is to blame; it is carried in `details`.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        details: dict[str, Any] = {} if field is None else {"field": field}
        super().__init__(message, **details)
        self.field = field


class ContextExceeded(RequestError):
    """The prompt does not fit into a slot's context."""

    def __init__(self, message: str | None = None, *, n_prompt_tokens: int, n_ctx: int) -> None:
        super().__init__(
            message
            or f"request ({n_prompt_tokens} tokens) exceeds the available context size ({n_ctx} tokens), "
            "try increasing it",
            n_prompt_tokens=n_prompt_tokens,
            n_ctx=n_ctx,
        )


class BodyTooLarge(RequestError):
    """The request body is over the limit."""


class AuthenticationFailed(RequestError):
    """No API key, or a wrong one."""


class Forbidden(RequestError):
    """The caller may not do this."""


class WrongModel(Forbidden):
    """The loaded model is not of the kind that can do this."""


class NotFound(RequestError):
    """No such path."""


class RateTooHigh(RequestError):
    """The request asks for more tokens per second than the server gives to one."""


class NotSupported(RequestError):
    """A feature that its flag leaves off, or that the model lacks."""


class ServiceError(LlamaboxError):
    """The request was right, the service was not."""


class Unavailable(ServiceError):
    """Loading, restarting, stopping, or full: worth trying again."""


class QueueFull(Unavailable):
    """The queue is full. `retry_after` is in whole seconds, at least 1."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, retry_after=retry_after)
        self.retry_after = retry_after


class ServerFault(ServiceError):
    """The server, not the request, is at fault."""


class ChannelBroken(ServerFault):
    """A peer process sent bytes that are no message; nothing that follows can be understood."""


class ClientTooSlow(ServerFault):
    """A client was cut off because it did not read its reply. The message says which limit it met."""


def all_errors() -> dict[str, type[LlamaboxError]]:
    """Every class of the tree by its name."""
    found: dict[str, type[LlamaboxError]] = {}
    pending: list[type[LlamaboxError]] = [LlamaboxError]
    while pending:
        cls = pending.pop()
        found[cls.__name__] = cls
        pending.extend(cls.__subclasses__())
    return found


def hint(error: LlamaboxError) -> str:
    """A line below an error that ends a start for what is here, such as libraries or an address; else empty."""
    return DOCTOR if isinstance(error, NativeError | ListenError) else ""


def to_wire(error: LlamaboxError) -> dict[str, Any]:
    """`{"error": class name, "message": sentence, "details": {...}}`."""
    return {"error": type(error).__name__, "message": error.message, "details": error.details}


def from_wire(value: dict[str, Any]) -> LlamaboxError:
    """The inverse of `to_wire`; a name from a newer peer becomes a ServerFault."""
    cls = all_errors().get(value["error"], ServerFault)
    return cls(value["message"], **value.get("details", {}))
