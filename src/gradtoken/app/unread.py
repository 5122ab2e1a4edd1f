"""Answers that nobody came for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

_MOST = 100
"""Answers that wait for one session; a page has a few, and gradio's heartbeats count."""

_PATIENCE = 10
"""How many looks a reader may take over one answer."""


@dataclass(frozen=True)
class _Seen:
    """The answers that waited for an idle session: the first, since how many looks, and the last.

    Both are None where none waited.
    """

    first: Any
    last: Any
    looks: int


class Unread:
    """Forgets the answers of gradio's queue that were asked for and never read.

    gradio keeps an answer until its session reads it, however long that is, and remembers every
    session that ever asked. Here a session for which nothing is at work is forgotten when nothing
    came to its answers between two looks, because for a reader, however slow, gradio adds a
    heartbeat again and again; and when a reader does not get on at all.

    Args:
        queue: gradio's.
        seconds: between two looks; more than between two heartbeats.
    """

    def __init__(self, queue: Any, seconds: float) -> None:
        self._queue = queue
        self._seconds = seconds
        self._seen: dict[str, _Seen] = {}

    @asynccontextmanager
    async def forgetting(self, _: Any) -> AsyncIterator[None]:
        """Look again and again while the server runs, between its requests."""
        task = asyncio.create_task(self._look_again())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def look(self) -> None:
        """Forget the sessions that were idle at the last look and still are."""
        messages = self._queue.pending_messages_per_session
        asked = self._queue.pending_event_ids_session
        for answers in messages.values():
            while answers.qsize() > _MOST:
                answers.get_nowait()
        before, self._seen = self._seen, {}
        for key in filter(self._is_idle, messages.keys() | asked.keys()):
            now = self._see(key, before.get(key))
            if key in before and (now.last is before[key].last or now.looks >= _PATIENCE):
                messages.pop(key, None)
                asked.pop(key, None)
            else:
                self._seen[key] = now

    def _is_idle(self, key: str) -> bool:
        answers = self._queue.pending_messages_per_session.get(key)
        asked = self._queue.pending_event_ids_session.get(key, set())
        if answers is not None and answers.empty():
            return not asked
        return self._queue.event_ids_to_events.keys().isdisjoint(asked)

    def _see(self, key: str, before: _Seen | None) -> _Seen:
        answers = self._queue.pending_messages_per_session.get(key)
        if answers is None or answers.empty():
            return _Seen(None, None, 0)
        first, last = answers._queue[0], answers._queue[-1]
        looks = before.looks + 1 if before is not None and before.first is first else 0
        return _Seen(first, last, looks)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            self.look()
