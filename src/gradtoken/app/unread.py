"""Answers that nobody came for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any


class Unread:
    """Forgets the answers of gradio's queue that were asked for and never read.

    gradio keeps an answer until its session reads it, however long that is, and remembers every
    session that ever asked. Here a session is forgotten when two looks in a row find nothing under
    way for it: nothing at work, and nothing on the way to a slow reader, for whom gradio puts a
    heartbeat to the answers again and again.

    Args:
        queue: gradio's.
        seconds: between two looks; more than between two heartbeats.
    """

    def __init__(self, queue: Any, seconds: float) -> None:
        self._queue = queue
        self._seconds = seconds
        self._idle: dict[str, int] = {}

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
        idle = {}
        for key in filter(self._is_idle, messages.keys() | asked.keys()):
            count = messages[key].qsize() if key in messages else 0
            if self._idle.get(key) == count:
                messages.pop(key, None)
                asked.pop(key, None)
            else:
                idle[key] = count
        self._idle = idle

    def _is_idle(self, key: str) -> bool:
        answers = self._queue.pending_messages_per_session.get(key)
        asked = self._queue.pending_event_ids_session.get(key, set())
        if answers is not None and answers.empty():
            return not asked
        return self._queue.event_ids_to_events.keys().isdisjoint(asked)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            self.look()
