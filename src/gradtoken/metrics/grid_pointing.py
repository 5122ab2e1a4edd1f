"""The grid pointing game (Böhle, Fritz, Schiele, CVPR 2021), for data without masks."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.errors import MethodError


def mosaic(
    images: Float[Tensor, "cells channels height width"], size: tuple[int, int]
) -> Float[Tensor, "1 channels high wide"]:
    """n x n images of one class each as one image of `size`, in reading order.

    Args:
        images: preprocessed, n * n of them.
        size: (height, width) of the model's input; multiples of n.

    Raises:
        MethodError: not a square number of images, or a size that n does not divide.
    """
    side = math.isqrt(len(images))
    if side * side != len(images) or size[0] % side or size[1] % side:
        raise MethodError(
            f"{len(images)} images make no square mosaic of {size[0]}x{size[1]} pixels; give 4 "
            "or 9 and a size that their side divides."
        )
    cells = F.interpolate(
        images, (size[0] // side, size[1] // side), mode="bilinear", antialias=True
    )
    return (
        cells.unflatten(0, (side, side)).permute(2, 0, 3, 1, 4).reshape(1, images.shape[1], *size)
    )


def grid_pointing(maps: Float[Tensor, "cells high wide"], side: int) -> Float[Tensor, " cells"]:
    """The share of the positive relevance of each cell's class that lies in its own cell.

    Chance is 1 / cells; 0 for a map without positive relevance.

    Args:
        maps: of each cell's class, on the mosaic.
        side: n, cells in a row.

    Raises:
        MethodError: not a map for each cell, or a size that n does not divide.
    """
    if len(maps) != side * side or maps.shape[1] % side or maps.shape[2] % side:
        raise MethodError(
            f"{len(maps)} maps of {maps.shape[1]}x{maps.shape[2]} pixels are not those of a mosaic "
            f"of {side}x{side} cells; give a map for each cell, of a size that {side} divides."
        )
    positive = maps.double().clamp_min(0)
    height, width = positive.shape[1] // side, positive.shape[2] // side
    cells = positive.unflatten(2, (side, width)).unflatten(1, (side, height)).sum(dim=(2, 4))
    flat = cells.flatten(1)
    return flat.diagonal() / flat.sum(1).where(flat.sum(1) > 0, 1)
