"""What stands before gradio: headers of every answer, and requests that do not get through."""

from __future__ import annotations

from typing import Any

from gradtoken.app.arrivals import Arrivals
from gradtoken.app.doors import is_open, is_upload
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

_SPARE = 100_000
"""Bytes of a request that is no upload, and of what stands around an upload's file."""

_TOO_MANY = "too many requests from this address; wait a minute."
_ONE_FILE = "one picture at a time; upload the others after it."
_TOO_LARGE = "the request is larger than anything the page sends; make the file smaller."
"""Sent as the page's client expects them, which shows them."""


class Guard:
    """ASGI middleware before gradio.

    It adds `HEADERS`, lets only `doors` through, refuses what comes too often or is too large, and
    keeps uploads apart.

    Args:
        app: what it stands before.
        rate: how often one address may ask.
        file_bytes: of an upload.
        arrivals: where uploads go.
    """

    def __init__(self, app: Any, rate: Rate, file_bytes: int, arrivals: Arrivals) -> None:
        self._app = app
        self._rate = rate
        self._file_bytes = file_bytes
        self._arrivals = arrivals

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.responses import JSONResponse, PlainTextResponse

        async def with_headers(event: Any) -> None:
            if event["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                known = [(k, v) for k, v in event["headers"] if k.decode().lower() not in HEADERS]
                event = {**event, "headers": [*known, *extra]}
            await send(event)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        most = _SPARE + (self._file_bytes if is_upload(path) else 0)
        if not is_open(method, path):
            await PlainTextResponse("Not found", 404)(scope, receive, with_headers)
        elif not self._allows(scope):
            refused = JSONResponse({"detail": _TOO_MANY}, 429, {"retry-after": "60"})
            await refused(scope, receive, with_headers)
        elif _declared(scope) > most:
            await JSONResponse({"detail": _TOO_LARGE}, 413)(scope, receive, with_headers)
        elif is_upload(path):
            await self._upload(scope, _counted(receive, most), with_headers)
        else:
            await self._app(scope, _counted(receive, most), with_headers)

    async def _upload(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the upload of one file on. What fails is gone before the answer says so."""
        from starlette.responses import JSONResponse

        arrived = several = False

        async def told(event: Any) -> None:
            nonlocal arrived, several
            if event["type"] == "http.response.start":
                several = event["status"] == 200 and self._arrivals.count() > 1
                arrived = event["status"] == 200 and not several
                if not arrived:
                    self._arrivals.drop()
            if not several:
                await send(event)

        self._arrivals.begin()
        unnamed = {**scope, "query_string": b""}  # gradio keeps the names of uploads for ever
        try:
            await self._app(unnamed, receive, told)
        finally:
            if not arrived:
                self._arrivals.drop()
        if several:
            await JSONResponse({"detail": _ONE_FILE}, 400)(scope, receive, send)

    def _allows(self, scope: Any) -> bool:
        address = scope["client"][0] if scope.get("client") else None
        return self._rate.allows(scope["method"], address)


def _declared(scope: Any) -> int:
    """The bytes that a request says it has; 0 if it does not say."""
    said = dict(scope["headers"]).get(b"content-length", b"")
    return int(said) if said.isdigit() else 0


def _counted(receive: Any, most: int) -> Any:
    """`receive`, until a request has more bytes than that."""
    from starlette.exceptions import HTTPException

    came = 0

    async def counted() -> Any:
        nonlocal came
        event = await receive()
        came += len(event.get("body", b""))
        if came > most:
            raise HTTPException(413, _TOO_LARGE)
        return event

    return counted
