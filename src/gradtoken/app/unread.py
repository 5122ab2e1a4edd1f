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
    way for it, neither at work nor on the way to a slow reader.

    Args:
        queue: gradio's.
        seconds: between two looks.
    """

    def __init__(self, queue: Any, seconds: float) -> None:
        self._queue = queue
        self._seconds = seconds
        self._idle: set[str] = set()

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
        idle = {key for key in messages.keys() | asked.keys() if self._is_idle(key)}
        for key in idle & self._idle:
            messages.pop(key, None)
            asked.pop(key, None)
        self._idle = idle

    def _is_idle(self, key: str) -> bool:
        answers = self._queue.pending_messages_per_session.get(key)
        asked = self._queue.pending_event_ids_session.get(key, set())
        if answers is None or answers.empty():
            return not asked
        return self._queue.event_ids_to_events.keys().isdisjoint(asked)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            self.look()
