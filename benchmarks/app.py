"""How fast is the web app? Seconds to the first map, and milliseconds of a slider, in a browser.

    python benchmarks/app.py

Needs the extra `test` and the system's Chromium. The app runs with the bundled model on the CPU. A
first map is timed from the click on a scene, or from the choice of a 12-megapixel JPEG, to the
decoded map in a new page; a slider from its move to the last decoded map, one frame included.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import BrowserContext, Page
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.app import chromium

import gradtoken
from gradtoken.app import serving
from gradtoken.app.pictures import scene

PAGES, MOVES = 10, 15
SLIDERS = {"threshold": 0.05, "smoothing": 0.5, "last": 1}

_MAPS = """
  const maps = () => [...document.querySelectorAll("#maps .gt-heat")];
  const sources = () => maps().map((map) => map.src).join();
  const drawn = (before, done) => {
    const begun = performance.now();
    const look = () => {
      const there = maps().length && maps().every((map) => map.complete && map.naturalWidth);
      if (!there || sources() === before) return requestAnimationFrame(look);
      requestAnimationFrame(() => done(performance.now() - begun));
    };
    requestAnimationFrame(look);
  };
"""

_CLICK = f"""() => new Promise((done) => {{{_MAPS}
  drawn("", done);
  document.querySelector("#scenes button").click();
}})"""

_MOVE = f"""([id, value]) => new Promise((done) => {{{_MAPS}
  const range = document.querySelector(`#${{id}} input[type=range]`);
  drawn(sources(), done);
  range.value = value;
  range.dispatchEvent(new Event("input", {{ bubbles: true }}));
}})"""


def opened(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#scenes button")
    return page


def first_maps(context: BrowserContext, url: str) -> list[float]:
    """Milliseconds from the click on a scene to its maps, each in a new page."""
    times = []
    for _ in range(PAGES):
        page = opened(context, url)
        times.append(page.evaluate(_CLICK))
        page.close()
    return times


def uploads(context: BrowserContext, url: str, photo: Path) -> list[float]:
    """Milliseconds from the choice of a file to its maps, each in a new page."""
    times = []
    for _ in range(PAGES):
        page = opened(context, url)
        begun = page.evaluate("performance.now()")
        page.set_input_files("#upload input[type=file]", photo)
        page.wait_for_selector(".gt-heat")
        times.append(page.evaluate("performance.now()") - begun)
        page.close()
    return times


def slides(page: Page, maps: int) -> dict[str, list[float]]:
    """Milliseconds of each move of each slider, with so many maps on the page."""
    page.wait_for_selector("#scenes button")
    page.locator("#scenes button").nth(0).click()
    boxes = page.locator("#classes input[type=checkbox]")
    page.wait_for_selector("#classes input:checked")
    for index in range(boxes.count()):
        if boxes.nth(index).is_checked() != (index < maps):
            boxes.nth(index).click()
            page.wait_for_timeout(300)
    page.wait_for_function(f"document.querySelectorAll('.gt-heat').length === {maps}")
    return {
        name: [
            page.evaluate(_MOVE, [name, round(step * (move % 5 + 1), 2)]) for move in range(MOVES)
        ]
        for name, step in SLIDERS.items()
    }


def main() -> None:
    table = Table("what", "median", "slowest", "times")

    def add(what: str, times: list[float]) -> None:
        table.add_row(
            what, f"{statistics.median(times):.0f} ms", f"{max(times):.0f} ms", str(len(times))
        )

    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        scene(0).image.resize((4000, 3000), Image.Resampling.BICUBIC).save(photo, quality=92)
        options = {"viewport": {"width": 1280, "height": 900}}
        with (
            serving(gradtoken.load("demo", device="cpu")) as url,
            chromium.browsing(Path(folder) / "profile", **options) as context,
        ):
            add("first map of a scene", first_maps(context, url))
            add("first map of a 12-megapixel upload", uploads(context, url, photo))
            for maps in (2, 8):
                page = opened(context, url)
                for name, times in slides(page, maps).items():
                    add(f"{name} slider, {maps} maps", times)
                page.close()
    Console().print(table)


if __name__ == "__main__":
    main()
