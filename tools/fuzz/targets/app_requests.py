"""Requests to the web app that no page of ours would send, with labels that a stranger chose."""

from __future__ import annotations

import base64
import io
import zipfile
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import gradtoken
from fuzz import small
from fuzz.mutate import value, word
from fuzz.target import Target
from gradtoken.app.asking import METHODS
from gradtoken.app.callbacks import Callbacks
from gradtoken.app.limits import Limits
from gradtoken.app.maps import View
from gradtoken.app.markup import problem
from gradtoken.app.pictures import Uploads
from gradtoken.app.wiring import BOTH, FOR, view_of
from gradtoken.errors import GradTokenError

_MARKUP = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='x",
    "</figure></div>",
    "{{ 1 }} ${1} `x`",
    "<!-- ",
    "a,b vs c",
)
_TAGS = {
    *("div", "figure", "figcaption", "strong", "span", "p", "img", "table", "thead", "tbody"),
    *("tr", "td", "th", "small", "style"),
}
_ATTRIBUTES = {
    *("class", "alt", "src", "hidden", "role", "tabindex", "scope", "style", "aria-live"),
    *("aria-label", "aria-roledescription", "data-start", "data-tokens", "data-grid"),
    *("data-box", "data-labels"),
}


class _Checked(HTMLParser):
    """Lets through what our own pieces of HTML are made of, and nothing else."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS, f"<{tag}> came from outside"
        names = {name for name, _ in attrs}
        assert names <= _ATTRIBUTES, f"{names - _ATTRIBUTES} came from outside"
        source = dict(attrs).get("src")
        assert source is None or source.startswith("data:image/"), source

    def handle_comment(self, data: str) -> None:
        raise AssertionError("a comment came from outside")


def _check(*pieces: str) -> None:
    for piece in pieces:
        parser = _Checked()
        parser.feed(piece)
        parser.close()


def _text(rng: Random) -> str:
    return rng.choice(_MARKUP) if rng.random() < 0.5 else word(rng)


def _index(rng: Random) -> Any:
    if rng.random() < 0.7:
        return rng.randrange(5)
    return rng.choice((-1, 5, 10**9, True, None, "0", 1.5, [1]))


def _indices(rng: Random) -> Any:
    if rng.random() < 0.05:
        return value(rng)
    return [_index(rng) for _ in range(rng.choice((0, 1, 1, 2, 3, 9, 200)))]


def _view(rng: Random) -> View:
    def number(low: float, high: float) -> Any:
        return rng.uniform(low, high) if rng.random() < 0.98 else value(rng)

    signed = rng.choice((FOR, BOTH, _text(rng)))
    return view_of(number(0, 1), number(0, 1), number(0, 2), signed, number(0, 3), number(0, 3))


@cache
def _file() -> bytes:
    return small.picture("PNG", 20, 12)


def _callbacks(folder: Path, rng: Random) -> Callbacks:
    labels = [_text(rng).encode("utf-8", "replace").decode() for _ in range(5)]
    limits = Limits(sessions=2, pixels=10_000, file_bytes=4000)
    uploads = folder / "uploads"
    uploads.mkdir()
    return Callbacks(
        gradtoken.wrap(small.module(), labels=labels), Uploads(uploads, limits), limits
    )


def _open(do: Callbacks, key: Any, folder: Path, rng: Random, view: View) -> None:
    name = word(rng).replace("\0", "").replace("/", "")[:40].encode("utf-8", "replace").decode()
    path = folder / "uploads" / (name.strip(".") or "a.png")
    path.write_bytes(_file())
    try:
        found = do.open_file(key, str(path), _text(rng), view)
    except GradTokenError:
        do.discard(str(path))
        raise
    _check(found.scenery, found.drawn.maps, found.drawn.coupling)


def _request(do: Callbacks, key: Any, folder: Path, rng: Random) -> None:
    kind = rng.randrange(8)
    if kind == 0:
        _open(do, key, folder, rng, _view(rng))
    elif kind == 1:
        do.open_scene(key, rng.choice((0, 0, -1, 99, 10**9)), _text(rng), _view(rng))
    elif kind == 2:
        drawn = do.ask(key, _indices(rng), _index(rng), _index(rng), _view(rng))
        _check(drawn.maps, drawn.coupling)
    elif kind == 3:
        found = do.search(key, _text(rng), _indices(rng))
        assert all(isinstance(text, str) and 0 <= index < 5 for text, index in found)
    elif kind == 4:
        drawn = do.look(key, _view(rng))
        _check(drawn.maps, drawn.coupling)
    elif kind == 5:
        names = [rng.choice((*METHODS[:3], _text(rng))) for _ in range(rng.randrange(3))]
        _check(do.compare(key, names, _view(rng)), do.look_compared(key, _view(rng)))
    elif kind == 6 and rng.random() < 0.1:
        made = do.download(key, _view(rng))
        assert made.name.endswith(".zip")
        assert Path(made.name).name == made.name
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(made.data))) as archive:
            assert all(Path(name).name == name for name in archive.namelist())
    else:
        do.ask_prompts(key, _text(rng), _view(rng))


def attempt(rng: Random, folder: Path) -> None:
    do = _callbacks(folder, rng)
    _open(do, "mine", folder, rng, View())
    before = do.look("mine", View()).maps
    for _ in range(2):
        try:
            _request(do, rng.choice(("other", "other", None, "", "a\0b")), folder, rng)
        except GradTokenError as error:
            _check(problem(str(error)))
    assert do.look("mine", View()).maps == before, "a session changed another one"
    assert not list((folder / "uploads").iterdir()), "an upload was kept"
    try:
        _request(do, "mine", folder, rng)
    except GradTokenError as error:
        _check(problem(str(error)))
        raise


TARGET = Target(attempt, seconds=15, megabytes=256)
