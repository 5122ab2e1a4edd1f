"""How often one address may ask for work."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from gradtoken.app.addresses import is_loopback, network

_ADDRESSES = 10_000
_MINUTE = 60.0


class Rate:
    """A bucket for each address, which every POST takes from and time fills again.

    Uploads, logins and all that a control calls are POSTs. Programs on this machine are not
    counted, and IPv6 addresses of one network (/64) count as one. What a proxy on this machine
    passes on is counted by the address in `X-Forwarded-For`, and not at all where it sends none.

    Args:
        per_minute: requests of one address in the long run; as many at once. None for no limit.
        clock: seconds.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, method: str, address: str | None) -> bool:
        """Count one request; False if there were too many."""
        if self._most is None or method != "POST" or is_loopback(str(address)):
            return True
        visitor = network(str(address))
        with self._lock:
            now = self._clock()
            left, then = self._left.pop(visitor, (self._most, now))
            left = min(self._most, left + (now - then) * self._most / _MINUTE)
            self._left[visitor] = (left - 1 if left >= 1 else left, now)
            while len(self._left) > _ADDRESSES:
                self._left.popitem(last=False)
            return left >= 1
