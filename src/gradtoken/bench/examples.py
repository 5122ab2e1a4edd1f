"""A figure of example maps: the first images of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from gradtoken.attribution import Method
from gradtoken.bench.cases import Case
from gradtoken.bench.maps import maps_of
from gradtoken.errors import MethodError, ModelError, TargetError
from gradtoken.explanation import style as display
from gradtoken.explanation.comparison import ComparisonRow, comparison_figure, evidence_notes
from gradtoken.images.box import Box
from gradtoken.images.patch_grid import lay_out


def _maps_or_error(method: Method, case: Case) -> Float[Tensor, "targets rows columns"] | str:
    """A method's maps of an image, or the text of its error."""
    try:
        return maps_of(method, case.trace, case.classes)
    except (MethodError, ModelError, TargetError) as error:
        return str(error)


def examples(selected: Sequence[Case], methods: Mapping[str, Method], caption: str) -> Figure:
    """Overlays on the model's input: a row per class of each image, a column per method.

    Args:
        selected: the images, with their target classes.
        methods: by name; where one fails on an image, its error takes the place of the overlay.
        caption: of the figure.
    """
    rows = []
    for case in selected:
        image = case.trace.model.preprocess.to_image(case.pixels[0])
        box = case.trace.patch_grid.on(Box(0.0, 0.0, *map(float, image.size)))
        results = {name: _maps_or_error(method, case) for name, method in methods.items()}
        maps = {name: result for name, result in results.items() if not isinstance(result, str)}
        for k, title in enumerate(case.names):
            overlays = {
                name: result if isinstance(result, str) else _overlay(image, result[k], box)
                for name, result in results.items()
            }
            outline = None if case.masks is None else case.masks[k].numpy()
            rows.append(ComparisonRow(image, title, overlays, evidence_notes(maps, k), outline))
    return comparison_figure(rows, caption)


def _overlay(image: Image.Image, tokens: Float[Tensor, "rows columns"], box: Box) -> Image.Image:
    style = display.fitted_to(tokens, display.Style())
    pixels = lay_out(tokens[None], box, image.size)[0]
    return display.overlay(image, pixels.numpy(), box, style)
