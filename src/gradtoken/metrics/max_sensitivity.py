"""Max-sensitivity (Yeh, Hsieh, Suggala, Inouye, Ravikumar, NeurIPS 2019)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import MethodError

Images = Float[Tensor, "batch channels height width"]


def max_sensitivity(
    explain: Callable[[Images], Float[Tensor, "batch tokens"]],
    images: Images,
    *,
    radius: float = 0.02,
    samples: int = 10,
    seed: int = 0,
) -> Float[Tensor, " batch"]:
    """The largest change of a map under small changes of the image, relative to the map.

    max over samples of |R(x + d) - R(x)| / |R(x)| in the Euclidean norm, each value of d uniform in
    -radius to radius. 0 is a map that stays the same; lower is better among maps that are right,
    since a map that does not depend on the image has 0 too. NaN for a map of zeros.

    Args:
        explain: maps of preprocessed images, such as
            `lambda images: explain(model, images, 3).tokens[:, 0].flatten(1)`.
        images: preprocessed, (B, C, H, W).
        radius: of the changes, in the normalised space of the images.
        samples: how many changes are tried.
        seed: of the changes, which are the same for every explanation.

    Raises:
        MethodError: no sample, or a radius that is not above 0.
    """
    if samples < 1 or not radius > 0:
        raise MethodError(
            f"samples={samples} and radius={radius} are not possible; use at least one sample and "
            "a radius above 0."
        )
    generator = torch.Generator().manual_seed(seed)
    before = explain(images).double()
    largest = torch.zeros_like(before[:, 0])
    for _ in range(samples):
        drawn = torch.rand(images.shape, generator=generator, dtype=torch.float32)
        change = explain(images + radius * (2 * drawn - 1).to(images)).double() - before
        largest = largest.maximum(change.norm(dim=1))
    size = before.norm(dim=1)
    return torch.where(size > 0, largest / size, torch.nan)
