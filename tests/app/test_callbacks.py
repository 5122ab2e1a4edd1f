"""The app without its page."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.app_clients.pages import tokens_in
from PIL import Image

import gradtoken
from gradtoken.app import asking
from gradtoken.app.callbacks import Callbacks
from gradtoken.app.limits import Limits
from gradtoken.app.maps import View
from gradtoken.app.pictures import Uploads, scene_source
from gradtoken.app.wiring import BOTH, view_of
from gradtoken.errors import AppError, GradTokenError, TargetError
from gradtoken.models import Model
from tests.models.zoo import ZOO, seeded

PLAIN = View()


@pytest.fixture
def do(demo: Model, tmp_path: Path) -> Callbacks:
    return Callbacks(demo, Uploads(tmp_path, Limits()), Limits())


def heats(html: str) -> list[np.ndarray]:
    uris = re.findall(r'class="gt-heat" alt="" src="data:image/png;base64,([^"]+)"', html)
    pictures = [Image.open(io.BytesIO(base64.b64decode(uri))) for uri in uris]
    return [np.asarray(picture.convert("RGBA")) for picture in pictures]


def test_open_scene_shows_likely_classes(do: Callbacks, demo: Model) -> None:
    found = do.open_scene("a", 0, "", PLAIN)
    expected = gradtoken.explain(demo, scene_source(0).image, found.ticked)
    assert found.ticked == [index for _, index in found.choices][: len(found.ticked)]
    assert found.drawn.says == f"Maps of {', '.join(expected.labels[0])}."
    np.testing.assert_allclose(
        tokens_in(found.drawn.maps), expected.tokens[0].numpy(), rtol=1e-4, atol=1e-6
    )
    assert "--gt-backdrop: url(data:image/jpeg" in found.scenery
    assert "Semantic coupling" in found.drawn.coupling


def test_open_file_equals_explain(
    do: Callbacks, demo: Model, tmp_path: Path, picture: Image.Image
) -> None:
    folder = tmp_path / "0a"
    folder.mkdir()
    picture.save(folder / "wide.png")
    found = do.open_file("a", str(folder / "wide.png"), "", PLAIN)
    drawn = do.ask("a", [5, 9], None, None, PLAIN)
    expected = gradtoken.explain(demo, picture, [5, 9])
    np.testing.assert_allclose(
        tokens_in(drawn.maps), expected.tokens[0].numpy(), rtol=1e-4, atol=1e-6
    )
    assert "wide.png" in found.drawn.maps
    left, top, right, bottom = map(float, re.search(r'data-box="([^"]+)"', drawn.maps)[1].split())
    box = demo.preprocess.box(picture.size)
    assert [left * 90, top * 60, right * 90, bottom * 60] == pytest.approx(list(box), abs=1e-3)


def test_look_needs_no_forward(do: Callbacks, demo: Model) -> None:
    do.open_scene("a", 0, "", PLAIN)
    do.compare("a", ["gradtoken", "rollout"], PLAIN)
    calls: list[int] = []
    handle = demo.module.register_forward_hook(lambda *_: calls.append(1))
    plain = heats(do.look("a", PLAIN).maps)
    for view in (View(threshold=0.5), View(smoothing=1.5), View(signed=True), View(first=4)):
        now = heats(do.look("a", view).maps)
        assert len(now) == len(plain)
        assert all((a != b).any() for a, b in zip(now, plain, strict=True))
    hidden = heats(do.look("a", View(threshold=0.5)).maps)[0][..., 3]
    assert 0 < (hidden > 0).mean() < (plain[0][..., 3] > 0).mean()
    assert do.look_compared("a", PLAIN) != do.look_compared("a", View(threshold=0.5))
    do.download("a", View(last=2))
    assert do.search("a", "pan", []) != []
    handle.remove()
    assert calls == []


def test_ask_contrast_and_no_class(do: Callbacks) -> None:
    do.open_scene("a", 0, "", PLAIN)
    drawn = do.ask("a", [0], 1, 2, PLAIN)
    assert tokens_in(drawn.maps).shape[0] == 2
    assert " vs " in drawn.says
    assert do.ask("a", [0], 1, None, PLAIN).says.count(",") == 0
    drawn = do.ask("a", [], None, None, PLAIN)
    assert drawn.says == "No class is ticked."
    assert "Tick a class" in drawn.maps
    assert drawn.coupling == ""
    assert do.look("a", View(signed=True)).maps == drawn.maps


def test_callbacks_keep_sessions_apart(do: Callbacks) -> None:
    one = do.open_scene("a", 0, "", PLAIN).drawn.maps
    other = do.open_scene("b", 1, "", PLAIN).drawn.maps
    assert do.look("a", PLAIN).maps == one != other == do.look("b", PLAIN).maps
    do.forget("a")
    with pytest.raises(AppError, match="there is no picture yet"):
        do.look("a", PLAIN)
    assert do.look("b", PLAIN).maps == other


def test_search_lists_matches_and_ticked_classes(do: Callbacks) -> None:
    do.open_scene("a", 0, "", PLAIN)
    found = do.search("a", "PENG", [3])
    assert [text.split(" ·")[0] for text, _ in found] == ["penguin", do.model.labels[3]]
    assert len(do.search("a", " ", [])) == 10
    with pytest.raises(TargetError, match="no class has 'zebrafish' in its name; try"):
        do.search("a", "zebrafish", [3])


def test_callbacks_reject_values_no_page_sends(do: Callbacks) -> None:
    do.open_scene("a", 0, "", PLAIN)
    assert view_of(0.5, 0.1, 1, BOTH, 2, 3.0) == View(0.5, 0.1, 1.0, True, 2, 3)
    for value in ("1", None, math.nan, math.inf, 1e300, [1], {}):
        with pytest.raises(AppError, match="no number; reload"):
            view_of(0.5, value, 1, BOTH, 1, 6)
    for indices in ([-1], [10**6], ["1"], [True], None, {}, 3):
        for request in (do.search, lambda key, _, ticked: do.ask(key, ticked, None, None, PLAIN)):
            with pytest.raises(TargetError, match="not in the list of classes"):
                request("a", "", indices)


def test_compare_draws_row_per_class(do: Callbacks) -> None:
    do.open_scene("a", 0, "", PLAIN)
    do.ask("a", [3, 7], None, None, PLAIN)
    html = do.compare("a", ["gradtoken", "rollout"], PLAIN)
    assert html.count("gt-heat") == 4
    assert "same for all classes" in html
    ours, rollout, _, again = heats(html)
    assert (rollout == again).all()
    assert (ours != rollout).any()
    assert "<td>1.00</td>" in html
    do.ask("a", [3], None, None, PLAIN)
    assert do.look_compared("a", PLAIN) == ""
    do.ask("a", [], None, None, PLAIN)
    for names, words in ((["rollout"], "nothing to compare"), ([], "nothing to compare")):
        with pytest.raises(TargetError, match=words):
            do.compare("a", names, PLAIN)
    do.ask("a", [3], None, None, PLAIN)
    with pytest.raises(TargetError, match="no method to compare"):
        do.compare("a", [], PLAIN)


def test_download_equals_saved_explanation(do: Callbacks, demo: Model) -> None:
    do.open_scene("a", 2, "", PLAIN)
    do.ask("a", [4, 8], None, None, PLAIN)
    view = View(first=3, last=5, threshold=0.4, signed=True)
    made = do.download("a", view)
    assert made.name == "gradtoken-scene.zip"
    expected = gradtoken.explain(demo, scene_source(2).image, [4, 8], layers=[2, 3, 4])
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(made.data))) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert manifest["method"] == expected.about["method"]
        with np.load(io.BytesIO(archive.read("tokens.npz"))) as saved:
            np.testing.assert_allclose(
                saved["tokens"], expected.tokens[0].numpy(), rtol=1e-4, atol=1e-6
            )
        drawn = Image.open(io.BytesIO(archive.read(manifest["files"]["overlays"][0])))
    overlay = np.asarray(expected.overlay(0, style=view.style), dtype=float)
    assert np.abs(np.asarray(drawn, dtype=float) - overlay).max() <= 2
    do.ask("a", [], None, None, PLAIN)
    with pytest.raises(TargetError, match="no map to download"):
        do.download("a", PLAIN)


def test_open_scene_with_prompts(tmp_path: Path) -> None:
    clip = gradtoken.wrap(seeded(ZOO["open_clip ViT"].build))
    do = Callbacks(clip, Uploads(tmp_path, Limits()), Limits())
    found = do.open_scene("a", 0, "a cat\na <b>dog</b>\n", PLAIN)
    assert sorted(index for _, index in found.choices) == [0, 1]
    assert (
        "a &lt;b&gt;dog" in found.drawn.maps
        or "a &lt;b&gt;dog" in do.ask("a", [1], None, None, PLAIN).maps
    )
    drawn = do.ask("a", [0, 1], 0, 1, PLAIN)
    assert tokens_in(drawn.maps).shape[0] == 3
    other = do.ask_prompts("a", "a boat\na ship\na plane", PLAIN)
    assert len(other.choices) == 3
    with pytest.raises(TargetError, match="there is no prompt"):
        do.ask_prompts("a", " ", PLAIN)
    with pytest.raises(GradTokenError, match="not in the list"):
        do.ask("a", [3], None, None, PLAIN)


def test_drawn_escapes_prompts(tmp_path: Path) -> None:
    clip = gradtoken.wrap(seeded(ZOO["open_clip ViT"].build))
    do = Callbacks(clip, Uploads(tmp_path, Limits()), Limits())
    evil = '"><img src=x onerror=alert(1)>{{value}}${alert(2)}'
    found = do.open_scene("a", 0, f"{evil}\na cat", PLAIN)
    drawn = do.ask("a", [0, 1], 0, 1, PLAIN)
    compared = do.compare("a", ["gradtoken"], PLAIN)
    for html in (found.drawn.maps, drawn.maps, drawn.coupling, compared):
        assert "<img src=x" not in html
        assert "{{value" not in html
        assert "${" not in html


@pytest.mark.parametrize("what", ["open", "ask", "compare"])
def test_callbacks_drop_results_of_deleted_image(
    do: Callbacks, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    begin = {
        "open": lambda: do.open_scene("a", 1, "", PLAIN),
        "ask": lambda: do.ask("a", [2], None, None, PLAIN),
        "compare": lambda: do.compare("a", ["gradtoken"], PLAIN),
    }[what]
    do.open_scene("a", 0, "", PLAIN)
    name = "compare" if what == "compare" else "ask"
    work = getattr(asking, name)

    def work_and_delete(*args: Any) -> Any:
        found = work(*args)
        do.forget("a")
        return found

    monkeypatch.setattr(asking, name, work_and_delete)
    with pytest.raises(AppError, match="the picture was deleted meanwhile"):
        begin()
    assert len(do.sessions) == 0
    monkeypatch.setattr(asking, name, work)
    do.open_scene("a", 0, "", PLAIN)
    assert len(do.sessions) == 1
