"""Only what the page needs gets through."""

from __future__ import annotations

import pytest

from gradtoken.app.doors import is_open, is_upload


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/config"),
        ("GET", "/assets/index-BEKvL.js"),
        ("GET", "/static/img/logo.svg"),
        ("GET", "/theme.css"),
        ("GET", "/gradio_api/queue/data"),
        ("GET", "/gradio_api/heartbeat/4f2c-1"),
        ("GET", "/gradio_api/call/open_file/ab12"),
        ("POST", "/gradio_api/call/open_file"),
        ("POST", "/gradio_api/queue/join"),
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/cancel"),
        ("POST", "/login"),
    ],
)
def test_is_open_accepts_routes_of_the_page(method: str, path: str) -> None:
    assert is_open(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/file=https://example.org/a.png"),
        ("GET", "/gradio_api/file=/tmp/a.png"),
        ("GET", "/gradio_api/file/https://example.org/a.png"),
        ("GET", "/gradio_api/proxy=https://example.org/a.png"),
        ("GET", "//gradio_api/file=https://example.org/a.png"),
        ("GET", "/gradio_api/deep_link"),
        ("GET", "/gradio_api/upload_progress"),
        ("GET", "/gradio_api/heartbeat/" + "a" * 65),
        ("GET", "/gradio_api/vibe-code"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/monitoring"),
        ("GET", "/config\n"),
        ("POST", "/gradio_api/run/redraw"),
        ("POST", "/gradio_api/api/redraw"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/stream/1"),
        ("POST", "/"),
        ("PUT", "/gradio_api/upload"),
        ("OPTIONS", "/"),
    ],
)
def test_is_open_rejects_other_routes(method: str, path: str) -> None:
    assert not is_open(method, path)


def test_is_upload_of_routes() -> None:
    assert is_upload("/gradio_api/upload")
    assert not is_upload("/gradio_api/queue/join")
