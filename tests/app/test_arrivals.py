"""Each upload has a folder of its own, wherever gradio puts it."""

from __future__ import annotations

import contextvars
from pathlib import Path

from gradtoken.app.arrivals import Arrivals, begin_arrival


def test_every_request_has_a_folder_and_the_rest_the_whole(tmp_path: Path) -> None:
    arrivals = Arrivals(str(tmp_path))

    def upload() -> Path:
        begin_arrival()
        assert Path(arrivals) == Path(arrivals)
        return Path(arrivals)

    first, second = (contextvars.copy_context().run(upload) for _ in range(2))
    assert first != second
    assert first.parent == second.parent == Path(arrivals) == tmp_path
