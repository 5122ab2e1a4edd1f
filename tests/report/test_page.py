"""The report's page in a browser without a network, compared with the library's display."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

import gradtoken
from gradtoken import Explanation, Style
from gradtoken.datasets import Scenes
from gradtoken.explanation import style as display
from gradtoken.report import Report
from tests.waiting import PATIENCE

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"),
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
]


def without_evidence(tokens: Tensor) -> Tensor:
    """One hot corner in a negative map, in place of the second target's."""
    changed = tokens.clone()
    changed[0, 1] = -0.5 * tokens.abs().max()
    changed[0, 1, 0, 0] = 9 * tokens.abs().max()
    return changed


@pytest.fixture(scope="module")
def explanations(tmp_path_factory: pytest.TempPathFactory) -> list[Explanation]:
    folder = tmp_path_factory.mktemp("pictures")
    model = gradtoken.load("demo")
    made = []
    for index in range(8):
        picture = Scenes("test", objects=2, seed=3)[index].image
        if index == 0:
            picture = picture.resize((500, 300))
        picture.save(folder / f"scene {index}.png")
        made.append(gradtoken.explain(model, folder / f"scene {index}.png", top_k=2))
    made[7] = replace(made[7], tokens=without_evidence(made[7].tokens))
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        yield play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def page(browser: Any, explanations: list[Explanation], tmp_path: Path) -> Iterator[Any]:
    with Report(tmp_path / "report.html", title="<b>Title</b>") as report:
        report.extend(explanations)
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 900})
    context.set_default_timeout(1000 * PATIENCE)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text))
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("canvas[data-drawn]")
    yield page
    context.close()
    assert problems == []


def pixels(page: Any, canvas: int) -> np.ndarray:
    """What one of the drawn canvases shows, (height, width, 3)."""
    width, height, values = page.evaluate(
        """(at) => {
          const canvas = document.querySelectorAll(".panels canvas")[at];
          const { width, height } = canvas;
          const image = canvas.getContext("2d").getImageData(0, 0, width, height);
          return [width, height, [...image.data]];
        }""",
        canvas,
    )
    return np.array(values, dtype=float).reshape(height, width, 4)[..., :3]


_DRAWN = """([at, words]) =>
  (document.querySelectorAll(".panels canvas")[at].dataset.drawn || "").includes(words)"""


def drawn(page: Any, words: str) -> None:
    """Wait until the first map is drawn in some way."""
    page.wait_for_function(
        "(words) => (document.querySelector('.panels canvas').dataset.drawn || '').includes(words)",
        arg=words,
    )


def difference(shown: np.ndarray, expected: Image.Image) -> float:
    size = (shown.shape[1], shown.shape[0])
    return float(np.abs(shown - np.asarray(expected.resize(size), dtype=float)).mean())


def test_page_maps_equal_library(page: Any, explanations: list[Explanation]) -> None:
    """Cropped, wide pictures too; within what JPEG and resizing change."""
    for canvas in range(4):
        picture, k = divmod(canvas, 2)
        shown = pixels(page, canvas)
        assert difference(shown, explanations[picture].overlay(k)) < 3
        assert difference(shown, explanations[picture].overlay(1 - k)) > 4
    page.check("input[value=signed]")
    page.locator("#opacity").fill("0.5")
    page.locator("#threshold").fill("0.3")
    drawn(page, '"threshold":0.3')
    style = Style(signed=True, opacity=0.5, threshold=0.3)
    assert difference(pixels(page, 1), explanations[0].overlay(1, style=style)) < 3
    page.check("input[value=picture]")
    drawn(page, '"overlay":false')
    assert difference(pixels(page, 1), explanations[0].sources[0].image) < 3


def test_page_shared_scale(page: Any, explanations: list[Explanation]) -> None:
    page.check("#shared")
    drawn(page, '"shared":true')
    top = max(float(explanations[1].laid_out(k)[1].max()) for k in range(2))
    for k in range(2):
        expected = explanations[1].overlay(k, style=Style(scale=top))
        assert difference(pixels(page, 2 + k), expected) < 3


