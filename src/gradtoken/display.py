"""How relevance is shown. Every display choice and its default is stated here, and only here.

Maps are kept raw and signed; what is drawn is a choice: by default positive relevance only, scaled
to its own largest value, over a dimmed picture. Colours are readable for colour-blind eyes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
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
    scale = style.scale if style.scale is not None else float(np.abs(shown).max(initial=0))
    if scale <= 0:
        return np.zeros_like(shown)
    shown = (shown / scale).clip(-1, 1)
    return np.where(np.abs(shown) < style.threshold, 0, shown)


def overlay(
    picture: Image.Image, relevance: np.ndarray[Any, Any], box: Box, style: Style
) -> Image.Image:
    """A map (H, W) in colour over its picture; what the model never saw is shaded.

    Args:
        picture: RGB, as large as the map.
        box: the part of the picture that was the model's input.
    """
    shown = normalised(relevance, style)
    colour = mpl.colormaps[SIGNED_MAP if style.signed else POSITIVE_MAP]
    heat = colour((shown + 1) / 2 if style.signed else shown)[..., :3]
    pixels = np.asarray(picture, dtype=np.float64) / 255
    grey = pixels.mean(axis=-1, keepdims=True)
    backdrop = 0.35 * pixels + 0.4 * grey + 0.05
    weight = style.opacity * np.sqrt(np.abs(shown))[..., None]
    blended = (1 - weight) * backdrop + weight * heat
    unseen = np.ones(shown.shape, dtype=bool)
    left, top, right, bottom = box.visible(picture.size)
    unseen[top:bottom, left:right] = False
    blended[unseen] = 0.5 * grey[unseen] + 0.25
    return Image.fromarray((blended.clip(0, 1) * 255).round().astype(np.uint8))
