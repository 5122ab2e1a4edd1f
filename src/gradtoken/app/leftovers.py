"""What gradio keeps although nobody needs it, and how it is made to forget."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any, cast

import gradio as gr


def drop_area(**options: Any) -> gr.File:
    """A `gr.File` whose handler gets the path of the upload itself.

    gradio's own fetches what an address leads to, leaves an empty file for each upload, and keeps a
    list of all. This is no subclass, because gradio writes a file beside the source of every one.
    """
    area: Any = gr.File(**options)
    area.preprocess = _path_of
    area.async_move_resource_to_block_cache = _where_it_is
    return cast(gr.File, area)


def check_inputs(app: Any, area: gr.File) -> None:
    """Have a page read its parts so that nothing is fetched and nothing piles up.

    gradio would fetch a file's address, whatever part of the page it is given for. And it would
    keep a part of each session anew, under a new number, whenever the part's choices change.

    Args:
        app: the page.
        area: the only part of it that takes a file.
    """
    read = app.preprocess_data

    async def read_checked(function: Any, inputs: list[Any], state: Any, *more: Any) -> Any:
        for part, value in zip(function.inputs, inputs, strict=False):
            if part is not area and _has_object(value):
                raise gr.Error("no picture is taken here.", print_exception=False)
            if state is not None:
                state[part._id]._id = part._id
        return await read(function, inputs, state, *more)

    app.preprocess_data = read_checked


def _has_object(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_has_object, value)))


def _path_of(payload: Any) -> str | None:
    return None if payload is None else str(payload.path)


async def _where_it_is(path: str) -> str:
    return path


class Leftovers:
    """What gradio keeps of the components of a page, for each session, and of uploads.

    Args:
        app: the page.
        showing: components that show something of a picture.
        passing: the component through which downloads pass.
        sessions: whose pictures are still there.
    """

    def __init__(
        self, app: gr.Blocks, showing: Iterable[Any], passing: Any, sessions: Container[str]
    ) -> None:
        self._app = app
        self._showing = {component._id for component in showing}
        self._passing = passing._id
        self._sessions = sessions

    def forget_session(self, key: str) -> None:
        """Forget a session's picture and maps."""
        self._forget(key, self._showing | {self._passing})

    def sweep(self) -> None:
        """Forget what was downloaded, what is shown of pictures that are gone, and what came."""
        for key in list(self._app.state_holder.session_data):
            gone = set() if key in self._sessions else self._showing
            self._forget(key, {self._passing} | gone)
        self._app.upload_file_set.clear()

    def _forget(self, key: str, parts: set[int]) -> None:
        kept = getattr(self._app.state_holder.session_data.get(key), "config_values", {})
        for part in parts & kept.keys():
            kept[part]["props"]["value"] = None
