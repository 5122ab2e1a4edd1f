"""Redraw a training sprite in another manner, so that no single style is learned."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

Array = np.ndarray
# Share of coloured sprites that stay as they were drawn.
PLAIN = 0.5
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
AXIS = np.full((3, 3), 1 / 3, np.float32)
CROSS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], np.float32) / math.sqrt(3)


def restyle(rng: np.random.Generator, image: Array, solid: Array | None) -> Array:
    """Change colours, shading, outlines and sharpness of a sprite.

    ``image`` is RGBA uint8 (h, w, 4), ``solid`` the filled silhouette of a line drawing, uint8
    (h, w), or None. Returns RGBA uint8 (h, w, 4); the silhouette stays, up to outlines and holes.
    """
    if solid is None and rng.random() < PLAIN:
        return image
    colour = image[..., :3].astype(np.float32) / 255
    alpha = image[..., 3].astype(np.float32) / 255
    if solid is not None:
        colour, alpha = ink(rng, colour, alpha, solid.astype(np.float32) / 255)
    else:
        if rng.random() < 0.1:
            colour = trace(rng, colour, alpha)
        colour = recolour(rng, colour)
    colour = tone(rng, colour)
    if rng.random() < 0.1:
        colour, alpha = border(rng, colour, alpha)
    if rng.random() < 0.08:
        colour = colour + rng.normal(0, rng.uniform(0.02, 0.08), colour.shape).astype(np.float32)
    out = np.concatenate([colour, alpha[..., None]], axis=-1)
    out = (np.clip(out, 0, 1) * 255 + 0.5).astype(np.uint8)
    if rng.random() < 0.08:
        blur = ImageFilter.GaussianBlur(rng.uniform(0.4, 0.9))
        out = np.array(Image.fromarray(out).convert("RGBa").filter(blur).convert("RGBA"))
    return out


def ink(rng: np.random.Generator, colour: Array, alpha: Array, solid: Array) -> tuple[Array, Array]:
    """Draw the lines in a random colour and, mostly, fill the silhouette with another one.

    Shapes: ``colour`` (h, w, 3), ``alpha`` and ``solid`` (h, w); returns new colour and alpha.
    """
    line = random_colour(rng) if rng.random() < 0.6 else np.zeros(3, np.float32)
    if rng.random() < 0.25:
        return np.broadcast_to(line, colour.shape), alpha
    fill = random_colour(rng) if rng.random() < 0.75 else np.ones(3, np.float32)
    weight = alpha[..., None]
    return line * weight + fill * (1 - weight), np.maximum(alpha, solid)


def recolour(rng: np.random.Generator, colour: Array) -> Array:
    """Rotate hues, swap channels, invert, grey out or replace colours, (h, w, 3) to (h, w, 3).

    Most sprites keep colours near their own, because colour is evidence too.
    """
    kind = rng.random()
    if kind < 0.62:
        return saturate(rotate(colour, rng.normal(0, 0.25)), rng.uniform(0.5, 1.5))
    if kind < 0.80:
        return saturate(rotate(colour, rng.uniform(-math.pi, math.pi)), rng.uniform(0.4, 1.4))
    if kind < 0.85:
        return colour[..., rng.permutation(3)]
    if kind < 0.89:
        return rotate(1 - colour, rng.uniform(-math.pi, math.pi))
    grey = (colour @ LUMA)[..., None]
    if kind < 0.95:
        return np.broadcast_to(grey, colour.shape)
    dark, light = random_colour(rng), random_colour(rng)
    return dark + grey * (light - dark)


def tone(rng: np.random.Generator, colour: Array) -> Array:
    """Gamma, contrast, brightness and posterisation, (h, w, 3) to (h, w, 3)."""
    if rng.random() < 0.35:
        colour = np.clip(colour, 1e-4, 1) ** np.float32(math.exp(rng.normal(0, 0.4)))
    if rng.random() < 0.5:
        middle = colour.mean()
        colour = (colour - middle) * rng.uniform(0.65, 1.4) + middle + rng.normal(0, 0.08)
    if rng.random() < 0.15:
        levels = rng.integers(2, 6)
        colour = np.round(colour * levels) / levels
    return colour.astype(np.float32)


def trace(rng: np.random.Generator, colour: Array, alpha: Array) -> Array:
    """Draw the inner edges as lines, over the old colours or over one flat colour.

    Shapes: ``colour`` (h, w, 3), ``alpha`` (h, w); returns (h, w, 3).
    """
    grey = (colour @ LUMA) * alpha + (1 - alpha)
    edge = np.zeros_like(grey)
    edge[1:, :] += np.abs(np.diff(grey, axis=0))
    edge[:, 1:] += np.abs(np.diff(grey, axis=1))
    strength = np.clip(edge * rng.uniform(2, 6), 0, 1)[..., None]
    line = np.zeros(3, np.float32) if rng.random() < 0.7 else random_colour(rng)
    if rng.random() < 0.5:
        colour = np.broadcast_to(random_colour(rng), colour.shape)
    return colour * (1 - strength) + line * strength


def border(rng: np.random.Generator, colour: Array, alpha: Array) -> tuple[Array, Array]:
    """A contour around the silhouette, as on a sticker: new colour (h, w, 3), alpha (h, w)."""
    width = 3 if rng.random() < 0.7 else 5
    flat = Image.fromarray((alpha * 255).astype(np.uint8))
    grown = np.asarray(flat.filter(ImageFilter.MaxFilter(width)), np.float32) / 255
    weight = alpha[..., None]
    pick = rng.random()
    edge = np.full(3, float(pick < 0.4), np.float32) if pick < 0.8 else random_colour(rng)
    return colour * weight + edge * (1 - weight), grown


def rotate(colour: Array, angle: float) -> Array:
    """Rotate hues by ``angle`` radians about the grey axis, (h, w, 3) to (h, w, 3)."""
    eye = np.eye(3, dtype=np.float32)
    matrix = math.cos(angle) * eye + (1 - math.cos(angle)) * AXIS + math.sin(angle) * CROSS
    return colour @ matrix.T.astype(np.float32)


def saturate(colour: Array, factor: float) -> Array:
    """Multiply the distance from grey by ``factor``, (h, w, 3) to (h, w, 3)."""
    grey = (colour @ LUMA)[..., None]
    return grey + (colour - grey) * np.float32(factor)


def random_colour(rng: np.random.Generator) -> Array:
    """Any colour, float32 (3,) from 0 to 1."""
    return rng.random(3, dtype=np.float32)
