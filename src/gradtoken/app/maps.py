"""The maps side by side, as HTML: colours that lie over one picture, and the patches' numbers."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass

import numpy as np

from gradtoken.app.asking import Asked
from gradtoken.app.choices import called, percent
from gradtoken.app.markup import colour_bar, esc, heat_uri, photo_uri
from gradtoken.app.pictures import Shown, scaled
from gradtoken.explanation import style as display
from gradtoken.explanation.evidence import evidence_of
from gradtoken.explanation.explanation import Explanation
from gradtoken.explanation.style import Style
from gradtoken.images.box import Box
from gradtoken.images.patch_grid import lay_out

_HEAT_SIDE = 384
"""Pixels of the longer side of the colours; the page scales them to the picture."""


@dataclass(frozen=True)
class View:
    """How maps are looked at; nothing in it needs the model.

    Args:
        opacity: as in `Style`.
        threshold: as in `Style`.
        smoothing: as in `Style`.
        signed: as in `Style`.
        first: first block that counts, from 1.
        last: last block that counts, from 1; None for the model's last one.
    """

    opacity: float = Style.opacity
    threshold: float = Style.threshold
    smoothing: float = Style.smoothing
    signed: bool = Style.signed
    first: int = 1
    last: int | None = None

    @property
    def style(self) -> Style:
        """The display choices."""
        return Style(self.signed, self.opacity, self.threshold, smoothing=self.smoothing)

    def of(self, asked: Asked) -> Explanation:
        """The explanation by the blocks that count."""
        return asked.of_blocks(self.first, asked.blocks if self.last is None else self.last)


def scenery(shown: Shown) -> str:
    """The picture and its backdrop, once for all maps, as variables of the page's style."""
    under = display.backdrop(shown.picture, shown.box)
    return (
        f"<style>:root {{ --gt-picture: url({photo_uri(shown.picture)}); "
        f"--gt-backdrop: url({photo_uri(under)}); "
        f"--gt-shape: {shown.picture.width} / {shown.picture.height}; }}</style>"
    )


def heats(explanation: Explanation, shown: Shown, style: Style) -> list[str]:
    """Each target's colours, as large as the picture in proportion, as data URIs."""
    factor = _HEAT_SIDE / max(shown.picture.size)
    size = (
        max(1, round(shown.picture.width * factor)),
        max(1, round(shown.picture.height * factor)),
    )
    box = scaled(shown.box, shown.picture.size, size)
    tokens = display.smoothed(explanation.tokens[0], style)
    styles = [display.fitted_to(one, style) for one in explanation.tokens[0]]
    values = lay_out(tokens, box, size).numpy()
    return [heat_uri(display.heat(one, fitted)) for one, fitted in zip(values, styles, strict=True)]


def draw(explanation: Explanation | None, shown: Shown, name: str, view: View) -> str:
    """The picture and every target's map beside it."""
    cards = [
        f'<figure class="gt-card"><div class="gt-picture gt-plain" role="img" '
        f'aria-label="{esc(f"The picture, {name}")}"></div>'
        f"<figcaption><strong>the picture</strong><span>{esc(name)}</span></figcaption></figure>"
    ]
    if explanation is None:
        return (
            f'<div class="gt-maps"><div class="gt-cards">{cards[0]}</div>'
            '<p class="gt-note">Tick a class to see its map.</p></div>'
        )
    for k, uri in enumerate(heats(explanation, shown, view.style)):
        cards.append(_card(explanation, k, uri))
    return (
        f'<div class="gt-maps" {_numbers(explanation, shown)}>'
        f'<div class="gt-cards">{"".join(cards)}</div>{legend(view.signed)}'
        '<div class="gt-readout" aria-live="polite"></div>'
        f'<p class="gt-note">{esc(_caption(explanation))}</p></div>'
    )


def legend(signed: bool) -> str:
    """What the colours mean."""
    low, high = ("speaks against", "speaks for") if signed else ("no relevance", "largest")
    return (
        f'<div class="gt-legend"><span>{low}</span>'
        f'<span class="gt-bar" style="background-image: {colour_bar(signed)}"></span>'
        f"<span>{high}</span></div>"
    )


def says(explanation: Explanation, k: int) -> str:
    """A target's probability, or its score where it has none; and that its map has no evidence."""
    probability = float(explanation.probabilities[0, k])
    said = percent(probability)
    if math.isnan(probability):
        said = f"score {float(explanation.scores[0, k]):.2f}"
    words = evidence_of(explanation.tokens[0, k]).words()
    return f"{said} · {words}" if words else said


def _card(explanation: Explanation, k: int, uri: str) -> str:
    label = called(explanation)[k]
    height, width = explanation.tokens.shape[-2:]
    row, column = divmod(int(explanation.tokens[0, k].argmax()), width)
    spoken = (
        f"Relevance for {label}, {height} by {width} patches, largest in row {row + 1}, "
        f"column {column + 1}. Arrow keys read the patches."
    )
    return (
        f'<figure class="gt-card"><div class="gt-picture" tabindex="0" role="application" '
        f'aria-roledescription="relevance map" aria-label="{esc(spoken)}" '
        f'data-start="{row * width + column}">'
        f'<img class="gt-heat" alt="" src="{uri}"><span class="gt-cursor" hidden></span></div>'
        f"<figcaption><strong>{esc(label)}</strong><span>{esc(says(explanation, k))}</span>"
        "</figcaption></figure>"
    )


def _numbers(explanation: Explanation, shown: Shown) -> str:
    """Raw relevance (K, h, w) as little-endian float32, and where the grid lies on the picture."""
    tokens = explanation.tokens[0].numpy().astype(np.dtype("<f4"))
    width, height = shown.picture.size
    edges = Box(*shown.box)
    box = (edges.left / width, edges.top / height, edges.right / width, edges.bottom / height)
    labels = called(explanation)
    return (
        f'data-tokens="{base64.b64encode(tokens.tobytes()).decode()}" '
        f'data-grid="{tokens.shape[1]} {tokens.shape[2]}" '
        f'data-box="{" ".join(f"{edge:.6f}" for edge in box)}" '
        f'data-labels="{esc(json.dumps(labels))}"'
    )


def _caption(explanation: Explanation) -> str:
    about = explanation.about
    layers = about["method"]["options"].get("layers", "all")
    blocks = "all blocks" if layers == "all" else f"blocks {layers[0] + 1} to {layers[-1] + 1}"
    return (
        f"{about['method']['name']}, {blocks}, on {about['model']['spec']}. Point at a patch, "
        "click it, or move over a map with the arrow keys to read its relevance for every class."
    )
