"""A qualitative sheet of a run's first pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from gradtoken import display
from gradtoken.attribution import Method
from gradtoken.bench.cases import Case
from gradtoken.bench.scores import maps_of
from gradtoken.geometry import Box, lay_out
from gradtoken.sheet import SheetRow, notes_on, sheet


def examples(found: Sequence[Case], methods: Mapping[str, Method], caption: str) -> Figure:
    """A row per class of some pictures, a column per method, as the model sees the pictures."""
    rows = []
    for case in found:
        model = case.trace.model
        picture = model.preprocess.picture(case.pixels[0])
        box = case.trace.patch_grid.on(Box(0.0, 0.0, *map(float, picture.size)))
        found_maps = {
            name: maps_of(method, case.trace, case.classes) for name, method in methods.items()
        }
        laid = {name: lay_out(maps, box, picture.size) for name, maps in found_maps.items()}
        for k, title in enumerate(case.names):
            overlays = {
                name: display.overlay(
                    picture,
                    maps[k].numpy(),
                    box,
                    display.fitted_to(found_maps[name][k], display.Style()),
                )
                for name, maps in laid.items()
            }
            outline = None if case.masks is None else case.masks[k].numpy()
            rows.append(SheetRow(picture, title, overlays, notes_on(found_maps, k), outline))
    return sheet(rows, caption)
