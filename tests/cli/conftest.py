"""An image to explain, and a terminal that breaks no line of an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradtoken.cli.console import console, problems
from gradtoken.datasets import Scenes


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (console, problems):
        monkeypatch.setattr(terminal, "width", 300)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    Scenes("test", objects=2)[0].image.save(path)
    return path
