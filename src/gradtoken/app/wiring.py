"""Which control calls what, and how errors become sentences in the page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from dataclasses import dataclass
from functools import wraps
from typing import Any

import gradio as gr

from gradtoken.app.callbacks import Callbacks, Drawn, Opened
from gradtoken.app.leftovers import Leftovers
from gradtoken.app.maps import View
from gradtoken.app.markup import message, problem
from gradtoken.app.workers import AT_ONCE, Workers
from gradtoken.errors import AppError, GradTokenError

FOR, BOTH = "what speaks for a class", "also what speaks against it"
"""What maps show: positive relevance, or signed."""

NOBODY = ("–", -1)
"""No class is chosen for the contrast."""

_MOST = 1_000_000
"""Sliders show far less."""

_LOG = logging.getLogger(__name__)
_FAILED = "something went wrong on the server, which has noted it; try another picture or class."

_OPACITY = "(value) => { document.documentElement.style.setProperty('--gt-opacity', value); }"
_OTHER_THEME = "() => { document.body.classList.toggle('dark'); }"
_SAVE = """(file) => {
  if (!file || !file.data) return null;
  const bytes = Uint8Array.from(atob(file.data), (c) => c.charCodeAt(0));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: "application/zip" }));
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  return null;
}"""


@dataclass(frozen=True)
class Controls:
    """The parts of the page that do something or show something."""

    dark: gr.Button
    upload: gr.File
    scenes: gr.HTML
    prompts: gr.Textbox
    ask_prompts: gr.Button
    query: gr.Textbox
    ticked: gr.CheckboxGroup
    a: gr.Dropdown
    b: gr.Dropdown
    status: gr.HTML
    scenery: gr.HTML
    maps: gr.HTML
    coupling: gr.HTML
    look: tuple[gr.Slider, gr.Slider, gr.Slider, gr.Radio, gr.Slider, gr.Slider]
    names: gr.CheckboxGroup
    compare: gr.Button
    compared: gr.HTML
    download: gr.Button
    forget: gr.Button
    file: gr.JSON


def wire(app: gr.Blocks, controls: Controls, callbacks: Callbacks, workers: Workers) -> None:
    """Let controls call handlers. What needs the model waits its turn; the rest runs soon.

    While a redraw is under way only the latest further one is kept, so the last move of a slider is
    what is shown.
    """
    on, c = _Handlers(callbacks), controls
    look: list[Any] = list(c.look)
    drawn = [c.status, c.maps, c.coupling]
    offered: list[Any] = [c.ticked, c.a, c.b]
    opened = [*drawn, c.scenery, *offered, c.query, c.compared]

    def asks(event: Callable[..., Any], handler: Any, inputs: Any, outputs: Any) -> None:
        event(
            _by(workers.model, handler, len(outputs)), inputs, outputs, concurrency_id="model",
            concurrency_limit=AT_ONCE, show_progress="minimal", show_progress_on=[c.status],
            trigger_mode="always_last", api_visibility="undocumented",
        )  # fmt: skip

    def looks(event: Callable[..., Any], handler: Any, inputs: Any, outputs: Any) -> Any:
        return event(
            _by(workers.drawing, handler, len(outputs)), inputs, outputs, concurrency_limit=None,
            show_progress="hidden", trigger_mode="always_last", api_visibility="undocumented",
        )  # fmt: skip

    asks(c.upload.upload, on.open_file, [c.upload, c.prompts, *look], [*opened, c.upload])
    asks(c.scenes.select, on.open_scene, [c.prompts, *look], opened)
    asks(c.ask_prompts.click, on.ask_prompts, [c.prompts, *look], opened)
    for control in offered:
        asks(control.input, on.ask, [*offered, *look], [*drawn, c.compared])
    asks(c.compare.click, on.compare, [c.names, *look], [c.status, c.compared])

    looks(c.query.input, on.search, [c.query, *offered], [c.status, *offered])
    for slider in look[1:]:
        looks(slider.change, on.redraw, look, drawn)
        looks(slider.change, on.redraw_compared, look, [c.status, c.compared])
    packed = looks(c.download.click, on.pack, look, [c.status, c.file])
    packed.then(None, c.file, c.file, js=_SAVE)
    looks(c.forget.click, on.forget, [], opened)

    look[0].change(None, look[0], None, js=_OPACITY)
    c.dark.click(None, None, None, js=_OTHER_THEME)
    app.unload(on.closed)
    shown = [*drawn, c.scenery, c.compared]
    leftovers = Leftovers(app, shown, c.file, callbacks.sessions)
    callbacks.sessions.dropped = leftovers.forget_session
    callbacks.swept = leftovers.sweep


def _by(pool: Executor, handler: Callable[..., list[Any]], count: int) -> Callable[..., Any]:
    """A handler that runs on a pool's threads.

    Its errors are a sentence in the first of its `count` outputs, the others staying as they are.
    """

    def guarded(*args: Any) -> list[Any]:
        try:
            return handler(*args)
        except GradTokenError as error:
            return [problem(str(error)), *[gr.skip()] * (count - 1)]
        except Exception:  # noqa: BLE001
            _LOG.exception("a request failed")
            return [problem(_FAILED), *[gr.skip()] * (count - 1)]

    @wraps(handler)
    async def pooled(*args: Any) -> list[Any]:
        context = copy_context()
        return await asyncio.wrap_future(pool.submit(context.run, guarded, *args))

    return pooled


class _Handlers:
    """Callbacks as gradio calls them; the first output is always the status."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._do = callbacks

    def open_file(self, request: gr.Request, path: str, texts: str, *look: Any) -> list[Any]:
        try:
            found = self._do.open_file(request.session_hash, path, texts, view_of(*look))
        except GradTokenError as error:
            self._do.discard(path)
            return [problem(str(error)), *[gr.skip()] * 8, None]
        return [*_opens(found), None]

    def open_scene(
        self, request: gr.Request, event: gr.EventData, texts: str, *look: Any
    ) -> list[Any]:
        index = int(event.index)
        return _opens(self._do.open_scene(request.session_hash, index, texts, view_of(*look)))

    def ask_prompts(self, request: gr.Request, texts: str, *look: Any) -> list[Any]:
        return _opens(self._do.ask_prompts(request.session_hash, texts, view_of(*look)))

    def ask(
        self, request: gr.Request, ticked: list[int], a: int | None, b: int | None, *look: Any
    ) -> list[Any]:
        a, b = (None if index == NOBODY[1] else index for index in (a, b))
        found = self._do.ask(request.session_hash, ticked, a, b, view_of(*look))
        return [*_draws(found), ""]

    def search(
        self, request: gr.Request, query: str, ticked: list[int], a: int | None, b: int | None
    ) -> list[Any]:
        kept = [index for index in (a, b) if index not in (None, NOBODY[1])]
        found = self._do.search(request.session_hash, query, [*ticked, *kept])
        dropdown = gr.Dropdown(choices=[NOBODY, *found])
        says = message(f"{len(found)} in the list.")
        return [says, gr.CheckboxGroup(choices=found, value=ticked), dropdown, dropdown]

    def compare(self, request: gr.Request, names: list[str], *look: Any) -> list[Any]:
        found = self._do.compare(request.session_hash, names, view_of(*look))
        return [message("Methods compared."), found]

    def redraw(self, request: gr.Request, *look: Any) -> list[Any]:
        return _draws(self._do.look(request.session_hash, view_of(*look)))

    def redraw_compared(self, request: gr.Request, *look: Any) -> list[Any]:
        return [gr.skip(), self._do.look_compared(request.session_hash, view_of(*look))]

    def pack(self, request: gr.Request, *look: Any) -> list[Any]:
        made = self._do.download(request.session_hash, view_of(*look))
        return [message(f"{made.name} is saved."), {"name": made.name, "data": made.data}]

    def forget(self, request: gr.Request) -> list[Any]:
        self._do.forget(request.session_hash)
        empty = gr.Dropdown(choices=[NOBODY], value=NOBODY[1])
        ticked = gr.CheckboxGroup(choices=[], value=[])
        return [message("The picture is deleted."), "", "", "", ticked, empty, empty, "", ""]

    def closed(self, request: gr.Request) -> None:
        self._do.forget(request.session_hash)


def _opens(found: Opened) -> list[Any]:
    dropdown = gr.Dropdown(choices=[NOBODY, *found.choices], value=NOBODY[1])
    ticked = gr.CheckboxGroup(choices=found.choices, value=found.ticked)
    return [*_draws(found.drawn), found.scenery, ticked, dropdown, dropdown, "", ""]


def _draws(found: Drawn) -> list[Any]:
    return [message(found.says), found.maps, found.coupling]


def view_of(
    opacity: Any, threshold: Any, smoothing: Any, signed: Any, first: Any, last: Any
) -> View:
    """How to look at the maps, as the page's controls say it.

    Raises:
        AppError: a value that is no number within reach.
    """
    numbers = (opacity, threshold, smoothing, first, last)
    if not all(isinstance(n, (int, float)) and -_MOST <= n <= _MOST for n in numbers):
        raise AppError("the sliders say something that is no number; reload the page.")
    return View(
        float(opacity), float(threshold), float(smoothing), signed == BOTH, int(first), int(last)
    )
