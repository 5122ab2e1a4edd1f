"""The web app as a person meets it, in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, Request, expect

from gradtoken.app import serving
from gradtoken.app.callbacks import Callbacks
from gradtoken.app.limits import Limits
from gradtoken.datasets import Scenes
from gradtoken.errors import AppError
from gradtoken.models import Model
from tests.app import chromium
from tests.app.conftest import Served
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]


@dataclass
class Opened:
    """A page of the app, and what it requested."""

    page: Page
    served: Served
    shots: Path
    requests: list[str]
    waiting: set[Request]
    """Requests of the page for something to be done that are not answered yet."""

    def shot(self, name: str) -> None:
        self.page.wait_for_timeout(300)
        self.page.screenshot(path=self.shots / f"{name}.png", full_page=True)

    def upload(self, path: Path) -> None:
        self.page.set_input_files("#upload input[type=file]", path)

    def says(self, words: str) -> None:
        expect(self.page.locator("#status")).to_contain_text(re.compile(words, re.S))

    def heats(self) -> list[bytes]:
        """The colours of each map, as PNG."""
        found = self.page.locator("#maps img.gt-heat")
        uris = [found.nth(k).get_attribute("src") or "" for k in range(found.count())]
        return [base64.b64decode(uri.partition("base64,")[2]) for uri in uris]

    def tick(self, name: str) -> None:
        self.page.locator("#classes label", has_text=re.compile(rf"^\s*{name} ·")).click()

    def slide(self, name: str, value: float) -> None:
        self.page.locator(f"#{name} input[type=range]").fill(str(value))

    def until(self, holds: Callable[[], bool], otherwise: str) -> None:
        """As `tests.waiting.until`, while the page goes on."""
        begun = time.monotonic()
        while not holds():
            assert time.monotonic() < begun + PATIENCE, otherwise
            self.page.wait_for_timeout(50)

    def wait_for_other(self, before: list[bytes]) -> list[bytes]:
        """The maps once they are not what they were."""
        self.until(lambda: self.heats() not in ([], before), "the maps did not change")
        return self.settled()

    def settled(self) -> list[bytes]:
        """The maps once nothing is under way and they have been the same ten times."""
        now, still = self.heats(), 0

        def stands() -> bool:
            nonlocal now, still
            before, now = now, self.heats()
            still = still + 1 if now == before and not self.waiting else 0
            return still == 10

        self.until(stands, "the maps do not stop changing")
        return now


def levels_apart(one: bytes, other: bytes) -> int:
    """The largest difference of two maps' colours, in levels of 256; rounding makes one or two."""
    maps = [np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"), int) for png in (one, other)]
    return int(np.abs(maps[0][..., 3] - maps[1][..., 3]).max())


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    profile = tmp_path_factory.mktemp("profile")
    with chromium.browsing(profile, viewport={"width": 1280, "height": 900}) as context:
        yield context


@pytest.fixture
def app(browser: BrowserContext, served: Served, shots: Path) -> Iterator[Opened]:
    page = browser.new_page()
    requests: list[str] = []
    problems: list[str] = []
    waiting: set[Request] = set()
    page.on("request", lambda request: requests.append(request.url))
    page.on("request", lambda request: waiting.add(request) if "/queue/" in request.url else None)
    page.on("requestfinished", lambda request: waiting.discard(request))
    page.on("requestfailed", lambda request: waiting.discard(request))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(served.url)
    page.wait_for_selector("#scenes button")
    yield Opened(page, served, shots, requests, waiting)
    page.close()
    assert problems == []


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene as a file: a cactus and a helicopter."""
    path = tmp_path_factory.mktemp("pictures") / "my scene.png"
    Scenes("test", size=448, objects=2, seed=5)[0].image.save(path)
    return path


def test_page_shows_two_maps_and_sliders_need_no_forward(
    app: Opened, picture: Path, demo: Model
) -> None:
    names = Scenes("test", size=448, objects=2, seed=5)[0].names
    app.says("Drop a picture, or choose one of the scenes")
    app.shot("1-start")
    app.upload(picture)
    app.says("Maps of")
    for name in names:
        box = app.page.get_by_role("checkbox", name=re.compile(f"^{name} "))
        if not box.is_checked():
            app.tick(name)
            app.says(name)
    maps = app.settled()
    assert len(maps) == len(set(maps)) >= 2
    app.shot("2-two-classes")

    before = len(app.served.forwards)
    for control, value in (("threshold", 0.5), ("smoothing", 2), ("first", 5), ("last", 5)):
        app.slide(control, value)
        maps = app.wait_for_other(maps)
    app.shot("3-sliders")
    app.page.get_by_role("radio", name="also what speaks against it").check()
    app.wait_for_other(maps)
    app.shot("4-signed")
    app.slide("opacity", 0.4)
    expect(app.page.locator("#maps img.gt-heat").first).to_have_css("opacity", "0.4")
    assert len(app.served.forwards) == before


def test_slider_dragged_fast_shows_its_last_value(app: Opened) -> None:
    app.page.locator("#scenes button").nth(0).click()
    app.says("Maps of")
    plain = app.settled()
    app.slide("threshold", 0.6)
    expected = app.wait_for_other(plain)
    app.slide("threshold", 0)
    app.wait_for_other(expected)
    for step in range(1, 13):
        app.slide("threshold", step / 20)
    app.until(lambda: app.heats() == expected, "the last value is not what is shown")
    assert app.settled() == expected


def test_slider_can_be_reset_and_typed(app: Opened) -> None:
    app.page.locator("#scenes button").nth(0).click()
    app.says("Maps of")
    plain = app.settled()
    app.slide("threshold", 0.6)
    moved = app.wait_for_other(plain)
    app.page.locator("#threshold button").click()
    assert app.wait_for_other(moved) == plain
    app.page.locator("#threshold input[type=number]").fill("0.6")
    app.page.keyboard.press("Enter")
    assert app.wait_for_other(plain) == moved
    app.page.locator("#opacity input[type=number]").fill("0.5")
    app.page.locator("#opacity button").click()
    expect(app.page.locator("#maps img.gt-heat").first).to_have_css("opacity", "0.85")


def test_page_contrast_adds_a_map(app: Opened) -> None:
    app.page.locator("#scenes button").nth(0).click()
    app.says("Maps of")
    alone = app.settled()
    for control, index in (("contrast-a", 1), ("contrast-b", 2)):
        app.page.locator(f"#{control} input").click()
        app.page.locator(f"#{control} [role=option]").nth(index).click()
    app.says("cactus vs helicopter|helicopter vs cactus")
    both = app.settled()
    assert len(both) == len(alone) + 1
    for before, after in zip(alone, both, strict=False):
        assert levels_apart(before, after) <= 2
    assert all(levels_apart(before, both[-1]) > 50 for before in alone)
    app.shot("5-contrast")


def test_page_search_ticks_a_class(app: Opened) -> None:
    app.page.locator("#scenes button").nth(0).click()
    app.says("Maps of")
    count = len(app.settled())
    field = app.page.get_by_role("textbox", name=re.compile("Search all"))
    field.press_sequentially("PEN", delay=20)
    penguin = app.page.get_by_role("checkbox", name=re.compile("^penguin "))
    expect(penguin).to_be_visible()
    expect(app.page.get_by_role("checkbox", name=re.compile("^anchor "))).to_have_count(0)
    app.shot("6-search")
    penguin.check()
    app.says("penguin")
    assert len(app.settled()) == count + 1
    field.press_sequentially("dulum", delay=20)
    app.says("no class has 'PENdulum' in its name; try")


def test_page_download_holds_what_is_shown(app: Opened, picture: Path) -> None:
    app.upload(picture)
    app.says("Maps of")
    maps = app.settled()
    app.slide("last", 3)
    app.wait_for_other(maps)
    with app.page.expect_download() as waiting:
        app.page.locator("#download").click()
    assert waiting.value.suggested_filename == "gradtoken-my-scene.zip"
    with zipfile.ZipFile(waiting.value.path()) as archive:
        assert archive.testzip() is None
        manifest = json.loads(archive.read("manifest.json"))
        listed = manifest["files"]
        assert {"manifest.json", listed["tokens"], listed["summary"], *listed["overlays"]} == set(
            archive.namelist()
        )
        with np.load(io.BytesIO(archive.read("tokens.npz"))) as saved:
            assert saved["tokens"].shape == (len(manifest["targets"]), 14, 14)
        for name in listed["overlays"]:
            assert Image.open(io.BytesIO(archive.read(name))).size == (448, 448)
    assert manifest["input"]["file"] == "my scene.png"
    assert manifest["method"]["options"]["layers"] == [0, 1, 2]


def test_page_compares_methods(app: Opened) -> None:
    app.page.locator("#scenes button").nth(1).click()
    app.says("Maps of")
    app.page.get_by_role("button", name="Compare methods").click()
    app.page.locator("#compare").click()
    expect(app.page.locator("#compared table th")).to_contain_text(["gradtoken", "rollout"])
    rows = app.page.locator("#compared tbody tr")
    classes = rows.count() - 1
    assert classes == len(app.heats())
    rollout = [rows.nth(k).locator("img").last.get_attribute("src") for k in range(classes)]
    assert len(set(rollout)) == 1
    ours = [rows.nth(k).locator("img").first.get_attribute("src") for k in range(classes)]
    assert len(set(ours)) == classes
    assert rows.last.locator("td").last.inner_text() == "1.00"
    app.shot("7-methods")
    before = len(app.served.forwards)
    app.slide("threshold", 0.6)
    expect(rows.first.locator("img").first).not_to_have_attribute("src", ours[0] or "")
    assert len(app.served.forwards) == before


def test_page_reads_patches_by_pointer_and_keyboard(app: Opened) -> None:
    app.page.locator("#scenes button").nth(2).click()
    app.says("Maps of")
    readout = app.page.locator(".gt-readout")
    first, second = (app.page.locator("#maps .gt-picture[tabindex]").nth(k) for k in (0, 1))
    box = first.bounding_box()
    assert box is not None
    first.hover(position={"x": box["width"] * 0.99, "y": box["height"] * 0.01})
    expect(readout).to_contain_text("Row 1, column 14: panda")
    expect(readout).to_contain_text("christmas tree")
    second.click(position={"x": 1, "y": box["height"] * 0.99})
    app.page.mouse.move(0, 0)
    expect(readout).to_contain_text("Row 14, column 1")
    app.shot("8-patch")
    second.focus()
    app.page.keyboard.press("ArrowUp")
    app.page.keyboard.press("ArrowRight")
    expect(readout).to_contain_text("Row 13, column 2")
    maps = app.settled()
    app.slide("threshold", 0.3)
    app.wait_for_other(maps)
    expect(readout).to_contain_text("Row 13, column 2")
    second.focus()
    app.page.keyboard.press("Escape")
    expect(readout).to_be_empty()


def test_page_works_by_keyboard(app: Opened) -> None:
    app.page.locator("#scenes button").nth(3).focus()
    app.page.keyboard.press("Enter")
    app.says("Maps of .*octopus")
    boxes = app.page.locator("#classes input[type=checkbox]")
    count = app.page.locator("#classes input:checked").count()
    boxes.nth(5).focus()
    app.page.keyboard.press("Space")
    expect(app.page.locator("#maps img.gt-heat")).to_have_count(count + 1)
    maps = app.settled()
    app.page.locator("#threshold input[type=range]").focus()
    for _ in range(20):
        app.page.keyboard.press("ArrowRight")
    app.wait_for_other(maps)


def test_page_controls_have_accessible_names(app: Opened) -> None:
    app.page.locator("#scenes button").nth(0).click()
    app.says("Maps of")
    tree = app.page.context.new_cdp_session(app.page).send("Accessibility.getFullAXTree")
    roles = {"button", "checkbox", "radio", "slider", "textbox", "combobox", "application"}
    roles |= {"spinbutton", "searchbox", "listbox"}
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree["nodes"]
        if not node["ignored"] and node["role"]["value"] in roles
    ]
    assert {"slider", "checkbox", "radio", "application", "button"} <= {role for role, _ in found}
    assert [role for role, name in found if not name.strip()] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 380])
def test_page_in_themes_and_widths(app: Opened, scheme: str, width: int) -> None:
    page = app.page
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(app.served.url)
    page.locator("#scenes button").nth(2).click()
    app.says("Maps of")
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    app.shot(f"9-{scheme}-{width}")
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "light")


def test_page_reports_rejected_uploads(app: Opened, tmp_path: Path) -> None:
    app.page.locator("#scenes button").nth(0).click()
    app.says("Maps of")
    before = app.heats()
    huge = tmp_path / "huge.png"
    Image.new("L", (8000, 6250)).save(huge, compress_level=1)
    app.upload(huge)
    app.says(r"huge\.png has 8000x6250 pixels, above the limit of 30,000,000")
    app.shot("10-too-large")
    text = tmp_path / "notes.png"
    text.write_text("this is a text")
    app.upload(text)
    app.says(r"notes\.png is not a picture that is read here; use PNG, JPEG")
    heavy = tmp_path / "heavy.png"
    heavy.write_bytes(np.random.default_rng(0).bytes(20_000_100))
    app.upload(heavy)
    expect(app.page.get_by_text(re.compile("20 ?MB|maximum allowed|exceed")).last).to_be_visible()
    app.shot("11-too-heavy")
    assert app.heats() == before


def test_page_reports_rate_limit_and_full_queue(
    browser: BrowserContext, demo: Model, picture: Path, shots: Path
) -> None:
    limits = Limits(requests_per_minute=1, waiting=0)
    with serving(demo, limits=limits) as url:
        page = browser.new_page()
        page.goto(url)
        page.locator("#scenes button").nth(0).click()
        expect(page.get_by_text("application is currently busy").last).to_be_visible()
        page.wait_for_timeout(600)
        page.screenshot(path=shots / "12-busy.png", full_page=True)
        page.set_extra_http_headers({"X-Forwarded-For": "10.0.0.1"})
        page.goto(url)
        page.wait_for_selector("#scenes button")
        page.set_input_files("#upload input[type=file]", picture)
        expect(page.get_by_text("too many requests from this address").last).to_be_visible()
        page.wait_for_timeout(600)
        page.screenshot(path=shots / "13-too-many.png", full_page=True)
        page.close()


def test_page_deletes_image_on_request(app: Opened) -> None:
    app.page.locator("#scenes button").nth(0).click()
    app.says("Maps of")
    app.page.locator("#forget").click()
    app.says("The picture is deleted")
    expect(app.page.locator("#maps img")).to_have_count(0)
    expect(app.page.locator("#classes input")).to_have_count(0)
    app.slide("threshold", 0.5)
    app.says("there is no picture yet")


def test_closed_page_deletes_its_image(app: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Callbacks] = []
    forget = Callbacks.forget

    def spy(self: Callbacks, key: str | None) -> None:
        assert len(self.sessions) > 0
        forget(self, key)
        with pytest.raises(AppError):
            self.sessions.get(key)
        kept.append(self)

    monkeypatch.setattr(Callbacks, "forget", spy)
    app.page.locator("#scenes button").nth(0).click()
    app.says("Maps of")
    assert kept == []
    app.page.goto("about:blank")
    app.until(lambda: bool(kept), "the session was not dropped")


def test_page_requests_nothing_from_elsewhere(app: Opened) -> None:
    app.page.locator("#scenes button").nth(0).click()
    app.says("Maps of")
    sent = [url for url in app.requests if not url.startswith(("data:", "blob:"))]
    assert len(sent) > 5
    assert [url for url in sent if not url.startswith(app.served.url)] == []
    response = app.page.request.get(app.served.url)
    assert "default-src 'self'" in response.headers["content-security-policy"]
