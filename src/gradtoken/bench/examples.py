"""A qualitative sheet of a run's first pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from gradtoken.attribution import Method
from gradtoken.bench.cases import Case
from gradtoken.bench.scores import maps_of
from gradtoken.errors import MethodError, ModelError, TargetError
from gradtoken.explanation import style as display
from gradtoken.explanation.sheet import SheetRow, notes_on, sheet
from gradtoken.images.crop_box import Box, lay_out


def _maps(method: Method, case: Case) -> Float[Tensor, "targets rows columns"] | str:
    """A method's maps of an image, or why there are none."""
    try:
        return maps_of(method, case.trace, case.classes)
    except (MethodError, ModelError, TargetError) as error:
        return str(error)


def examples(found: Sequence[Case], methods: Mapping[str, Method], caption: str) -> Figure:
    """A row per class of some pictures, a column per method, as the model sees the pictures."""
    rows = []
    for case in found:
        model = case.trace.model
        picture = model.preprocess.picture(case.pixels[0])
        box = case.trace.patch_grid.on(Box(0.0, 0.0, *map(float, picture.size)))
        tried = {name: _maps(method, case) for name, method in methods.items()}
        maps = {name: one for name, one in tried.items() if not isinstance(one, str)}
        for k, title in enumerate(case.names):
            overlays = {
                name: one if isinstance(one, str) else _overlay(picture, one[k], box)
                for name, one in tried.items()
            }
            outline = None if case.masks is None else case.masks[k].numpy()
            rows.append(SheetRow(picture, title, overlays, notes_on(maps, k), outline))
    return sheet(rows, caption)


def _overlay(picture: Image.Image, tokens: Float[Tensor, "rows columns"], box: Box) -> Image.Image:
    style = display.fitted_to(tokens, display.Style())
    laid = lay_out(tokens[None], box, picture.size)[0]
    return display.overlay(picture, laid.numpy(), box, style)
