"""The script that draws the documentation's figures draws those that the pages show."""

from __future__ import annotations

import importlib.util
from typing import Any

import gradtoken
from tests.docs.pages import PAGES, ROOT


def script() -> Any:
    spec = importlib.util.spec_from_file_location("docs_figures", ROOT / "tools/docs_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_docs_figures_draw_those_of_the_pages() -> None:
    tool = script()
    text = "".join(page.read_text("utf-8") for page in PAGES)
    model, scene = gradtoken.load("demo"), tool.scene()
    for name, draw in tool.FIGURES.items():
        assert f"images/concepts-{name}.png" in text
        assert (ROOT / "docs/images" / f"concepts-{name}.png").exists()
        assert len(draw(model, scene).axes) >= 4
