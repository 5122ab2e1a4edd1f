"""What gradio keeps does not grow with what a person does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client, handle_file

from gradtoken.app import layout
from gradtoken.app.pictures import scene_source
from gradtoken.app.server import serving
from gradtoken.app.wiring import NOBODY
from gradtoken.models import Model
from tests.app.test_clients import LOOK


def test_a_session_does_not_grow(
    demo: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pages: list[Any] = []
    build = layout.page
    monkeypatch.setattr(layout, "page", lambda *a: pages.append(build(*a)) or pages[0])
    path = tmp_path / "a.png"
    scene_source(0).picture.save(path)
    with serving(demo) as url:
        client = Client(url, verbose=False)
        for _ in range(3):
            client.predict(handle_file(path), "", *LOOK, api_name="/open_file")
            client.predict([1], NOBODY[1], NOBODY[1], *LOOK, api_name="/ask")
            client.predict("a", [1], NOBODY[1], NOBODY[1], api_name="/search")
        (session,) = pages[0].state_holder.session_data.values()
        assert session.blocks_config.blocks.keys() == pages[0].blocks.keys()
        assert session.config_values.keys() == pages[0].blocks.keys()
