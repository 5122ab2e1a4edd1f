"""The app served on loopback, with a count of the model's forwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import gradtoken
from gradtoken.app import layout, serving
from gradtoken.models import Model
from tests.waiting import be_patient_with_servers

be_patient_with_servers()


@dataclass
class Served:
    url: str
    model: Model
    uploads: Path
    forwards: list[int] = field(default_factory=list)


@pytest.fixture(scope="session")
def demo() -> Model:
    return gradtoken.load("demo", device="cpu")


@pytest.fixture(scope="session")
def served(demo: Model) -> Iterator[Served]:
    with serving(demo) as url:
        found = Served(url, demo, Path(os.environ["GRADIO_TEMP_DIR"]))
        handle = demo.module.register_forward_hook(lambda *_: found.forwards.append(1))
        yield found
        handle.remove()


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The pages that a test has built, for a look at what gradio keeps."""
    built: list[Any] = []
    build = layout.page

    def build_and_note(*args: Any) -> Any:
        built.append(build(*args))
        return built[-1]

    monkeypatch.setattr(layout, "page", build_and_note)
    return built


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are kept: $GRADTOKEN_SCREENSHOTS, or a folder of pytest's."""
    given = os.environ.get("GRADTOKEN_SCREENSHOTS")
    folder = Path(given) if given else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
