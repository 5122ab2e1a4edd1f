"""`gradtoken batch report`: a page and a picture that help to find a model's shortcuts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

from PIL import Image

from gradtoken.batch.plan import Plan, items_of
from gradtoken.batch.results.folder import Folder
from gradtoken.batch.results.manifest import read_manifest
from gradtoken.batch.results.plots import draw
from gradtoken.batch.results.read import Map, read
from gradtoken.batch.results.summarising import BORDER, CENTRE, COLUMNS, Example, Figures, summarise
from gradtoken.batch.sources.fetch import fetch
from gradtoken.errors import DatasetError, GradTokenError, OutputError
from gradtoken.explanation.evidence import LEAST
from gradtoken.images.load_image import load_image

PAGE, PICTURE = "report.md", "report.png"


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
        classes: how many of the most frequent classes are shown.
        examples: how many of the most border-driven predictions are shown, with their pictures
            where these are still where they were.
        options: for fsspec.

    Returns:
        The files written.

    Raises:
        DatasetError: no run, or no map in it.
        OutputError: the page cannot be written.
    """
    place = Folder(str(folder), options)
    if out is None and not place.local:
        raise OutputError(f"{folder} is not on this machine; give --out for the report.")
    figures = summarise(read(folder, errors=None, options=options).batches(COLUMNS), examples)
    if not figures.maps:
        raise DatasetError(f"there is no map in {folder} to report on.")
    found = read_manifest(place)
    assert found is not None
    settings, plan = found
    target = Path(out if out is not None else place.path(""))
    shown = [_picture(place, plan, settings, one, options) for one in figures.examples]
    paths = [target / PICTURE, target / PAGE]
    part = target / f".part-{PICTURE}"
    try:
        target.mkdir(parents=True, exist_ok=True)
        draw(figures, shown, classes).savefig(part, dpi=110, format="png")
        part.replace(paths[0])
        page = target / f".part-{PAGE}"
        page.write_text(_page(figures, settings, plan, classes), "utf-8")
        page.replace(paths[1])
    except OSError as error:
        raise OutputError(f"cannot write to {target}: {error.strerror or error}.") from None
    finally:
        part.unlink(missing_ok=True)
    return paths


def _picture(
    folder: Folder,
    plan: Plan,
    settings: Mapping[str, Any],
    example: Example,
    options: Mapping[str, Any] | None,
) -> Image.Image | None:
    """An example's overlay, or None if its picture is not there or not the same any more."""
    shard, place = divmod(example.number, plan.shard_size)
    item = items_of(folder, plan, shard)[place]
    column = settings["source"].get("image")
    try:
        ((_, content),) = fetch([item], options or {}, column)
        if not isinstance(content, bytes):
            return None
        if hashlib.sha256(content).hexdigest() != example.sha256:
            return None
        picture = load_image(content, max_pixels=settings["max_pixels"])
        return _map_of(folder, example, options).overlay(picture)
    except GradTokenError:
        return None


def _map_of(folder: Folder, example: Example, options: Mapping[str, Any] | None) -> Map:
    found = read(folder.name, ids=example.id, options=options)
    return next(one for one in found if one.index == example.number and one.rank == example.rank)


def _page(figures: Figures, settings: Mapping[str, Any], plan: Plan, classes: int) -> str:
    border = 1 - (1 - 2 * BORDER) ** 2
    lines = [
        "# Relevance over a data set",
        "",
        f"Model {_cell(settings['model'])}, method {_cell(settings['method'])}, source "
        f"{_cell(settings['source']['spec'])}: {figures.pictures:,} of {plan.pictures:,} pictures, "
        f"{figures.maps:,} maps, {figures.failed:,} failed.",
        "",
        f"Maps without positive evidence (less than {LEAST:.0%} of their absolute relevance is "
        f"positive): {figures.maps - figures.weighed:,}. They are left out of all that follows but "
        "the numbers of maps.",
        "",
        f"The centre is the middle {CENTRE:.0%} of the model's input in height and in width. "
        "Shares are of a map's positive relevance. A map that is the same everywhere has "
        f"{figures.uniform[0]:.0%} outside the centre and {border:.0%} in the border, the outer "
        f"{BORDER:.1%} on each side. Classes or predictions far above that deserve a look: is it "
        "the object, or a frame, a caption, a background?",
        "",
        f"![Report]({PICTURE})",
        "",
        "## Classes",
        "",
        "| class | maps | without evidence | outside the centre | in the border |",
        "|---|---:|---:|---:|---:|",
    ]
    frequent = sorted(figures.classes.items(), key=lambda item: (-item[1].maps, item[0]))
    for name, found in frequent[: max(classes, 50)]:
        shares = [
            f"{value / found.weighed:.1%}" if found.weighed else "–"
            for value in (found.outside, found.border)
        ]
        counts = f"{found.maps:,} | {found.maps - found.weighed:,}"
        lines.append(f"| {_cell(name)} | {counts} | {shares[0]} | {shares[1]} |")
    if len(frequent) > max(classes, 50):
        lines.append(f"\n{len(frequent):,} classes in all; the most frequent are shown.")
    lines += ["", "## Most border-driven predictions", ""]
    lines += ["| picture | class | probability | in the border |", "|---|---|---:|---:|"]
    for one in figures.examples:
        said = f"y = {one.score:.3f}" if isnan(one.probability) else f"{one.probability:.3f}"
        row = (_cell(one.id), _cell(one.target), said, f"{one.border:.1%}")
        lines.append("| " + " | ".join(row) + " |")
    if figures.errors:
        lines += ["", "## Errors", "", "| picture | error |", "|---|---|"]
        lines += [f"| {_cell(name)} | {_cell(why)} |" for name, why in figures.errors]
        if figures.failed > len(figures.errors):
            lines.append(f"\nThe first {len(figures.errors)} of {figures.failed:,}.")
    return "\n".join(lines) + "\n"


def _cell(text: Any) -> str:
    """Text that cannot break a table or be taken for markup."""
    plain = " ".join(str(text).split())
    for mark in "\\|`*_[]<>":
        plain = plain.replace(mark, "&#" + str(ord(mark)) + ";")
    return plain
