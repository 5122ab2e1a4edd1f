"""Single deletion and IDSDS (Hesse, Schaub-Meyer, Roth, NeurIPS 2024).

The image is divided into a grid of cells. The more relevance a cell has, the more the logit should
fall when that cell alone is deleted. IDSDS is the same on a model that was fine-tuned with one
cell deleted in half of its images, so that an image without a cell is in its domain; the maps are
those of that model too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradtoken.errors import MethodError
from gradtoken.images.fills import Fill, filled
from gradtoken.metrics.fitting_maps import check_maps
from gradtoken.metrics.in_chunks import logits_in_chunks
from gradtoken.metrics.pixel_replacement import Images, Maps, Predict, check_finite
from gradtoken.metrics.sanity import rank_correlation

GRID = 4
"""Cells in a row and in a column."""


def single_deletion(
    predict: Predict,
    images: Images,
    maps: Maps,
    classes: Int[Tensor, " batch"],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    side: int = GRID,
    fill: Fill = "grey",
) -> Float[Tensor, " batch"]:
    """Spearman's correlation between the relevance in each cell and the drop without that cell.

    1 where the order of the cells by summed relevance is that by drops, -1 where it is the
    reverse; NaN where all cells have the same relevance or the same drop.

    Args:
        predict: logits of preprocessed images, (B, C, H, W) to (B, classes); a `Model` is one. For
            IDSDS, the in-domain model.
        images: preprocessed, (B, C, H, W).
        maps: relevance of the class on the images' pixels, (B, H, W), with its sign.
        classes: the class of each image, (B,).
        mean: that the images were normalised with, one number per channel.
        std: that the images were normalised with, one number per channel.
        side: cells in a row.
        fill: what a deleted cell becomes; the authors' zeros after normalisation are "grey".

    Raises:
        MethodError: maps that do not fit the images, NaN or infinite relevance, or more cells in a
            row than pixels.
    """
    check_maps(images, maps)
    falls = logit_drops(predict, images, mean=mean, std=std, side=side, fill=fill)
    index = classes.cpu()[:, None, None].expand(-1, side * side, 1)
    return rank_correlation(relevance_by_cell(maps, side).cpu(), falls.gather(2, index)[..., 0])


def logit_drops(
    predict: Predict,
    images: Images,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    side: int = GRID,
    fill: Fill = "grey",
) -> Float[Tensor, "batch cells classes"]:
    """How much every logit falls when one cell is deleted, cells in reading order.

    Args:
        predict: as for `single_deletion`.
        images: as for `single_deletion`.
        mean: as for `single_deletion`.
        std: as for `single_deletion`.
        side: as for `single_deletion`.
        fill: as for `single_deletion`.

    Raises:
        MethodError: more cells in a row than pixels.
    """
    cells = cells_of(images.shape[2], images.shape[3], side)
    others = filled(images, fill, mean, std)
    away = torch.cat([torch.zeros_like(cells[:1]), cells]).to(images.device)[:, None]
    changed = (
        torch.where(mask, other, image)
        for image, other in zip(images, others, strict=True)
        for mask in away
    )
    logits = logits_in_chunks(predict, changed)
    logits = logits.unflatten(0, (len(images), side * side + 1))
    return logits[:, :1] - logits[:, 1:]


def relevance_by_cell(maps: Maps, side: int = GRID) -> Float[Tensor, "batch cells"]:
    """The sum of relevance in each cell, in reading order.

    Args:
        maps: relevance on pixels, (B, H, W).
        side: cells in a row.

    Raises:
        MethodError: NaN or infinite relevance, or more cells in a row than pixels.
    """
    check_finite(maps)
    cells = cells_of(maps.shape[1], maps.shape[2], side).to(maps.device)
    return maps.double().flatten(1) @ cells.flatten(1).double().T


def cells_of(height: int, width: int, side: int = GRID) -> Tensor:
    """The cells of an image as masks, (side * side, height, width), in reading order.

    Where `side` does not divide the size, cells differ by one pixel.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        side: cells in a row and in a column.

    Raises:
        MethodError: no cell, or more cells in a row than pixels.
    """
    if not 1 <= side <= min(height, width):
        raise MethodError(
            f"side={side} is not possible for images of {height}x{width} pixels; use 1 to "
            f"{min(height, width)} cells in a row."
        )
    rows, columns = (torch.arange(size) * side // size for size in (height, width))
    cell = rows[:, None] * side + columns
    return cell == torch.arange(side * side)[:, None, None]
