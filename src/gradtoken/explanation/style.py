"""Drawing of relevance maps. All display options and their defaults are defined here.

Maps are kept raw and signed; the display is an option: by default positive relevance only, scaled
to its own largest value, over a dimmed image. A map without positive evidence is not scaled up to
full colour (`fitted_to`). The colours are distinguishable with colour-blindness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image
from torch import Tensor

from gradtoken.explanation.evidence import evidence_of
from gradtoken.images.box import Box
from gradtoken.images.smoothing import spread_by_nearness

POSITIVE_MAP = "inferno"
SIGNED_MAP = "RdBu_r"
MAX_SIDE = 1024
"""The longest side of an overlay in pixels; larger images are made smaller."""


@dataclass(frozen=True)
class Style:
    """Display options.

    Args:
        signed: show negative relevance (blue) too, not only positive.
        opacity: of the colours where relevance is largest, 0 to 1.
        threshold: hide relevance below this fraction of the largest, 0 to 1.
        scale: the value shown as full colour; None is the map's own largest.
        smoothing: standard deviation, in tokens, of a Gaussian over the map; 0 shows it as it is.
    """

    signed: bool = False
    opacity: float = 0.85
    threshold: float = 0.0
    scale: float | None = None
    smoothing: float = 0.0


def full_without_evidence(tokens: Tensor) -> float:
    """The full colour of a map (h, w) without positive evidence; 0 for one that has some.

    It is the largest absolute relevance divided by the positive share, so that the little positive
    evidence stays faint, also where it is concentrated in few tokens.
    """
    evidence = evidence_of(tokens)
    if not bool(evidence.none):
        return 0.0
    return float(tokens.abs().max()) / (float(evidence.positive) or 1.0)


def fitted_to(tokens: Tensor, style: Style) -> Style:
    """The style for a map (h, w): without positive evidence, it is not drawn in full colour.

    A signed style is unchanged: it shows negative relevance as such.
    """
    full = 0.0 if style.signed else full_without_evidence(tokens)
    return replace(style, scale=max(full, style.scale or 0.0)) if full else style


def smoothed(tokens: Tensor, style: Style) -> Tensor:
    """Token maps (K, h, w) with the style's smoothing; its weights sum to 1 at every token."""
    if style.smoothing <= 0:
        return tokens
    grid = (tokens.shape[-2], tokens.shape[-1])
    reach = style.smoothing / math.sqrt(grid[0] * grid[1])
    flat = spread_by_nearness(tokens.flatten(1)[None], grid=grid, reach=reach)
    return flat[0].unflatten(-1, grid).to(tokens.dtype)


def normalised(relevance: np.ndarray[Any, Any], style: Style) -> np.ndarray[Any, Any]:
    """A map (H, W) scaled for colouring: to 0..1, or -1..1 where signed."""
    shown = relevance if style.signed else relevance.clip(min=0)
    scale = style.scale if style.scale is not None else full_colour(relevance, style)
    if scale <= 0:
        return np.zeros_like(shown)
    shown = (shown / scale).clip(-1, 1)
    return np.where(np.abs(shown) < style.threshold, 0, shown)


def full_colour(relevance: np.ndarray[Any, Any], style: Style) -> float:
    """The largest shown value of a map (H, W): its full colour, unless a scale is given."""
    shown = relevance if style.signed else relevance.clip(min=0)
    return float(np.abs(shown).max(initial=0))


def shared_full_colour(
    maps: Sequence[Tensor], laid_out: Sequence[np.ndarray[Any, Any]], style: Style
) -> float:
    """A common full colour for several maps: the largest value of those with positive evidence.

    Args:
        maps: tokens (h, w) of each.
        laid_out: the same on pixels, (H, W).
        style: of their display.
    """
    full = [full_colour(values, style) for values in laid_out]
    if style.signed:
        return max(full)
    kept = [top for top, tokens in zip(full, maps, strict=True) if not evidence_of(tokens).none]
    return max(kept, default=0.0)


def fitted(image: Image.Image, box: Box, side: int = MAX_SIDE) -> tuple[Image.Image, Box]:
    """An image and a box on it, made smaller if a side is longer than `side` pixels."""
    factor = side / max(image.size)
    if factor >= 1:
        return image, box
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    edges = (edge * size[i % 2] / image.size[i % 2] for i, edge in enumerate(box))
    return image.resize(size, Image.Resampling.LANCZOS), Box(*edges)


def overlay(
    image: Image.Image, relevance: np.ndarray[Any, Any], box: Box, style: Style
) -> Image.Image:
    """A map (H, W) in colour over its image; pixels outside of the model's input are shaded.

    Args:
        image: RGB, as large as the map.
        relevance: signed, (H, W).
        box: the part of the image that was the model's input.
        style: of the display.
    """
    shown = normalised(relevance, style)
    colour = mpl.colormaps[SIGNED_MAP if style.signed else POSITIVE_MAP]
    heat = colour((shown + 1) / 2 if style.signed else shown)[..., :3]
    under, outside = _under(image, box)
    weight = np.where(outside, 0, style.opacity * np.sqrt(np.abs(shown)))[..., None]
    return _to_image((1 - weight) * under + weight * heat)


def backdrop(image: Image.Image, box: Box) -> Image.Image:
    """The layer under the colours: the image dimmed, and shaded outside of the model's input."""
    return _to_image(_under(image, box)[0])


def heat(relevance: np.ndarray[Any, Any], style: Style) -> Image.Image:
    """The colours of a map (H, W) alone, to be drawn over its backdrop with the style's opacity.

    Returns:
        An image of mode P whose palette has an alpha: over the backdrop it is `overlay`, except
        for the rounding to 256 levels.
    """
    shown = normalised(relevance, style)
    palette, alpha = _palette(style.signed)
    levels = shown * 127 + 128 if style.signed else shown * 255
    image = Image.fromarray(levels.round().astype(np.uint8))
    image.putpalette(palette)
    image.info["transparency"] = alpha
    return image


@cache
def _palette(signed: bool) -> tuple[bytes, bytes]:
    """RGB and alpha of 256 levels: of 0 to 1, or of -1 to 1 where signed, 0 being level 128."""
    levels = np.arange(256)
    values = ((levels - 128) / 127).clip(-1, 1) if signed else levels / 255
    colour = mpl.colormaps[SIGNED_MAP if signed else POSITIVE_MAP]
    rgb = colour((values + 1) / 2 if signed else values, bytes=True)[:, :3]
    alpha = (np.sqrt(np.abs(values)) * 255).round().astype(np.uint8)
    return rgb.tobytes(), alpha.tobytes()


def _under(image: Image.Image, box: Box) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The backdrop (H, W, 3) in 0..1, and the mask (H, W) of pixels outside of the input."""
    pixels = np.asarray(image, dtype=np.float64) / 255
    grey = pixels.mean(axis=-1, keepdims=True)
    under = 0.35 * pixels + 0.4 * grey + 0.05
    outside = np.ones(pixels.shape[:2], dtype=bool)
    left, top, right, bottom = box.visible(image.size)
    outside[top:bottom, left:right] = False
    under[outside] = 0.5 * grey[outside] + 0.25
    return under, outside


def _to_image(pixels: np.ndarray[Any, Any]) -> Image.Image:
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
