"""Is a map specific to its target class? More metrics beside share and coupling.

These metrics are this project's; no shared benchmark of class sensitivity exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.deprecation import renamed_parameters
from gradtoken.metrics.coupling import pairwise_correlation

_RING = 4


@renamed_parameters(one="maps", other="other_maps")
def correlation(
    maps: Float[Tensor, "batch tokens"], other_maps: Float[Tensor, "batch tokens"]
) -> Float[Tensor, " batch"]:
    """Pearson correlation of two maps of each image; NaN where a map is constant."""
    a, b = (
        values.double() - values.double().mean(1, keepdim=True) for values in (maps, other_maps)
    )
    size = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(size > 0, (a * b).sum(1) / size, torch.nan)


def present_coupling(maps: Float[Tensor, "objects tokens"], classes: Sequence[int]) -> float:
    """Mean correlation of the maps of every two classes present in an image.

    Objects of one class share a map, so the first of each class counts. 1 is the same map for
    every class (docs/method.md, "Semantic coupling").

    Args:
        maps: a map per object.
        classes: the class id of each object.

    Raises:
        TargetError: fewer than two classes, or a constant map.
    """
    first = [classes.index(c) for c in dict.fromkeys(classes)]
    return float(pairwise_correlation(maps[None, first]).mean())


def contrast_response(
    before: Float[Tensor, "batch tokens"],
    own_removed: Float[Tensor, "batch tokens"],
    other_removed: Float[Tensor, "batch tokens"],
) -> Float[Tensor, " batch"]:
    """The share of its own object in the changes of a class's map when an object is removed.

    |R - R_own| / (|R - R_own| + |R - R_other|) with R the map of class a, R_own that of the image
    without object a and R_other that of the image without another object b. 1 is a map that
    depends on its own object alone, 0.5 one that depends on both alike; NaN where nothing changes.

    Args:
        before: R of each image.
        own_removed: R_own.
        other_removed: R_other.
    """
    own = (before - own_removed).double().norm(dim=1)
    other = (before - other_removed).double().norm(dim=1)
    return own / (own + other)


def painted_out(
    images: Float[Tensor, "batch channels height width"], masks: Bool[Tensor, "batch height width"]
) -> Float[Tensor, "batch channels height width"]:
    """Images without an object: its pixels and those that touch it get the colour around it.

    That is the mean over a ring 2 to 4 pixels away from the object; over the whole image where the
    ring is empty.

    Args:
        images: preprocessed.
        masks: of the object in each image.
    """
    grown = _grown(masks, 1)
    ring = _grown(masks, _RING) & ~grown
    around = torch.where(ring.flatten(1).any(1)[:, None, None], ring, torch.ones_like(ring))
    weights = around[:, None].to(images.dtype)
    colour = (images * weights).sum(dim=(2, 3)) / weights.sum(dim=(2, 3))
    return torch.where(grown[:, None], colour[..., None, None], images)


def _grown(
    masks: Bool[Tensor, "batch height width"], by: int
) -> Bool[Tensor, "batch height width"]:
    """Masks grown by a number of pixels."""
    return F.max_pool2d(masks[:, None].float(), 2 * by + 1, 1, by)[:, 0] > 0
