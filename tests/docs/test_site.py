"""The documentation builds without a warning, and its pages load nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return out


class Loads(HTMLParser):
    """What a page has its reader load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        given = dict(attributes)
        if tag in ("script", "img", "iframe", "source"):
            self.found.append(given.get("src") or "")
        if tag == "link" and given.get("rel") != "canonical":
            self.found.append(given.get("href") or "")


def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 12
    for page in pages:
        for address in Loads(page.read_text("utf-8")).found:
            assert not re.match(r"(https?:)?//", address), (page, address)


def test_site_equations_are_mathml(site: Path) -> None:
    text = (site / "methods" / "index.html").read_text("utf-8")
    assert text.count('display="block"') >= 8
    assert "arithmatex" not in text
    assert r"\frac" not in text
    for page in site.rglob("*.html"):
        assert "merror" not in page.read_text("utf-8")


def test_site_has_every_image_of_a_page(site: Path) -> None:
    shown = 0
    for page in site.rglob("index.html"):
        for address in Loads(page.read_text("utf-8")).found:
            if address.endswith((".png", ".svg")) and not address.startswith("data:"):
                assert (page.parent / address).exists(), (page, address)
                shown += 1
    assert shown >= 6
