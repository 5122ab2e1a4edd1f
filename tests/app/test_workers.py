"""The threads that compute are few, and go with the server."""

from __future__ import annotations

import threading
import time

from gradtoken.app.workers import AT_ONCE, Workers


def test_worker_threads_are_few_and_end() -> None:
    def alive() -> set[int]:
        return {
            thread.ident for thread in threading.enumerate() if thread.name.startswith("gradtoken-")
        }

    before = alive()
    with Workers() as workers:
        done = list(workers.model.map(lambda _: time.sleep(0.01), range(50)))
        assert len(done) == 50
        assert 1 <= len(alive() - before) <= AT_ONCE
        assert (
            workers.drawing.submit(threading.current_thread)
            .result()
            .name.startswith("gradtoken-drawing")
        )
    assert alive() == before
