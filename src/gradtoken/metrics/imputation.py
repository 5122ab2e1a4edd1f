"""Noisy linear imputation (Rong et al., ROAD, ICML 2022): deleted pixels become what their
neighbours are, so that their shape tells the model little.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

_DIRECT, _DIAGONAL = 1 / 6, 1 / 12
_NEIGHBOURS = [
    (down, right, _DIAGONAL if down and right else _DIRECT)
    for down in (-1, 0, 1)
    for right in (-1, 0, 1)
    if down or right
]
"""Steps to the eight neighbours, and their weights."""


def imputed(
    image: Float[Tensor, "channels height width"], away: Bool[Tensor, "height width"]
) -> Float[Tensor, "channels height width"]:
    """An image whose deleted pixels are each the weighted mean of their neighbours.

    Neighbours are the eight around a pixel, those beside it with twice the weight of those at its
    corners; weights of neighbours outside of the image go to the others. As deleted pixels are
    neighbours of each other, this is a system of linear equations. An image without any pixel left
    becomes zeros. Needs the extra `bench` (scipy).

    Args:
        image: preprocessed.
        away: which pixels are deleted.
    """
    from scipy.sparse import coo_matrix, csc_matrix, identity
    from scipy.sparse.linalg import spsolve

    missing = away.cpu().numpy()
    if not missing.any():
        return image
    if missing.all():
        return torch.zeros_like(image)
    weights, neighbours, places = _system(missing)
    known = image.detach().cpu().double().flatten(1).numpy().T
    unknown = np.full(missing.size, -1)
    unknown[missing.ravel()] = np.arange(int(missing.sum()))
    inside = unknown[neighbours] >= 0
    count = int(missing.sum())
    entries = (weights[inside], (places[inside], unknown[neighbours[inside]]))
    matrix = csc_matrix(identity(count) - coo_matrix(entries, shape=(count, count)))
    right = np.zeros((count, len(image)))
    outside = ~inside
    np.add.at(right, places[outside], weights[outside, None] * known[neighbours[outside]])
    solved = np.asarray(spsolve(matrix, right)).reshape(count, len(image))
    filled = image.clone()
    filled[:, away] = torch.from_numpy(solved.T).to(image)
    return filled


def _system(
    missing: np.ndarray[Any, np.dtype[np.bool_]],
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Weight, flat position of the neighbour, and index of the deleted pixel, of each pair."""
    height, width = missing.shape
    rows, columns = missing.nonzero()
    index = np.arange(len(rows))
    pairs = []
    for down, right, weight in _NEIGHBOURS:
        y, x = rows + down, columns + right
        valid = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        flat = y[valid] * width + x[valid]
        pairs.append((np.full(len(flat), weight), flat, index[valid]))
    weights, neighbours, places = map(np.concatenate, zip(*pairs, strict=True))
    whole = np.bincount(places, weights=weights, minlength=len(rows))
    return weights / whole[places], neighbours, places
