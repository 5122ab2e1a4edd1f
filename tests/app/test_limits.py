"""The limits hold in the served app, and the documentation says what they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client, handle_file
from gradio_client.utils import Status

from gradtoken.app.limits import Limits
from gradtoken.app.pictures import scene
from gradtoken.app.server import serving
from gradtoken.models import Model
from tests.app.test_clients import LOOK
from tests.waiting import PATIENCE, until


class Held:
    """Forwards of a module that wait until they are let go, and how many there were at once."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.let_go = threading.Event()
        self._lock = threading.Lock()

    def enter(self, *_: Any) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.let_go.wait(PATIENCE)

    def leave(self, *_: Any) -> None:
        with self._lock:
            self.inside -= 1


@contextmanager
def held(model: Model) -> Iterator[Held]:
    found = Held()
    handles = [
        model.module.register_forward_pre_hook(found.enter),
        model.module.register_forward_hook(found.leave),
    ]
    try:
        yield found
    finally:
        found.let_go.set()
        for handle in handles:
            handle.remove()


def test_server_queues_and_rejects_beyond_limits(demo: Model, tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    scene(0).image.save(path)
    with serving(demo, limits=Limits(waiting=3)) as url, held(demo) as forwards:
        people = [Client(url, verbose=False, ssl_verify=False) for _ in range(6)]

        def open_picture(person: Client) -> Any:
            return person.submit(handle_file(path), "", *LOOK, api_name="/open_file")

        first = [open_picture(person) for person in people[:2]]
        until(lambda: forwards.inside == 2)
        waiting = [open_picture(person) for person in people[2:5]]
        until(lambda: all(job.status().code == Status.IN_QUEUE for job in waiting))
        with pytest.raises(Exception, match="Queue is full"):
            open_picture(people[5]).result(PATIENCE)
        assert forwards.inside == 2
        forwards.let_go.set()
        for job in [*first, *waiting]:
            assert "gt-problem" not in job.result(PATIENCE)[0]
        assert forwards.most == 2


def test_limits_are_documented() -> None:
    page = Path(__file__).parents[2] / "docs" / "app.md"
    limits, text = Limits(), page.read_text("utf-8")
    table = text.partition("## Limits\n")[2].strip().partition("\n\n")[0]
    rows = {row.split("|")[1].strip(): row.split("|")[2].strip() for row in table.splitlines()}
    assert rows["a file"].startswith(f"{limits.file_bytes / 1e6:.0f} MB")
    assert rows["unread uploads"].startswith(f"{limits.upload_bytes / 1e9:.0f} GB in all")
    assert rows["a picture"].startswith(f"{limits.pixels / 1e6:.0f} megapixels")
    assert rows["maps at once"] == str(limits.targets)
    assert rows["prompts"] == f"{limits.prompts} of at most {limits.prompt_letters} letters"
    assert rows["people"].startswith(
        f"{limits.sessions} pictures of {limits.kept_pixels / 1e6:.0f} megapixels in all"
    )
    assert rows["waiting"].startswith(f"{limits.waiting} requests; two use the model")
    assert rows["rate"].startswith(f"{limits.requests_per_minute} requests")
    assert f"after {limits.idle_seconds / 60:.0f} minutes without use" in text
