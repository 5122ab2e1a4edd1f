"""Many people at once, and requests that no page would send."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from benchmarks.app_clients.pages import tokens_in
from gradio_client import Client, handle_file

import gradtoken
from gradtoken.app.wiring import FOR
from gradtoken.datasets import Scenes
from gradtoken.models import Model
from tests.app.conftest import Served
from tests.waiting import PATIENCE

LOOK = (0.85, 0, 0, FOR, 1, 6)
CLIENTS = 20


@pytest.mark.slow
def test_server_gives_twenty_clients_their_own_maps(
    served: Served, demo: Model, tmp_path: Path
) -> None:
    scenes = Scenes("test", objects=2, seed=11)
    paths = [tmp_path / f"{index}.png" for index in range(CLIENTS)]
    for index, path in enumerate(paths):
        scenes[index].image.save(path)
    clients = [Client(served.url, verbose=False) for _ in paths]

    def open_own(index: int) -> tuple[np.ndarray, list[int]]:
        shown = clients[index].predict(handle_file(paths[index]), "", *LOOK, api_name="/open_file")
        assert shown[-1] is None
        return tokens_in(shown[1]), shown[4]["value"]

    def look_again(index: int) -> np.ndarray:
        return tokens_in(clients[index].predict(*LOOK, api_name="/redraw")[1])

    with ThreadPoolExecutor(CLIENTS) as pool:
        opened = list(pool.map(open_own, range(CLIENTS)))
        again = list(pool.map(look_again, range(CLIENTS)))
    maps = [tokens.tobytes() for tokens, _ in opened]
    assert len(set(maps)) == CLIENTS
    for path, (tokens, ticked), later in zip(paths, opened, again, strict=True):
        expected = gradtoken.explain(demo, path, ticked).tokens[0].numpy()
        np.testing.assert_allclose(tokens, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(later, tokens)


def test_upload_of_same_image_by_twenty_clients(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "ours.png"
    Scenes("test", objects=2, seed=13)[0].image.save(path)
    clients = [Client(served.url, verbose=False, ssl_verify=False) for _ in range(CLIENTS)]

    def open_it(client: Client) -> str:
        return client.predict(handle_file(path), "", *LOOK, api_name="/open_file")[0]

    with ThreadPoolExecutor(CLIENTS) as pool:
        told = list(pool.map(open_it, clients))
    assert all("Maps of" in one for one in told), set(told)
    assert [left for left in served.uploads.rglob("*") if left.is_file()] == []


def given(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def call(http: httpx.Client, name: str, *data: Any) -> str:
    """What the server answers, to one who uploads nothing by the way as gradio's client does."""
    event = http.post(f"gradio_api/call/{name}", json={"data": data}).json()["event_id"]
    return http.get(f"gradio_api/call/{name}/{event}", timeout=PATIENCE).text


def test_upload_is_read_once(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "mine.png"
    Scenes("test", objects=2, seed=12)[0].image.save(path)
    with httpx.Client(base_url=served.url) as http:
        (kept,) = http.post(
            "gradio_api/upload", files={"files": ("mine.png", path.read_bytes())}
        ).json()

        def ask(_: int) -> str:
            return call(http, "open_file", given(kept), "", *LOOK)

        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(ask, range(8)))
    assert sum("Maps of" in one for one in told) >= 1
    assert all("Maps of" in one or "not there any more" in one for one in told)


def test_upload_is_deleted_once_read(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "mine.png"
    Scenes("test", objects=2, seed=12)[0].image.save(path)
    with httpx.Client(base_url=served.url) as http:
        with path.open("rb") as file:
            (kept,) = http.post("gradio_api/upload", files={"files": file}).json()
        assert Path(kept).is_file()
        assert http.get(f"gradio_api/file={kept}").status_code == 404
        assert "Maps of" in call(http, "open_file", given(kept), "", *LOOK)
        assert not Path(kept).exists()


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", __file__]
)
def test_server_serves_no_other_files(served: Served, path: str) -> None:
    for route in ("gradio_api/file=", "file=", "static/", "assets/"):
        response = httpx.get(f"{served.url}{route}{path}")
        assert response.status_code in (403, 404), route
        assert "root:" not in response.text
    with httpx.Client(base_url=served.url) as http:
        told = call(http, "open_file", given(path), "", *LOOK)
    assert "event: error" in told or "not there any more" in told
    assert "root:" not in told
    assert "Maps of" not in told


def test_upload_rejects_large_file(served: Served) -> None:
    response = httpx.post(
        f"{served.url}gradio_api/upload", files={"files": ("a.png", b"0" * 20_000_001)}
    )
    assert response.status_code == 413


def test_redraw_without_image_says_so(served: Served) -> None:
    client = Client(served.url, verbose=False)
    shown = client.predict(*LOOK, api_name="/redraw")
    assert "there is no picture yet" in shown[0]


def test_server_headers_forbid_other_origins(served: Served) -> None:
    response = httpx.get(served.url)
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    for outside in ("googleapis", "cdnjs", "huggingface.co/api", "api.gradio.app"):
        assert f'src="https://{outside}' not in response.text
