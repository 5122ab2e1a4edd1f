"""`gradtoken batch report`: a page and a figure that help to find a model's shortcuts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

from PIL import Image

from gradtoken import atomic
from gradtoken.batch.plan import items_of
from gradtoken.batch.results.folder import Folder
from gradtoken.batch.results.manifest import Manifest, read_manifest
from gradtoken.batch.results.plots import draw
from gradtoken.batch.results.read import Map, read
from gradtoken.batch.results.summarising import (
    BORDER,
    CENTRE,
    COLUMNS,
    Example,
    Statistics,
    summarise,
)
from gradtoken.batch.sources.fetch import fetch
from gradtoken.errors import DatasetError, GradTokenError, OutputError
from gradtoken.explanation.evidence import LEAST
from gradtoken.images.load_image import load_image

PAGE, FIGURE = "report.md", "report.png"
_CLASS_ROWS = 50
"""Rows of the table of classes at least."""


def report(
    folder: str,
    out: str | os.PathLike[str] | None = None,
    *,
    classes: int = 12,
    examples: int = 12,
    options: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Summarise a run's maps: relevance outside the centre, mean maps, border-driven predictions.

    Args:
        folder: of the run, a path or a URL.
        out: folder for report.md and report.png; None for the run's, if it is on this machine.
        classes: number of classes, the most frequent ones.
        examples: number of predictions, the most border-driven ones, with their images if these
            are unchanged.
        options: for fsspec.

    Returns:
        The files written.

    Raises:
        DatasetError: there is no run in the folder, or no map in the run.
        OutputError: the page cannot be written.
    """
    place = Folder(str(folder), options)
    if out is None and not place.local:
        raise OutputError(f"{folder} is not on this machine; give --out for the report.")
    statistics = summarise(read(folder, errors=None, options=options).batches(COLUMNS), examples)
    if not statistics.maps:
        raise DatasetError(f"there is no map in {folder} to report on.")
    manifest = read_manifest(place)
    assert manifest is not None
    target = Path(out if out is not None else place.path(""))
    overlays = [_overlay(place, manifest, example, options) for example in statistics.examples]
    paths = [target / FIGURE, target / PAGE]
    with atomic.writing(paths[0], f"to {target}") as part:
        draw(statistics, overlays, classes).savefig(part, dpi=110)
    page = _page(statistics, manifest, classes)
    atomic.write_bytes(paths[1], page.encode(), f"to {target}")
    return paths


def _overlay(
    folder: Folder, manifest: Manifest, example: Example, options: Mapping[str, Any] | None
) -> Image.Image | None:
    """An example's overlay, or None if its image is missing or has changed."""
    settings, plan = manifest
    shard, position = divmod(example.number, plan.shard_size)
    item = items_of(folder, plan, shard)[position]
    column = settings["source"].get("image")
    try:
        ((_, content),) = fetch([item], options or {}, column)
        if not isinstance(content, bytes):
            return None
        if hashlib.sha256(content).hexdigest() != example.sha256:
            return None
        image = load_image(content, max_pixels=settings["max_pixels"])
        return _map_of(folder, example, options).overlay(image)
    except GradTokenError:
        return None


def _map_of(folder: Folder, example: Example, options: Mapping[str, Any] | None) -> Map:
    place = (example.number, example.rank)
    results = read(folder.name, ids=example.id, options=options)
    return next(result for result in results if (result.index, result.rank) == place)


def _page(statistics: Statistics, manifest: Manifest, classes: int) -> str:
    """The report in Markdown."""
    lines = [
        *_introduction(statistics, manifest),
        *_class_table(statistics, max(classes, _CLASS_ROWS)),
        *_example_table(statistics),
        *_error_table(statistics),
    ]
    return "\n".join(lines) + "\n"


def _introduction(statistics: Statistics, manifest: Manifest) -> list[str]:
    settings, plan = manifest
    border = 1 - (1 - 2 * BORDER) ** 2
    return [
        "# Relevance over a data set",
        "",
        f"Model {_cell(settings['model'])}, method {_cell(settings['method'])}, source "
        f"{_cell(settings['source']['spec'])}: {statistics.images:,} of {plan.images:,} images, "
        f"{statistics.maps:,} maps, {statistics.failed:,} failed.",
        "",
        f"Maps without positive evidence (less than {LEAST:.0%} of their absolute relevance is "
        f"positive): {statistics.maps - statistics.with_evidence:,}. They are left out of all that "
        "follows but the numbers of maps.",
        "",
        f"The centre is the middle {CENTRE:.0%} of the model's input in height and in width. "
        "Shares are of a map's positive relevance. A map that is the same everywhere has "
        f"{statistics.uniform[0]:.0%} outside the centre and {border:.0%} in the border, the outer "
        f"{BORDER:.1%} on each side. Classes or predictions far above that deserve a look: is it "
        "the object, or a frame, a caption, a background?",
        "",
        f"![Report]({FIGURE})",
    ]


def _class_table(statistics: Statistics, rows: int) -> list[str]:
    """The most frequent classes."""
    lines = [
        "",
        "## Classes",
        "",
        "| class | maps | without evidence | outside the centre | in the border |",
        "|---|---:|---:|---:|---:|",
    ]
    frequent = sorted(statistics.classes.items(), key=lambda item: (-item[1].maps, item[0]))
    for name, of_class in frequent[:rows]:
        count = of_class.with_evidence
        shares = [
            f"{value / count:.1%}" if count else "–"
            for value in (of_class.outside, of_class.border)
        ]
        counts = f"{of_class.maps:,} | {of_class.maps - count:,}"
        lines.append(f"| {_cell(name)} | {counts} | {shares[0]} | {shares[1]} |")
    if len(frequent) > rows:
        lines.append(f"\n{len(frequent):,} classes in all; the most frequent are shown.")
    return lines


def _example_table(statistics: Statistics) -> list[str]:
    lines = ["", "## Most border-driven predictions", ""]
    lines += ["| image | class | probability | in the border |", "|---|---|---:|---:|"]
    for example in statistics.examples:
        no_probability = isnan(example.probability)
        score = f"y = {example.score:.3f}" if no_probability else f"{example.probability:.3f}"
        row = (_cell(example.id), _cell(example.target), score, f"{example.border:.1%}")
        lines.append("| " + " | ".join(row) + " |")
    return lines


def _error_table(statistics: Statistics) -> list[str]:
    """The first images that failed, if any did."""
    if not statistics.errors:
        return []
    lines = ["", "## Errors", "", "| image | error |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(error)} |" for name, error in statistics.errors]
    if statistics.failed > len(statistics.errors):
        lines.append(f"\nThe first {len(statistics.errors)} of {statistics.failed:,}.")
    return lines


def _cell(text: Any) -> str:
    """Text escaped for a cell of a table."""
    plain = " ".join(str(text).split())
    for mark in "\\|`*_[]<>":
        plain = plain.replace(mark, "&#" + str(ord(mark)) + ";")
    return plain
