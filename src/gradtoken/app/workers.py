"""The threads that compute."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType

AT_ONCE = 2
"""How many requests use the model at a time, and how many draw."""


class Workers:
    """A few threads that use the model, and a few that draw, for as long as the `with` lasts.

    torch gives every thread that calls it helpers and memory of its own, so requests are not
    computed on the many threads of the server.
    """

    def __init__(self) -> None:
        self.model = ThreadPoolExecutor(AT_ONCE, "gradtoken-model")
        self.drawing = ThreadPoolExecutor(AT_ONCE, "gradtoken-drawing")
        self._stack = ExitStack()

    def __enter__(self) -> Workers:
        for pool in (self.model, self.drawing):
            self._stack.enter_context(pool)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
