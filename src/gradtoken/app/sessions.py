"""Each person's picture and maps, apart from everyone else's, and not for ever."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from gradtoken.app.asking import Asked
from gradtoken.app.limits import Limits
from gradtoken.app.pictures import Shown
from gradtoken.errors import AppError
from gradtoken.explanation.explanation import Explanation
from gradtoken.images.source import Source

_GONE = 10_000
"""How many of those dropped are remembered at most."""

_KEY = 64
"""Letters of a key; the page's have eleven."""


@dataclass(frozen=True)
class Session:
    """What one person has open.

    Args:
        source: the picture.
        shown: how it is shown.
        probabilities: of every class, or of every prompt.
        prompts: the texts asked about, of a model that compares pictures with text.
        wanted: the targets asked for, as `explain` takes them.
        asked: their explanation; None while nothing is asked.
        compared: explanations by other methods of the same targets, or why there is none.
    """

    source: Source
    shown: Shown
    probabilities: tuple[float, ...]
    prompts: tuple[str, ...] = ()
    wanted: tuple[Any, ...] = ()
    asked: Asked | None = None
    compared: dict[str, Explanation | str] = field(default_factory=dict)


class Sessions:
    """Sessions by key: as many as the limits say, each until it is unused for too long.

    Args:
        limits: `sessions`, `kept_pixels` and `idle_seconds` of them.
        clock: seconds.

    `dropped` is called with the key of every session that goes.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.dropped: Callable[[str], None] = lambda key: None
        self._limits = limits
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, Session]] = OrderedDict()
        self._gone: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return key in self._kept

    def __len__(self) -> int:
        with self._lock:
            self._sweep()
            return len(self._kept)

    def now(self) -> float:
        """The time, to be said to `put`."""
        return self._clock()

    def put(self, key: str | None, session: Session, begun: float) -> None:
        """Keep a session, in place of the key's earlier one.

        Args:
            key: of the session.
            session: what is kept.
            begun: when the work on it was.

        Raises:
            AppError: the key names no session, or was dropped since the work began.
        """
        if not _is_key(key):
            raise AppError("the request names no session, so nothing can be kept for it; reload.")
        with self._lock:
            if self._gone.get(key, -math.inf) >= begun:
                raise AppError("the picture was deleted meanwhile; choose a picture.")
            self._kept[key] = (self._clock(), session)
            self._kept.move_to_end(key)
            self._sweep()

    def get(self, key: str | None) -> Session:
        """The session of a key.

        Raises:
            AppError: if there is none (any more).
        """
        with self._lock:
            self._sweep()
            if not key or key not in self._kept:
                raise AppError(
                    "there is no picture yet, or it was deleted because it was not used for "
                    f"{self._limits.idle_seconds / 60:.0f} minutes; choose a picture."
                )
            _, session = self._kept[key]
            self._kept[key] = (self._clock(), session)
            self._kept.move_to_end(key)
            return session

    def drop(self, key: str | None) -> None:
        """Forget a key's session, and what is being made for it."""
        if not _is_key(key):
            return
        with self._lock:
            self._gone[key] = self._clock()
            self._gone.move_to_end(key)
            while len(self._gone) > _GONE:
                self._gone.popitem(last=False)
            if key in self._kept:
                self._remove(key)
            self._sweep()

    def sweep(self) -> None:
        """Forget what was unused for too long."""
        with self._lock:
            self._sweep()

    def _remove(self, key: str) -> None:
        del self._kept[key]
        self.dropped(key)

    def _sweep(self) -> None:
        oldest = self._clock() - self._limits.idle_seconds
        stale = [key for key, (used, _) in self._kept.items() if used < oldest]
        for key in stale:
            self._remove(key)
        while self._gone and next(iter(self._gone.values())) < oldest:
            self._gone.popitem(last=False)
        while len(self._kept) > self._limits.sessions or self._too_large():
            self._remove(next(iter(self._kept)))

    def _too_large(self) -> bool:
        sizes = [session.source.size for _, session in self._kept.values()]
        pixels = sum(width * height for width, height in sizes)
        return len(sizes) > 1 and pixels > self._limits.kept_pixels


def _is_key(key: str | None) -> TypeGuard[str]:
    return key is not None and 0 < len(key) <= _KEY
