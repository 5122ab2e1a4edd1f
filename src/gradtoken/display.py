"""How relevance is shown. Every display choice and its default is stated here, and only here.

Maps are kept raw and signed; what is drawn is a choice: by default positive relevance only, scaled
to its own largest value, over a dimmed picture. Colours are readable for colour-blind eyes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap
from PIL import Image

from gradtoken.geometry import Box

POSITIVE_MAP = "inferno"
SIGNED_MAP = "RdBu_r"
MAX_SIDE = 1024
"""Overlays of larger pictures are drawn at this size."""


@dataclass(frozen=True)
class Style:
    """Display choices.

    Args:
        signed: also show negative relevance (blue) instead of positive only.
        opacity: of the colours where relevance is largest, 0 to 1.
        threshold: hide relevance below this fraction of the largest, 0 to 1.
        scale: the value shown as full colour; None is the map's own largest.
    """

    signed: bool = False
    opacity: float = 0.85
    threshold: float = 0.0
    scale: float | None = None


def normalised(relevance: np.ndarray[Any, Any], style: Style) -> np.ndarray[Any, Any]:
    """A map (H, W) in 0..1, or in -1..1 where signed, as it is coloured."""
    shown = relevance if style.signed else relevance.clip(min=0)
    scale = style.scale if style.scale is not None else full_colour(relevance, style)
    if scale <= 0:
        return np.zeros_like(shown)
    shown = (shown / scale).clip(-1, 1)
    return np.where(np.abs(shown) < style.threshold, 0, shown)


def full_colour(relevance: np.ndarray[Any, Any], style: Style) -> float:
    """The largest value that is shown of a map, or of several, which gets the full colour."""
    shown = relevance if style.signed else relevance.clip(min=0)
    return float(np.abs(shown).max(initial=0))


def fitted(picture: Image.Image, box: Box, side: int = MAX_SIDE) -> tuple[Image.Image, Box]:
    """A picture, and a box on it, made smaller if a side is longer than `side` pixels."""
    factor = side / max(picture.size)
    if factor >= 1:
        return picture, box
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    edges = (edge * size[i % 2] / picture.size[i % 2] for i, edge in enumerate(box))
    return picture.resize(size, Image.Resampling.LANCZOS), Box(*edges)


def overlay(
    picture: Image.Image, relevance: np.ndarray[Any, Any], box: Box, style: Style
) -> Image.Image:
    """A map (H, W) in colour over its picture; what the model never saw is shaded.

    Args:
        picture: RGB, as large as the map.
        box: the part of the picture that was the model's input.
    """
    pixels = np.asarray(picture, dtype=np.float64) / 255
    grey = pixels.mean(axis=-1, keepdims=True)
    blended = _coloured(_dimmed(pixels, grey), normalised(relevance, style), style)
    unseen = np.ones(relevance.shape, dtype=bool)
    left, top, right, bottom = box.visible(picture.size)
    unseen[top:bottom, left:right] = False
    blended[unseen] = 0.5 * grey[unseen] + 0.25
    return Image.fromarray((blended.clip(0, 1) * 255).round().astype(np.uint8))


def legend(style: Style) -> ListedColormap:
    """The colours of values 0 to 1 (-1 to 1 where signed) as they are seen over mid-grey."""
    values = np.linspace(-1 if style.signed else 0, 1, 256)
    backdrop = _dimmed(np.full((256, 3), 0.5), np.full((256, 1), 0.5))
    return ListedColormap(_coloured(backdrop, normalised(values, replace(style, scale=1)), style))


def _dimmed(pixels: np.ndarray[Any, Any], grey: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    dimmed: np.ndarray[Any, Any] = 0.35 * pixels + 0.4 * grey + 0.05
    return dimmed


def _coloured(
    backdrop: np.ndarray[Any, Any], shown: np.ndarray[Any, Any], style: Style
) -> np.ndarray[Any, Any]:
    """Values in 0..1, or -1..1 where signed, in colour over a backdrop (…, 3)."""
    colour = mpl.colormaps[SIGNED_MAP if style.signed else POSITIVE_MAP]
    heat = colour((shown + 1) / 2 if style.signed else shown)[..., :3]
    weight = style.opacity * np.sqrt(np.abs(shown))[..., None]
    blended: np.ndarray[Any, Any] = (1 - weight) * backdrop + weight * heat
    return blended
