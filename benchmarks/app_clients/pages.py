"""What the app sends to a page, and the numbers in it."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from typing import Any

import numpy as np


def tokens_in(html: str) -> np.ndarray:
    """The numbers behind the maps of a page, (K, h, w)."""
    grid = [int(side) for side in re.search(r'data-grid="(\d+) (\d+)"', html).groups()]
    data = base64.b64decode(re.search(r'data-tokens="([^"]+)"', html)[1])
    return np.frombuffer(data, "<f4").reshape(-1, *grid)


def tokens_of(download: dict[str, Any]) -> np.ndarray:
    """The numbers in a downloaded zip, (K, h, w)."""
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(download["data"]))) as archive:
        return np.load(io.BytesIO(archive.read("tokens.npz")))["tokens"]


def problem_in(html: str) -> str | None:
    """The sentence of a refusal."""
    return re.sub("<[^>]*>", "", html) if "gt-problem" in html else None
