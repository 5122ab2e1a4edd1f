"""Former module paths of metrics still work, with a warning."""

from __future__ import annotations

import importlib
import sys

import pytest

from gradtoken.images.fills import filled


def test_fills_module_is_deprecated() -> None:
    sys.modules.pop("gradtoken.metrics.fills", None)
    with pytest.warns(DeprecationWarning, match="import gradtoken.images.fills"):
        module = importlib.import_module("gradtoken.metrics.fills")
    assert module.filled is filled
