"""Answers that nobody reads do not stay, and those on their way do."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from gradtoken.app import server
from gradtoken.app.server import serving
from gradtoken.app.unread import Unread
from gradtoken.models import Model
from tests.app.test_clients import LOOK
from tests.waiting import PATIENCE, until


def queue(messages: dict[str, int], asked: dict[str, set[str]], running: set[str]) -> Any:
    answers: dict[str, asyncio.Queue[object]] = {}
    for key, count in messages.items():
        answers[key] = asyncio.Queue()
        add(answers[key], count)
    return SimpleNamespace(
        pending_messages_per_session=answers,
        pending_event_ids_session=asked,
        event_ids_to_events=dict.fromkeys(running),
    )


def add(answers: asyncio.Queue[object], count: int) -> None:
    for _ in range(count):
        answers.put_nowait(object())


@pytest.mark.parametrize(
    ("messages", "asked", "running", "goes"),
    [
        ({"a": 2}, {"a": {"1"}}, set(), True),
        ({"a": 2}, {"a": {"1"}}, {"1"}, False),
        ({"a": 0}, {"a": {"1"}}, {"1"}, False),
        ({"a": 0}, {"a": {"1"}}, set(), False),  # on its way to a slow reader
        ({"a": 0}, {"a": set()}, set(), True),
        ({}, {"a": set()}, set(), True),
        ({"a": 1}, {}, {"1"}, True),
        ({}, {"a": {"1"}}, set(), True),  # its reader went away
        ({}, {"a": {"1"}}, {"1"}, False),
    ],
)
def test_look_forgets_sessions_without_reader(
    messages: dict[str, int], asked: dict[str, set[str]], running: set[str], goes: bool
) -> None:
    given = queue(messages, asked, running)
    unread = Unread(given, 1)
    unread.look()
    assert given.pending_messages_per_session.keys() == messages.keys()
    unread.look()
    left = given.pending_messages_per_session.keys() | given.pending_event_ids_session.keys()
    assert left == (set() if goes else {"a"})


def test_look_needs_two_looks_to_forget() -> None:
    given = queue({"a": 1}, {"a": {"1"}}, set())
    unread = Unread(given, 1)
    unread.look()
    given.event_ids_to_events["1"] = None
    unread.look()
    given.event_ids_to_events.clear()
    unread.look()
    assert given.pending_messages_per_session
    unread.look()
    assert not given.pending_messages_per_session


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_look_keeps_slow_reader(taken: int) -> None:
    given = queue({"a": 50}, {"a": {"1"}}, set())
    unread, answers = Unread(given, 1), given.pending_messages_per_session["a"]
    for _ in range(20):
        unread.look()
        add(answers, 2)
        for _ in range(taken):
            answers.get_nowait()
    assert given.pending_messages_per_session
    unread.look()
    unread.look()
    assert not given.pending_messages_per_session


def test_look_forgets_stalled_reader() -> None:
    given = queue({"a": 1}, {"a": {"1"}}, set())
    unread, looks = Unread(given, 1), 0
    while given.pending_messages_per_session:
        unread.look()
        if given.pending_messages_per_session:
            add(given.pending_messages_per_session["a"], 2)
        looks += 1
    assert looks == 11


def test_look_keeps_latest_messages_only() -> None:
    given = queue({"a": 150}, {"a": {"1"}}, {"1"})
    answers = given.pending_messages_per_session["a"]
    latest = answers._queue[-1]
    Unread(given, 1).look()
    assert answers.qsize() == 100
    assert answers._queue[-1] is latest


def test_server_forgets_unread_messages(
    demo: Model, pages: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_UNREAD_SECONDS", 0.5)
    look, looking, seen = Unread.look, [], set()

    def look_and_note(self: Unread) -> None:
        looking[:] = [self]
        seen.update(pages[0]._queue.pending_messages_per_session)
        look(self)

    monkeypatch.setattr(Unread, "look", look_and_note)
    with serving(demo) as url, httpx.Client(base_url=url) as http:
        made = pages[0]._queue
        for number in range(5):
            http.post(
                "gradio_api/call/redraw", json={"data": list(LOOK), "session_hash": str(number)}
            )
        until(lambda: seen == set("01234"))
        until(lambda: not (made.pending_messages_per_session or made.pending_event_ids_session))
        looking[0]._seconds = PATIENCE  # one look more, and a reader that is slow today has time
        event = http.post("gradio_api/call/redraw", json={"data": list(LOOK)}).json()["event_id"]
        assert "no picture yet" in http.get(f"gradio_api/call/redraw/{event}").text
