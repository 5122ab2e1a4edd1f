"""What the page's controls do: plain functions of plain data, one person's session at a time."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gradtoken.app import asking
from gradtoken.app.choices import (
    Choice,
    called,
    check_indices,
    choices,
    read_prompts,
    targets,
    ticked_at_first,
)
from gradtoken.app.downloads import archive, file_name
from gradtoken.app.limits import Limits
from gradtoken.app.maps import View, draw, scenery
from gradtoken.app.pictures import Shown, Uploads, scene_source
from gradtoken.app.sessions import Session, Sessions
from gradtoken.app.tables import comparison, coupling_figure
from gradtoken.errors import TargetError
from gradtoken.images.source import Source
from gradtoken.models import Model
from gradtoken.models.reading.grid import grid_of


@dataclass(frozen=True)
class Drawn:
    """What a look at the maps shows: a sentence, and HTML."""

    says: str
    maps: str
    coupling: str


@dataclass(frozen=True)
class Opened:
    """What a new picture or new prompts show."""

    scenery: str
    choices: list[Choice]
    ticked: list[int]
    drawn: Drawn


@dataclass(frozen=True)
class Download:
    """A file for the browser to save."""

    name: str
    data: str
    """In base64."""


class Callbacks:
    """The app without its page.

    Each method takes the session's key first. What goes wrong is a `GradTokenError`, whose text is
    a sentence for the page.

    Args:
        model: what is explained.
        uploads: where uploaded files arrive.
        limits: what is taken and kept.

    `swept` is called with every sweep.
    """

    def __init__(self, model: Model, uploads: Uploads, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.sessions = Sessions(limits)
        self.swept: Callable[[], None] = lambda: None
        self._uploads = uploads

    def open_file(self, key: str | None, path: str, prompts: str, view: View) -> Opened:
        """Read an upload, delete it, predict, and explain what is likely."""
        begun = self.sessions.now()
        return self._open(key, self._uploads.take(path), prompts, view, begun)

    def discard(self, path: str) -> None:
        """Delete an upload that is not going to be read."""
        self._uploads.discard(path)

    def open_scene(self, key: str | None, index: int, prompts: str, view: View) -> Opened:
        """Predict and explain a bundled scene."""
        return self._open(key, scene_source(index), prompts, view, self.sessions.now())

    def ask_prompts(self, key: str | None, prompts: str, view: View) -> Opened:
        """Ask other prompts about the same picture."""
        begun = self.sessions.now()
        return self._open(key, self.sessions.get(key).source, prompts, view, begun)

    def search(self, key: str | None, query: str, ticked: Sequence[int]) -> list[Choice]:
        """The list of classes that a search finds, with those that are ticked."""
        session = self.sessions.get(key)
        names = session.prompts or tuple(self.model.labels)
        check_indices(ticked, len(names))
        whole = bool(session.prompts)
        found = choices(names, session.probabilities, ticked, query, whole=whole)
        if query.strip() and len(found) == len(ticked):
            raise TargetError(
                f"no class has {query.strip()!r} in its name; try a part of it, or its number."
            )
        return found

    def ask(
        self, key: str | None, ticked: Sequence[int], a: int | None, b: int | None, view: View
    ) -> Drawn:
        """Explain the ticked classes, and A against B where both are chosen: one forward."""
        begun = self.sessions.now()
        session = self._ask(self.sessions.get(key), ticked, a, b)
        self.sessions.put(key, session, begun)
        return _drawn(session, view)

    def look(self, key: str | None, view: View) -> Drawn:
        """Draw the maps anew; no forward."""
        return _drawn(self.sessions.get(key), view)

    def compare(self, key: str | None, names: Sequence[str], view: View) -> str:
        """The same targets by other methods, one forward or more each."""
        begun = self.sessions.now()
        session = self.sessions.get(key)
        if not session.wanted:
            raise TargetError("there is nothing to compare yet; tick a class first.")
        if not names:
            raise TargetError("there is no method to compare; tick at least one.")
        found = asking.compare(self.model, session.source, session.wanted, names)
        self.sessions.put(key, replace(session, compared=found), begun)
        return comparison(found, session.shown, view.style)

    def look_compared(self, key: str | None, view: View) -> str:
        """Draw the comparison anew, if there is one; no forward."""
        session = self.sessions.get(key)
        return comparison(session.compared, session.shown, view.style) if session.compared else ""

    def download(self, key: str | None, view: View) -> Download:
        """The maps as they are looked at, the raw tokens and the manifest, zipped."""
        session = self.sessions.get(key)
        if session.asked is None:
            raise TargetError("there is no map to download yet; tick a class first.")
        found = view.of(session.asked)
        data = base64.b64encode(archive(found, view.style)).decode()
        return Download(file_name(found), data)

    def forget(self, key: str | None) -> None:
        """Delete a session's picture and maps, and those that are still being made."""
        self.sessions.drop(key)

    def sweep(self) -> None:
        """Delete pictures that were not used, or not even read, for too long."""
        self.sessions.sweep()
        self._uploads.sweep()
        self.swept()

    def _open(
        self, key: str | None, source: Source, prompts: str, view: View, begun: float
    ) -> Opened:
        texts: tuple[str, ...] = ()
        if self.model.prompts is not None:
            texts = read_prompts(prompts, self.limits)
        found = asking.probabilities(self.model, source, texts)
        grid = grid_of(self.model, self.model.preprocess(source.image)[None])
        box = grid.on(self.model.preprocess.box(source.image.size))
        session = Session(source, Shown.of(source.image, box), found, texts)
        names = texts or tuple(self.model.labels)
        ticked = ticked_at_first(found)
        session = self._ask(session, ticked, None, None)
        self.sessions.put(key, session, begun)
        return Opened(
            scenery(session.shown),
            choices(names, found, ticked, whole=bool(texts)),
            ticked,
            _drawn(session, view),
        )

    def _ask(
        self, session: Session, ticked: Sequence[int], a: int | None, b: int | None
    ) -> Session:
        wanted: tuple[Any, ...] = targets(
            ticked, a, b, labels=self.model.labels, prompts=session.prompts, limits=self.limits
        )
        asked = asking.ask(self.model, session.source, wanted) if wanted else None
        return replace(session, wanted=wanted, asked=asked, compared={})


def _drawn(session: Session, view: View) -> Drawn:
    found = None if session.asked is None else view.of(session.asked)
    name = session.source.name if session.source.path else "bundled scene"
    labels = [] if found is None else called(found)
    says = f"Maps of {', '.join(labels)}." if labels else "No class is ticked."
    return Drawn(says, draw(found, session.shown, name, view), coupling_figure(found))
