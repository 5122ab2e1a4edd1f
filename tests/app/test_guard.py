"""Requests that are larger than any the page sends, and ways that it does not go."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio import processing_utils
from gradio.routes import file_upload_statuses

from tests.app.conftest import Served
from tests.app.test_clients import LOOK, call, given
from tests.waiting import until

ADDRESS = "https://example.org/a.png"
PARTS = ["redraw", "ask_prompts", "search", "compare", "ask"]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that gradio was about to fetch."""
    addresses: list[str] = []

    async def fetch(url: str, **_: Any) -> str:
        addresses.append(url)
        return url

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    return addresses


def test_server_fetches_no_addresses(served: Served) -> None:
    for way in ("file=", "file/", "proxy="):
        for method in ("GET", "HEAD"):
            response = httpx.request(method, f"{served.url}gradio_api/{way}{ADDRESS}")
            assert response.status_code == 404


@pytest.mark.parametrize("name", PARTS)
def test_endpoints_fetch_no_address(served: Served, fetched: list[str], name: str) -> None:
    with httpx.Client(base_url=served.url) as http:
        endpoint = http.get("gradio_api/info?all_endpoints=true").json()["named_endpoints"]
        usual = [each["parameter_default"] for each in endpoint[f"/{name}"]["parameters"]]
        for index in range(len(usual)):
            for value in (given(ADDRESS), [given(ADDRESS)], {"value": given(ADDRESS)}):
                data = [*usual[:index], value, *usual[index + 1 :]]
                assert "event: error" in call(http, name, *data)
    assert fetched == []


def test_open_file_fetches_no_address(served: Served, fetched: list[str]) -> None:
    with httpx.Client(base_url=served.url) as http:
        assert "not there any more" in call(http, "open_file", given(ADDRESS), "", *LOOK)
    assert fetched == []


@pytest.mark.parametrize("way", ["run", "api"])
def test_server_has_no_way_around_the_queue(served: Served, way: str) -> None:
    body = {"data": list(LOOK), "session_hash": "a"}
    assert httpx.post(f"{served.url}gradio_api/{way}/redraw", json=body).status_code == 404


def test_server_records_nothing(served: Served) -> None:
    sent = {"video": ("a.mp4", b"0" * 100)}
    address = f"{served.url}gradio_api/process_recording"
    assert httpx.post(address, files=sent).status_code == 404


def pieces(count: int) -> Iterator[bytes]:
    head = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    for part in range(count):
        yield head + b"0" * 1_000_000 + b"\r\n"
        if part % 10 == 0:
            time.sleep(0.01)
    yield b"--x--\r\n"


@pytest.mark.parametrize("declared", [True, False])
def test_upload_rejects_too_many_bytes(served: Served, declared: bool) -> None:
    content = b"".join(pieces(22)) if declared else pieces(22)
    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = httpx.post(f"{served.url}gradio_api/upload", content=content, headers=headers)
    assert response.status_code == 413
    assert "larger than anything the page sends" in response.json()["detail"]


@pytest.mark.parametrize("declared", [True, False])
def test_server_limits_other_requests_more(served: Served, declared: bool) -> None:
    body = b'{"data": ["' + b"a" * 100_000 + b'"]}'
    headers = {"content-type": "application/json"}
    for way in ("queue/join", "call/redraw"):
        content = body if declared else iter([body[:60_000], body[60_000:]])
        address = f"{served.url}gradio_api/{way}"
        response = httpx.post(address, content=content, headers=headers)
        assert response.status_code == 413


def left(served: Served) -> list[Path]:
    """The uploads that are there; some may go meanwhile."""
    return [Path(place, file) for place, _, files in os.walk(served.uploads) for file in files]


def test_upload_rejects_several_files(served: Served) -> None:
    files = [("files", (f"{number}.png", bytes([number]))) for number in range(2)]
    response = httpx.post(f"{served.url}gradio_api/upload", files=files)
    assert response.status_code == 400
    assert response.json()["detail"].startswith("one picture at a time")
    assert left(served) == []


def test_upload_keeps_no_upload_id(served: Served) -> None:
    before = len(file_upload_statuses._statuses), len(file_upload_statuses._signals)
    file = {"files": ("a.png", b"0")}
    response = httpx.post(f"{served.url}gradio_api/upload?upload_id=mine", files=file)
    (kept,) = response.json()
    Path(kept).unlink()
    after = len(file_upload_statuses._statuses), len(file_upload_statuses._signals)
    assert after == before


def test_upload_rejected_leaves_nothing(served: Served) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    address = f"{served.url}gradio_api/upload"
    assert httpx.post(address, content=pieces(22), headers=headers).status_code == 413
    assert left(served) == []


def test_upload_broken_off_leaves_nothing(served: Served) -> None:
    url = httpx.URL(served.url)
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nhost: here\r\ncontent-length: 3000000\r\n"
            b"content-type: multipart/form-data; boundary=x\r\n\r\n" + next(pieces(1))
        )
        until(lambda: len(left(served)) == 1)
    until(lambda: left(served) == [])
