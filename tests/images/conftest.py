"""Image files that the tests of this room share."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def files(tmp_path: Path, picture: Image.Image) -> list[Path]:
    """Six files of images of different sizes."""
    paths = []
    for index in range(6):
        path = tmp_path / f"{index}.png"
        picture.rotate(10 * index).resize((40 + index, 50)).save(path)
        paths.append(path)
    return paths
