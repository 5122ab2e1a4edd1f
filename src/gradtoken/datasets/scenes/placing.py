"""Turn, scale, mirror and gently bend a sprite."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from gradtoken.datasets.scenes.sprites import PAD, Sprite

Array = np.ndarray
MAX_ANGLE = 20.0


def draw(
    rng: np.random.Generator, sprite: Sprite, extent: float, bend: float = 0.0
) -> tuple[Array, Array | None]:
    """A randomly turned and mirrored sprite whose longer side is about ``extent`` pixels.

    ``bend`` is the standard deviation, relative to the sprite, of a smooth random distortion
    (0: none). Returns RGBA uint8 (h, w, 4) and, for line drawings, the filled silhouette
    uint8 (h, w), else None.
    """
    level = sprite.level(extent)
    source = np.array(level.image.size, float) - 2 * PAD
    stretch = np.exp(rng.normal(0, 0.08, 2)) if bend else np.ones(2)
    angle = math.radians(rng.uniform(-MAX_ANGLE, MAX_ANGLE))
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    box = np.abs(turn) @ (source * stretch)
    scale = extent / box.max()
    width, height = np.maximum(np.ceil(box * scale).astype(int), 4)
    mirror = np.array([rng.choice((-1.0, 1.0)), 1.0])

    cells = 3 if bend else 1
    columns = np.round(np.linspace(0, width, cells + 1)).astype(int)
    rows = np.round(np.linspace(0, height, cells + 1)).astype(int)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1)
    centred = grid - np.array([width, height]) / 2
    points = centred @ turn / scale / stretch * mirror + source / 2 + PAD
    if bend:
        points = points + rng.normal(0, bend, points.shape) * source
    mesh = [
        (
            (int(columns[j]), int(rows[i]), int(columns[j + 1]), int(rows[i + 1])),
            tuple(
                np.concatenate(
                    [points[i, j], points[i + 1, j], points[i + 1, j + 1], points[i, j + 1]]
                ).tolist()
            ),
        )
        for i in range(cells)
        for j in range(cells)
    ]
    size = (int(width), int(height))
    bilinear, warp = Image.Resampling.BILINEAR, Image.Transform.MESH
    image = np.array(level.image.transform(size, warp, mesh, bilinear))
    if level.solid is None:
        return image, None
    return image, np.array(level.solid.transform(size, warp, mesh, bilinear))
