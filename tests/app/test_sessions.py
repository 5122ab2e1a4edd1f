"""Sessions stay apart, and go."""

from __future__ import annotations

import pytest
from PIL import Image

from gradtoken.app.limits import Limits
from gradtoken.app.pictures import Shown
from gradtoken.app.sessions import Session, Sessions
from gradtoken.errors import AppError
from gradtoken.images.box import Box
from gradtoken.images.source import Source


def session(colour: str) -> Session:
    picture = Image.new("RGB", (4, 4), colour)
    return Session(Source(picture), Shown(picture, Box(0, 0, 4, 4)), (1.0,))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_sessions_keep_one_per_key() -> None:
    sessions = Sessions(Limits())
    red, blue = session("red"), session("blue")
    sessions.put("a", red, sessions.now())
    sessions.put("b", blue, sessions.now())
    assert sessions.get("a") is red
    assert sessions.get("b") is blue
    sessions.drop("a")
    sessions.drop("a")
    with pytest.raises(AppError, match="there is no picture yet"):
        sessions.get("a")
    assert sessions.get("b") is blue


def test_sessions_limit_pixels() -> None:
    sessions = Sessions(Limits(kept_pixels=40))
    for key in "abcd":
        sessions.put(key, session("red"), sessions.now())
    assert len(sessions) == 2
    assert sessions.get("d")
    alone = Sessions(Limits(kept_pixels=3))
    alone.put("a", session("red"), alone.now())
    assert alone.get("a")


@pytest.mark.parametrize("key", [None, "", "a" * 65])
def test_sessions_reject_missing_key(key: str | None) -> None:
    sessions = Sessions(Limits())
    sessions.put("a", session("red"), sessions.now())
    with pytest.raises(AppError):
        sessions.get(key)
    with pytest.raises(AppError, match="names no session"):
        sessions.put(key, session("blue"), sessions.now())


def test_sessions_drop_unused() -> None:
    clock = Clock()
    sessions = Sessions(Limits(idle_seconds=100), clock)
    gone: list[str] = []
    sessions.dropped = gone.append
    for key in "ab":
        sessions.put(key, session("red"), sessions.now())
    clock.now = 60
    sessions.get("a")
    clock.now = 130
    sessions.sweep()
    assert gone == ["b"]
    assert len(sessions) == 1
    sessions.get("a")
    with pytest.raises(AppError, match="not used for 2 minutes"):
        sessions.get("b")


def test_sessions_drop_least_recently_used() -> None:
    sessions = Sessions(Limits(sessions=2))
    for key in "ab":
        sessions.put(key, session("red"), sessions.now())
    sessions.get("a")
    sessions.put("c", session("red"), sessions.now())
    assert len(sessions) == 2
    sessions.get("a")
    with pytest.raises(AppError):
        sessions.get("b")


def test_put_ignores_work_begun_before_drop() -> None:
    clock = Clock()
    sessions = Sessions(Limits(idle_seconds=100), clock)
    gone: list[str] = []
    sessions.dropped = gone.append
    sessions.put("a", session("red"), sessions.now())
    begun = sessions.now()
    clock.now = 1
    sessions.drop("a")
    sessions.drop(None)
    assert gone == ["a"]
    clock.now = 2
    with pytest.raises(AppError, match="the picture was deleted meanwhile"):
        sessions.put("a", session("blue"), begun)
    assert "a" not in sessions
    again = session("green")
    sessions.put("a", again, sessions.now())
    assert "a" in sessions
    assert sessions.get("a") is again


def test_sessions_remember_few_dropped_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradtoken.app.sessions._GONE", 3)
    clock = Clock()
    sessions = Sessions(Limits(idle_seconds=100), clock)
    for key in ["a", "b", "c", "d", "e", "f" * 65]:
        sessions.drop(key)
    assert list(sessions._gone) == ["c", "d", "e"]
    clock.now = 101
    sessions.sweep()
    assert not sessions._gone
