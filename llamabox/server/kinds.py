"""Which routes a model can answer."""

from __future__ import annotations

from starlette.responses import Response

from llamabox.errors import WrongModel
from llamabox.server.endpoint import Exchange, Handler


def generating(handler: Handler, what: str = "completion") -> Handler:
    """The handler, for models that generate; an encoder, or a reranker, does not (contract 2.1.1)."""

    async def checked(exchange: Exchange) -> Response:
        if not exchange.info.generates:
            raise WrongModel(f"You are not allowed to do {what} from this model")
        return await handler(exchange)

    return checked
