"""Too many requests of one address are refused, and only those."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gradtoken.app.rate import Rate
from gradtoken.app.server import Guard


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_bucket_empties_and_fills() -> None:
    clock = Clock()
    rate = Rate(60, clock)

    def asked(address: str, count: int = 1) -> int:
        return sum(rate.allows("POST", "/gradio_api/queue/join", address) for _ in range(count))

    assert asked("10.0.0.1", 100) == 60
    assert asked("10.0.0.2", 10) == 10
    clock.now = 5
    assert asked("10.0.0.1", 100) == 5
    clock.now = 1000
    assert asked("10.0.0.1", 100) == 60


@pytest.mark.parametrize(
    ("method", "path", "address"),
    [
        ("GET", "/gradio_api/queue/join", "10.0.0.1"),
        ("POST", "/gradio_api/heartbeat", "10.0.0.1"),
        ("POST", "/gradio_api/upload", "127.0.0.1"),
        ("POST", "/gradio_api/upload", "::1"),
    ],
)
def test_the_rest_is_not_counted(method: str, path: str, address: str) -> None:
    rate = Rate(1)
    assert all(rate.allows(method, path, address) for _ in range(10))


def test_addresses_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradtoken.app.rate._ADDRESSES", 3)
    rate = Rate(1)
    for number in range(10):
        assert rate.allows("POST", "/upload", f"10.0.0.{number}")
    assert len(rate._left) == 3
    assert [rate.allows("POST", "/upload", None) for _ in range(2)] == [True, False]


def test_the_server_says_so_with_429() -> None:
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

    guard = Guard(app, Rate(2))
    assert ask() == ask() == []
    start, body = ask()
    assert start["status"] == 429
    assert dict(start["headers"])[b"retry-after"] == b"60"
    assert b"too many requests" in body["body"]
    assert len(reached) == 2
