"""The answers of routes that the loaded model cannot serve."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from llamabox.errors import NotSupported, WrongModel
from llamabox.server.hosted.exchange import Exchange, Handler


def generating(handler: Handler, what: str = "completion") -> Handler:
    """The handler, for models that generate. Encoders and rerankers do not (docs/api.md, Kinds of models)."""

    async def checked(exchange: Exchange) -> Response:
        if not exchange.info.generates:
            raise _wrong_model(what)
        return await handler(exchange)

    return checked


def draws_only(what: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a language model's route on a server whose model draws (docs/api.md, Kinds of models)."""

    async def refusing(request: Request) -> Response:
        raise _wrong_model(what)

    return refusing


async def needs_images(request: Request) -> Response:
    """The endpoint of an image route on a server with a language model: the feature is off."""
    raise NotSupported("This server does not support images. Start it with `--images` and a model that draws")


def _wrong_model(what: str) -> WrongModel:
    return WrongModel(f"You are not allowed to do {what} from this model")
