"""The door of the service: who may enter, how much a request may carry, and how many wait."""

import hmac

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omiad.serving.batching import Places

GUARDED = ("/predict", "/metrics")
"""Paths that ask for the token; the others tell nothing about photographs."""


class Door:
    """Lets requests in before their body is read.

    Args:
        app: The application behind the door.
        places: Places for photographs; a request takes one when it enters.
        token: What a request must show; None for an open door.
        max_bytes: Most bytes of the body of a request.
    """

    def __init__(
        self, app: ASGIApp, *, places: Places, token: str | None, max_bytes: float
    ) -> None:
        self._app, self._places, self._token, self._max_bytes = app, places, token, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        if scope["path"] in GUARDED and not self._is_known(headers):
            refused = refusal(
                401, "The token is missing or wrong. Send `Authorization: Bearer TOKEN`."
            )
            return await refused(scope, receive, send)
        if scope["path"] != "/predict" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        if int(headers.get("content-length", 0)) > self._max_bytes:
            return await too_large(self._max_bytes)(scope, receive, send)
        if not self._places.take(1):
            await _emptied(receive)
            return await no_place()(scope, receive, send)
        try:
            await self._app(scope, self._limited(receive), send)
        finally:
            self._places.free(1)

    def _is_known(self, headers: Headers) -> bool:
        if self._token is None:
            return True
        kind, _, shown = headers.get("authorization", "").partition(" ")
        is_equal = hmac.compare_digest(shown.strip().encode(), self._token.encode())
        return kind.lower() == "bearer" and is_equal

    def _limited(self, receive: Receive) -> Receive:
        """Count the bytes of a body, whose header need not tell the truth."""
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes:
                raise HTTPException(413, _too_large(self._max_bytes))
            return message

        return counted


def refusal(status: int, sentence: str, **headers: str) -> JSONResponse:
    """Return an answer that is one sentence."""
    return JSONResponse({"error": sentence}, status, headers)


def no_place() -> JSONResponse:
    """Return the answer of a service that is full."""
    return refusal(429, "The service is full. Send the request again.", **{"Retry-After": "1"})


def too_large(max_bytes: float) -> JSONResponse:
    """Return the answer to a request with too many bytes."""
    return refusal(413, _too_large(max_bytes), Connection="close")


def _too_large(max_bytes: float) -> str:
    return (
        f"A request may have at most {max_bytes / 1e6:g} MB. Send fewer photographs at once, or "
        f"start the service with a larger --max_megabytes."
    )


async def _emptied(receive: Receive) -> None:
    """Read a body and forget it: a client that is still sending would not see an answer."""
    while (await receive()).get("more_body"):
        pass
