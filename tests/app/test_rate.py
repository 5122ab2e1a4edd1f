"""Too many requests of one address are refused, and only those."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from gradio_client import Client

from gradtoken.app import server
from gradtoken.app.arrivals import Arrivals
from gradtoken.app.guard import Guard
from gradtoken.app.limits import Limits
from gradtoken.app.rate import Rate
from gradtoken.app.server import serving
from gradtoken.models import Model
from tests.app.test_clients import LOOK


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rate_bucket_empties_and_fills() -> None:
    clock = Clock()
    rate = Rate(60, clock)

    def asked(address: str, count: int = 1) -> int:
        return sum(rate.allows("POST", address) for _ in range(count))

    assert asked("10.0.0.1", 100) == 60
    assert asked("10.0.0.2", 10) == 10
    clock.now = 5
    assert asked("10.0.0.1", 100) == 5
    clock.now = 1000
    assert asked("10.0.0.1", 100) == 60


def test_rate_counts_by_network() -> None:
    rate = Rate(2)
    asked = [rate.allows("POST", f"2001:db8:1:2::{number}") for number in range(1, 5)]
    assert asked == [True, True, False, False]
    assert rate.allows("POST", "2001:db8:1:3::1")


@pytest.mark.parametrize(
    ("method", "address"), [("GET", "10.0.0.1"), ("POST", "127.0.0.1"), ("POST", "::1")]
)
def test_rate_ignores_other_requests(method: str, address: str) -> None:
    rate = Rate(1)
    assert all(rate.allows(method, address) for _ in range(10))


def test_rate_without_limit_allows_all() -> None:
    rate = Rate(None)
    assert all(rate.allows("POST", "10.0.0.1") for _ in range(10_000))


def test_rate_forgets_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradtoken.app.rate._ADDRESSES", 3)
    rate = Rate(1)
    for number in range(10):
        assert rate.allows("POST", f"10.0.0.{number}")
    assert len(rate._left) == 3
    assert [rate.allows("POST", None) for _ in range(2)] == [True, False]


def test_rate_middleware_answers_429() -> None:
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])

    def ask() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def send(event: dict[str, Any]) -> None:
            sent.append(event)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/gradio_api/upload",
            "client": ("10.0.0.1", 5),
            "headers": [],
        }
        asyncio.run(guard(scope, None, send))
        return sent

    guard = Guard(app, Rate(2), 1, Arrivals(""))
    assert ask() == ask() == []
    start, body = ask()
    assert start["status"] == 429
    assert dict(start["headers"])[b"retry-after"] == b"60"
    assert json.loads(body["body"])["detail"].startswith("too many requests from this address")
    assert len(reached) == 2


def test_rate_separates_visitors_behind_proxy(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "Rate", lambda per_minute: Rate(per_minute, Clock()))
    with serving(demo, limits=Limits(requests_per_minute=4)) as url:
        call = {"data": list(LOOK)}

        def ask(visitor: str | None, path: str = "gradio_api/call/redraw") -> int:
            headers = {} if visitor is None else {"X-Forwarded-For": visitor}
            return httpx.post(url + path, json=call, headers=headers).status_code

        assert [ask("10.0.0.1") for _ in range(6)] == [200] * 4 + [429] * 2
        assert ask("10.0.0.1", "login") == 429
        assert ask("10.0.0.2") == 200
        assert [ask(None) for _ in range(10)] == [200] * 10
        assert httpx.get(url, headers={"X-Forwarded-For": "10.0.0.1"}).status_code == 200
        client = Client(url, verbose=False, headers={"X-Forwarded-For": "10.0.0.1"})
        with pytest.raises(httpx.HTTPStatusError, match="429"):
            client.predict(*LOOK, api_name="/redraw")
