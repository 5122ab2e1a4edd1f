"""The coupling of the maps, and methods side by side, as HTML tables."""

from __future__ import annotations

import matplotlib as mpl

from gradtoken.app.choices import called
from gradtoken.app.maps import heats
from gradtoken.app.markup import esc
from gradtoken.app.pictures import Shown
from gradtoken.attribution import methods
from gradtoken.errors import TargetError
from gradtoken.explanation import style as display
from gradtoken.explanation.explanation import Explanation
from gradtoken.explanation.style import Style
from gradtoken.metrics.coupling import coupling, pairwise_correlation


def coupling_figure(explanation: Explanation | None) -> str:
    """How alike the maps are, pair by pair; nothing for fewer than two maps."""
    if explanation is None or explanation.tokens.shape[1] < 2:
        return ""
    try:
        mean = coupling(explanation)
        pairs = pairwise_correlation(explanation.tokens.flatten(2))[0].tolist()
    except TargetError as error:
        return f'<p class="gt-note">No coupling: {esc(error)}</p>'
    labels = called(explanation)
    count, values = len(labels), iter(pairs)
    matrix = [[1.0] * count for _ in labels]
    for row in range(count):
        for column in range(row + 1, count):
            matrix[row][column] = matrix[column][row] = next(values)
    head = "".join(f'<th scope="col">{esc(label)}</th>' for label in labels)
    lines = "".join(
        f'<tr><th scope="row">{esc(label)}</th>{"".join(map(_cell, row))}</tr>'
        for label, row in zip(labels, matrix, strict=True)
    )
    return (
        f'<p class="gt-coupling-says"><strong>Semantic coupling {mean:.2f}</strong>: how alike '
        "the maps are; 1 is the same map for every class, 0 and below are maps apart.</p>"
        '<div class="gt-scroll" tabindex="0" role="region" aria-label="Semantic coupling">'
        '<table class="gt-coupling">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def comparison(found: dict[str, Explanation | str], shown: Shown, style: Style) -> str:
    """A row per target, a column per method; a sentence where a method cannot serve the model."""
    works = {name: result for name, result in found.items() if isinstance(result, Explanation)}
    refusals = "".join(
        f'<p class="gt-note">{esc(name)}: {esc(reason)}</p>'
        for name, reason in found.items()
        if isinstance(reason, str)
    )
    if not works:
        return refusals
    drawn = {name: heats(result, shown, style) for name, result in works.items()}
    known = methods()
    head = "".join(
        f'<th scope="col">{esc(name)}<small>'
        f"{'per class' if known[name].class_aware else 'same for all classes'}</small></th>"
        for name in works
    )
    labels = called(next(iter(works.values())))
    lines = "".join(
        f'<tr><th scope="row">{esc(label)}</th>'
        + "".join(
            f'<td><div class="gt-picture" role="img" '
            f'aria-label="{esc(f"Relevance for {label} by {name}")}">'
            f'<img class="gt-heat" alt="" src="{uris[k]}"></div></td>'
            for name, uris in drawn.items()
        )
        + "</tr>"
        for k, label in enumerate(labels)
    )
    foot = "".join(f"<td>{_coupling_of(result)}</td>" for result in works.values())
    return (
        f'<div class="gt-scroll" tabindex="0" role="region" aria-label="Methods side by side">'
        f'<table class="gt-methods"><thead><tr><td></td>{head}</tr></thead><tbody>{lines}'
        f'<tr><th scope="row">coupling</th>{foot}</tr></tbody></table></div>{refusals}'
    )


def _coupling_of(explanation: Explanation) -> str:
    try:
        return f"{coupling(explanation):.2f}"
    except TargetError:
        return "–"


def _cell(value: float) -> str:
    red, green, blue, _ = mpl.colormaps[display.SIGNED_MAP](0.5 + value / 2, bytes=True)
    ink = "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"
    return f'<td style="background: rgb({red}, {green}, {blue}); color: {ink}">{value:.2f}</td>'