def test_page_map_without_evidence_is_faint(page: Any, explanations: list[Explanation]) -> None:
    page.locator(".entry").nth(7).scroll_into_view_if_needed()
    page.wait_for_function(_DRAWN, arg=[15, "overlay"])
    shown = pixels(page, 15)
    assert difference(shown, explanations[7].overlay(1)) < 3
    corner = np.asarray(explanations[7].overlay(1).resize(shown.shape[1::-1]), dtype=float)[:8, :8]
    assert np.abs(shown[:8, :8] - corner).mean() < 6
    picture, values, box = explanations[7].laid_out(1)
    loud = display.overlay(picture, values, box, Style()).resize(shown.shape[1::-1])
    assert np.abs(shown[:8, :8] - np.asarray(loud, dtype=float)[:8, :8]).mean() > 30
    page.check("#shared")
    page.wait_for_function(_DRAWN, arg=[15, '"shared":true'])
    assert difference(pixels(page, 15), explanations[7].overlay(1)) < 3
    top = float(explanations[7].laid_out(0)[1].max())
    assert difference(pixels(page, 14), explanations[7].overlay(0, style=Style(scale=top))) < 3


def test_page_sorting_and_search(page: Any, explanations: list[Explanation]) -> None:
    def names() -> list[str]:
        return page.locator(".entry:visible h2").all_text_contents()

    keys = {
        "name": lambda e: e.sources[0].name,
        "class": lambda e: e.labels[0][0],
        "probability": lambda e: float(e.probabilities[0, 0]),
        "score": lambda e: float(e.scores[0, 0]),
        "coupling": gradtoken.coupling,
    }
    for key, value in keys.items():
        page.select_option("#sort", key)
        expected = [e.sources[0].name for e in sorted(explanations, key=value)]
        assert names() == expected, key
    page.check("#reverse")
    assert names() == expected[::-1]
    label = explanations[2].labels[0][1]
    page.fill("#find", label.upper())
    having = [e.sources[0].name for e in explanations if any(label in name for name in e.labels[0])]
    assert sorted(names()) == having
    assert page.inner_text("#count") == f"{len(having)} of 8 images"


def test_page_keyboard_and_pointer_read_patches(page: Any, explanations: list[Explanation]) -> None:
    tokens = explanations[1].tokens[0, 0]
    canvas = page.locator(".panels canvas").nth(2)
    canvas.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
    readout = page.locator(".patch").nth(2)
    place, _, value = readout.inner_text().partition(": ")
    assert place == "row 3, column 2"
    assert float(value) == pytest.approx(float(tokens[2, 1]), rel=0.01, abs=1e-4)
    area = canvas.bounding_box()
    page.mouse.move(area["x"] + area["width"] - 2, area["y"] + 2)
    assert readout.inner_text().startswith("row 1, column 14: ")


def test_page_holds_only_near_images(page: Any) -> None:
    page.set_viewport_size({"width": 1100, "height": 300})
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function(
        "() => { const all = [...document.querySelectorAll('.panels canvas')];"
        "return all[0].width === 1 && all.at(-1).dataset.drawn }"
    )


def test_page_narrow_dark_and_printed(page: Any, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 340, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 340
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.emulate_media(media="print", color_scheme="light")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert not page.is_visible("form")
    undrawn = "document.querySelectorAll('.panels canvas:not([data-drawn])').length"
    assert page.evaluate(undrawn) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_text_contrast(page: Any, scheme: str) -> None:
    """A contrast of 4.5 to 1 at least (WCAG AA), in both themes."""
    page.emulate_media(color_scheme=scheme)
    colours = page.evaluate(
        """() => ["--back", "--card", "--ink", "--soft", "--mark"].map((name) => {
          const probe = document.createElement("i");
          probe.style.color = `var(${name})`;
          document.body.append(probe);
          const channels = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
          probe.remove();
          return channels;
        })"""
    )

    def light(colour: list[int]) -> float:
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    for behind in colours[:2]:
        for words in colours[2:]:
            low, high = sorted((light(behind), light(words)))
            assert (high + 0.05) / (low + 0.05) >= 4.5
