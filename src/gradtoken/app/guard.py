"""What stands before gradio: headers of every answer, and requests that do not get through."""

from __future__ import annotations

from typing import Any

from gradtoken.app.arrivals import begin_arrival
from gradtoken.app.rate import Rate

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}
"""Sent with every response: the browser talks to this server only."""

_CLOSED = ("/deep_link", "/deep_link/")
"""How the paths end by which gradio writes a session to disk and gives it to others."""

_TOO_MANY = "too many requests from this address; wait a minute."
"""Sent as the page's client expects it, which shows it."""


class Guard:
    """ASGI middleware before gradio.

    It adds `HEADERS`, refuses what comes too often, keeps uploads apart, and closes what would give
    a session away.
    """

    def __init__(self, app: Any, rate: Rate) -> None:
        self._app = app
        self._rate = rate

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.responses import JSONResponse, PlainTextResponse

        async def with_headers(event: Any) -> None:
            if event["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                known = [(k, v) for k, v in event["headers"] if k.decode().lower() not in HEADERS]
                event = {**event, "headers": [*known, *extra]}
            await send(event)

        if scope["type"] == "http" and scope["path"].endswith(_CLOSED):
            await PlainTextResponse("Not found", 404)(scope, receive, with_headers)
            return
        if scope["type"] == "http" and not self._allows(scope):
            refused = JSONResponse({"detail": _TOO_MANY}, 429, {"retry-after": "60"})
            await refused(scope, receive, with_headers)
            return
        if scope["type"] == "http" and scope["path"].rstrip("/").endswith("/upload"):
            begin_arrival()
        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)

    def _allows(self, scope: Any) -> bool:
        address = scope["client"][0] if scope.get("client") else None
        return self._rate.allows(scope["method"], address)
