"""What gradio keeps does not grow with what a person does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gradio_client import Client, handle_file

from gradtoken.app.leftovers import Leftovers
from gradtoken.app.pictures import scene_source
from gradtoken.app.server import serving
from gradtoken.app.wiring import NOBODY
from gradtoken.models import Model
from tests.app.test_clients import LOOK


def test_session_state_does_not_grow(demo: Model, pages: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    scene_source(0).image.save(path)
    with serving(demo) as url:
        client = Client(url, verbose=False)
        for _ in range(3):
            client.predict(handle_file(path), "", *LOOK, api_name="/open_file")
            client.predict([1], NOBODY[1], NOBODY[1], *LOOK, api_name="/ask")
            client.predict("a", [1], NOBODY[1], NOBODY[1], api_name="/search")
        (session,) = pages[0].state_holder.session_data.values()
        assert session.blocks_config.blocks.keys() == pages[0].blocks.keys()
        assert session.config_values.keys() == pages[0].blocks.keys()


def test_values_of_closed_sessions_are_cleared() -> None:
    def kept() -> SimpleNamespace:
        return SimpleNamespace(
            config_values={part: {"props": {"value": "x"}} for part in (1, 2, 3)}
        )

    def values(key: str) -> list[str | None]:
        return [each["props"]["value"] for each in sessions[key].config_values.values()]

    sessions = {"open": kept(), "gone": kept()}
    app: Any = SimpleNamespace(
        state_holder=SimpleNamespace(session_data=sessions), upload_file_set={"a.png"}
    )
    showing, passing = SimpleNamespace(_id=1), SimpleNamespace(_id=2)
    Leftovers(app, [showing], passing, {"open"}).sweep()
    assert values("open") == ["x", None, "x"]
    assert values("gone") == [None, None, "x"]
    assert app.upload_file_set == set()
