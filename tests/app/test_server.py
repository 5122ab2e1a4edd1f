"""Starting and stopping the server."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file

from gradtoken.app import callbacks, server
from gradtoken.app.limits import Limits
from gradtoken.app.pictures import scene_source
from gradtoken.app.server import read_login, serving
from gradtoken.app.sessions import Sessions
from gradtoken.errors import AppError
from gradtoken.models import Model
from tests.app.test_clients import LOOK
from tests.waiting import until


def test_read_login_rejects_other_forms() -> None:
    assert read_login(None) is None
    assert read_login("ann:a:b") == ("ann", "a:b")
    for wrong in ("", "ann", "ann:", ":secret"):
        with pytest.raises(AppError, match="is not USER:PASSWORD"):
            read_login(wrong)


def test_serving_requires_login_and_cleans_up(demo: Model) -> None:
    with serving(demo, auth="ann:secret") as url:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.stat().st_mode & 0o077 == 0
        with httpx.Client(base_url=url) as http:
            assert http.get("config").status_code == 401
            assert http.post("gradio_api/upload").status_code == 401
            wrong = http.post("login", data={"username": "ann", "password": "guess"})
            assert wrong.status_code == 400
            right = http.post("login", data={"username": "ann", "password": "secret"})
            assert right.status_code == 200
            assert http.get("config").status_code == 200
    assert not folder.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_serving_rejects_port_in_use(demo: Model) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(
                AppError,
                match=f"cannot listen on 127.0.0.1:{port}: .*in use; choose another --port",
            ),
            serving(demo, port=port),
        ):
            pass


def test_serving_without_gradio_names_the_extra(
    demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with (
        pytest.raises(AppError, match=r'needs gradio .* pip install "gradtoken\[app\]"'),
        serving(demo),
    ):
        pass


def test_serving_restores_environment(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "maybe")
    before = dict(os.environ)
    with serving(demo):
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert dict(os.environ) == before


def test_serving_clears_state_of_idle_sessions(
    demo: Model, pages: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = 0.0
    monkeypatch.setattr(callbacks, "Sessions", lambda limits: Sessions(limits, lambda: clock))
    monkeypatch.setattr(server, "_SWEEP_SECONDS", 0.1)
    path = tmp_path / "a.png"
    scene_source(0).image.save(path)

    def kept(client: Client) -> str:
        session = pages[0].state_holder.session_data[client.session_hash]
        return str([config["props"].get("value") for config in session.config_values.values()])

    limits = Limits()
    with serving(demo, limits=limits) as url:
        client = Client(url, verbose=False)
        client.predict(handle_file(path), "", *LOOK, api_name="/open_file")
        packed = client.predict(*LOOK, api_name="/pack")[1]["data"]
        until(lambda: packed not in kept(client) and not pages[0].upload_file_set)
        assert "--gt-picture" in kept(client)
        queue = pages[0]._queue
        assert len(queue.event_analytics) <= 1
        assert queue.cached_event_analytics_summary == {"functions": {}}
        for way in ("/forget", None):
            client = Client(url, verbose=False)
            client.predict(handle_file(path), "", *LOOK, api_name="/open_file")
            assert "base64" in kept(client)
            if way:
                client.predict(api_name=way)
            else:
                clock += limits.idle_seconds + 1
                until(lambda: "--gt-picture" not in kept(client))  # noqa: B023
            assert "--gt-picture" not in kept(client)
            assert "gt-heat" not in kept(client)
        link = f"{url}gradio_api/deep_link?session_hash={client.session_hash}"
        assert httpx.get(link).status_code == 404
