"""Each upload has a folder of its own, wherever gradio puts it."""

from __future__ import annotations

import contextvars
from pathlib import Path

from gradtoken.app.arrivals import Arrivals


def test_arrivals_give_each_request_a_folder(tmp_path: Path) -> None:
    arrivals = Arrivals(str(tmp_path))

    def upload() -> Path:
        arrivals.begin()
        assert Path(arrivals) == Path(arrivals)
        return Path(arrivals)

    first, second = (contextvars.copy_context().run(upload) for _ in range(2))
    assert first != second
    assert first.parent == second.parent == Path(arrivals) == tmp_path


def test_arrivals_drop_only_own_folder(tmp_path: Path) -> None:
    arrivals = Arrivals(str(tmp_path))

    def upload(drops: bool) -> Path:
        arrivals.begin()
        file = Path(arrivals) / "a.png"
        file.parent.mkdir()
        assert arrivals.count() == 0
        file.touch()
        assert arrivals.count() == 1
        if drops:
            arrivals.drop()
        return file

    kept, dropped = (contextvars.copy_context().run(upload, drops) for drops in (False, True))
    arrivals.drop()
    assert kept.exists()
    assert list(tmp_path.iterdir()) == [kept.parent]
    assert kept.parent != dropped.parent
