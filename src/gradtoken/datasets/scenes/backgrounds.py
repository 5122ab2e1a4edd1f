"""Procedural backgrounds without any object in them."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from PIL import Image

Array = np.ndarray


def background(rng: np.random.Generator, size: int) -> Array:
    """A random texture between two or three related colours, uint8 (size, size, 3)."""
    paint = PAINTERS[rng.integers(len(PAINTERS))]
    first, second = colours(rng)
    weight = paint(rng, size)[..., None]
    image = first + weight * (second - first)
    if rng.random() < 0.5:
        grain = rng.integers(-12, 13, (size, size, 1)) * rng.random()
        image = image + grain
    return np.clip(image, 0, 255).astype(np.uint8)


def colours(rng: np.random.Generator) -> tuple[Array, Array]:
    """Two moderately different colours, float32 (3,) each, on the scale 0 to 255."""
    hue, saturation, value = rng.random(), rng.random() ** 1.5 * 0.8, rng.uniform(0.1, 1.0)
    first = colorsys.hsv_to_rgb(hue, saturation, value)
    second = colorsys.hsv_to_rgb(
        (hue + rng.normal(0, 0.12)) % 1.0,
        np.clip(saturation + rng.normal(0, 0.2), 0, 0.9),
        np.clip(value + rng.normal(0, 0.22), 0.05, 1.0),
    )
    return np.array(first, np.float32) * 255, np.array(second, np.float32) * 255


def gradient(rng: np.random.Generator, size: int) -> Array:
    """A straight gradient in a random direction, (size, size) from 0 to 1."""
    ramp = _ramp(rng, size)
    return (ramp - ramp.min()) / (np.ptp(ramp) + 1e-6)


def noise(rng: np.random.Generator, size: int) -> Array:
    """Smoothed noise of a random coarseness, (size, size) about 0 to 1."""
    cells = int(rng.integers(2, 12))
    coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def blotches(rng: np.random.Generator, size: int) -> Array:
    """Smoothed noise cut into two or three flat tones, (size, size) from 0 to 1."""
    tones = int(rng.integers(2, 4))
    return np.clip(np.floor(noise(rng, size) * tones), 0, tones - 1) / (tones - 1)


def stripes(rng: np.random.Generator, size: int) -> Array:
    """Stripes of a random direction and width, (size, size) from 0 to 1."""
    wave = np.sin(_ramp(rng, size) * (2 * np.pi / rng.uniform(6, 40)))
    return (wave > 0).astype(np.float32) if rng.random() < 0.5 else (wave + 1) / 2


def checks(rng: np.random.Generator, size: int) -> Array:
    """A checked pattern with a random cell, (size, size) of 0 and 1."""
    cell = int(rng.integers(4, 24))
    line = (np.arange(size) + int(rng.integers(cell))) // cell % 2
    return (line[:, None] ^ line[None, :]).astype(np.float32)


def plain(_rng: np.random.Generator, size: int) -> Array:
    """One flat tone, (size, size) of zeros."""
    return np.zeros((size, size), np.float32)


PAINTERS: tuple[Callable[[np.random.Generator, int], Array], ...] = (
    gradient,
    noise,
    noise,
    blotches,
    stripes,
    checks,
    plain,
)


def _ramp(rng: np.random.Generator, size: int) -> Array:
    """Pixels along a random direction, float32 (size, size)."""
    angle = rng.uniform(0, 2 * np.pi)
    steps = np.arange(size, dtype=np.float32)
    return steps[:, None] * np.float32(np.sin(angle)) + steps * np.float32(np.cos(angle))
