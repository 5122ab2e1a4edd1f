"""A qualitative sheet of a run's first pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from gradtoken import display
from gradtoken.attribution import Method
from gradtoken.bench.cases import Case
from gradtoken.bench.scores import maps_of
from gradtoken.errors import MethodError, ModelError, TargetError
from gradtoken.geometry import Box, lay_out
from gradtoken.sheet import SheetRow, sheet


def _laid_out(
    method: Method, case: Case, box: Box, size: tuple[int, int]
) -> Float[Tensor, "targets height width"] | str:
    """A method's maps on the pixels of an image, or why there are none."""
    try:
        return lay_out(maps_of(method, case.trace, case.classes), box, size)
    except (MethodError, ModelError, TargetError) as error:
        return str(error)


def examples(found: Sequence[Case], methods: Mapping[str, Method], caption: str) -> Figure:
    """A row per class of some pictures, a column per method, as the model sees the pictures."""
    rows = []
    for case in found:
        model = case.trace.model
        picture = model.preprocess.picture(case.pixels[0])
        box = Box(0.0, 0.0, float(picture.width), float(picture.height))
        laid = {
            name: _laid_out(method, case, box, picture.size) for name, method in methods.items()
        }
        for k, title in enumerate(case.names):
            overlays = {
                name: maps
                if isinstance(maps, str)
                else display.overlay(picture, maps[k].numpy(), box, display.Style())
                for name, maps in laid.items()
            }
            outline = None if case.masks is None else case.masks[k].numpy()
            rows.append(SheetRow(picture, title, overlays, outline))
    return sheet(rows, caption)
