"""The HTML report: whole or not at all, escaped, self-contained, bounded."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import gradtoken
from gradtoken import atomic
from gradtoken.cli.app import app
from gradtoken.errors import OutputError
from gradtoken.models import Model
from gradtoken.report import Report
from tests.conftest import tiny_vit

NASTY = "<script>alert(1)</script> & \"two\" 'quotes' ${x} {{ y }}"


class Page(HTMLParser):
    """Elements of a page with their attributes, and the text of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "input", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def nasty() -> Model:
    return gradtoken.wrap(tiny_vit(), labels=[NASTY, *(f"name {i}" for i in range(9))])


def write(path: Path, model: Model, pictures: list[Any], **options: Any) -> Page:
    with Report(path, **options) as report:
        for picture in pictures:
            report.add(gradtoken.explain(model, picture, [0, 1, 2]))
    return Page(path)


def test_report_contents(nasty: Model, picture: Image.Image, tmp_path: Path) -> None:
    file = tmp_path / f"{NASTY.replace('/', '|')}.png"
    picture.save(file)
    page = write(tmp_path / "r.html", nasty, [file, picture], title=NASTY)
    assert not page.open
    first, second = page.all("article")
    explanation = gradtoken.explain(nasty, file, [0, 1, 2])
    assert first["data-name"] == file.name
    assert first["data-class"] == NASTY
    assert float(first["data-probability"]) == pytest.approx(float(explanation.probabilities[0, 0]))
    assert float(first["data-score"]) == pytest.approx(float(explanation.scores[0, 0]))
    assert float(first["data-coupling"]) == pytest.approx(gradtoken.coupling(explanation))
    assert (first["data-order"], second["data-order"]) == ("1", "2")
    assert page.text["h1"] == page.text["title"] == [NASTY]
    manifests = [json.loads(text) for text in page.text["pre"]]
    assert manifests[0] == json.loads(json.dumps(explanation.to_dict()[0]))
    assert manifests[1]["input"]["kind"] == "picture"
    canvases = [item for item in page.all("canvas") if "data-tokens" in item]
    assert len(canvases) == 6
    for canvas, tokens in zip(canvases, explanation.tokens[0], strict=False):
        steps = np.frombuffer(base64.b64decode(canvas["data-tokens"]), "<i2")
        values = steps.reshape(8, 8) * float(canvas["data-step"])
        peak = float(tokens.abs().max())
        np.testing.assert_allclose(values, tokens, atol=peak / 60000)
    data = page.all("img")[0]["src"].removeprefix("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as small:
        assert small.size == picture.size


def test_report_is_self_contained(nasty: Model, picture: Image.Image, tmp_path: Path) -> None:
    page = write(tmp_path / "r.html", nasty, [picture], title=NASTY)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "base")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "data", "action"):
                assert str(value).startswith(("data:image/jpeg;base64,", "#"))
    assert len(page.all("script")) == len(page.all("style")) == 1
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        digest = hashlib.sha256("".join(page.text[tag]).encode()).digest()
        assert f"{tag}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert "http" not in "".join(page.text["script"] + page.text["style"])


def test_report_controls_have_labels(nasty: Model, picture: Image.Image, tmp_path: Path) -> None:
    page = write(tmp_path / "r.html", nasty, [picture])
    text = (tmp_path / "r.html").read_text()
    for control in [*page.all("input"), *page.all("select")]:
        name = control.get("id") or control["value"]
        assert re.search(rf"<label>[^/]*<(input|select)[^>]*\"{name}\"", text), name
    assert all(item.get("alt") for item in page.all("img"))
    assert all(item.get("aria-label") for item in page.all("canvas"))
    assert page.all("html") == [{"lang": "en"}]


def test_report_without_coupling_for_one_target(
    model: Model, picture: Image.Image, tmp_path: Path
) -> None:
    with Report(tmp_path / "r.html") as report:
        report.add(gradtoken.explain(model, picture, gradtoken.contrast(1, 2)))
    (entry,) = Page(tmp_path / "r.html").all("article")
    assert entry["data-coupling"] == ""
    assert entry["data-probability"] == ""


def test_report_writes_names_that_are_not_unicode(picture: Image.Image, tmp_path: Path) -> None:
    odd = gradtoken.wrap(tiny_vit(), labels=[f"odd \udcff {index}" for index in range(10)])
    page = write(tmp_path / "r.html", odd, [picture])
    assert page.all("article")[0]["data-class"] == "odd \ufffd 0"


def test_report_is_written_whole_or_not_at_all(
    model: Model, picture: Image.Image, tmp_path: Path
) -> None:
    path = tmp_path / "r.html"
    path.write_text("an earlier report")
    explanation = gradtoken.explain(model, picture, [0, 1])
    report = Report(path).__enter__()
    report.add(explanation)
    assert path.read_text() == "an earlier report"
    assert len(list(tmp_path.iterdir())) == 2
    report.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert path.read_text() == "an earlier report"
    assert list(tmp_path.iterdir()) == [path]
    with Report(path) as report:
        report.extend([explanation, explanation])
    assert path.read_text().endswith("</html>\n")
    assert list(tmp_path.iterdir()) == [path]


def test_report_leaves_nothing_on_full_disk(
    model: Model, picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    report = Report(tmp_path / "r.html").__enter__()
    report.add(gradtoken.explain(model, picture, 1))
    with pytest.raises(OutputError, match="No space left on device; nothing was left"):
        report.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_report_rejects_unwritable_paths(model: Model, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder; name a file"):
        Report(tmp_path).__enter__()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        Report(tmp_path / "file" / "r.html").__enter__()
    with pytest.raises(OutputError, match="inside its with block"):
        Report(tmp_path / "r.html").add(
            gradtoken.explain(model, Image.new("RGB", (64, 64), "red"), 1)
        )


def test_report_size_and_memory_stay_small(model: Model, tmp_path: Path) -> None:
    """An image costs its small copy and its tokens, on disk and, while writing, in memory."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    large = Image.fromarray(noise).resize((1500, 1000))
    explanation = gradtoken.explain(model, large, [0, 1, 2])
    path = tmp_path / "r.html"
    with Report(path) as report:
        report.add(explanation)
        tracemalloc.start()
        for _ in range(15):
            report.add(explanation)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        (part,) = tmp_path.glob(f"{atomic.PREFIX}*")
        several = part.stat().st_size
    assert peak < 8e6
    assert several / 16 < 80_000


def test_report_from_command_line(tmp_path: Path) -> None:
    from gradtoken.datasets import Scenes

    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(3):
        Scenes("test", objects=2)[index].image.save(folder / f"{index}.png")
    (folder / "bad.png").write_text("no picture")
    report = tmp_path / "new" / "report.html"
    result = CliRunner().invoke(
        app,
        [
            *("explain", str(folder), "--top-k", "2", "--out", str(tmp_path / "out")),
            *("--report", str(report)),
        ],
    )
    assert result.exit_code == 1
    assert "report.html" in result.stdout
    page = Page(report)
    assert [entry["data-name"] for entry in page.all("article")] == ["0.png", "1.png", "2.png"]
    failures = "".join(page.text["li"])
    assert "bad.png is not an image" in failures
    assert page.text["h1"] == ["gradtoken on demo"]
    assert len(list((tmp_path / "out").iterdir())) == 3
