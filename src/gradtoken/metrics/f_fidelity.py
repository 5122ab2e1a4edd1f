"""F-Fidelity (Zheng et al., ICLR 2025), on a model fine-tuned with random pixels deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradtoken.errors import MethodError
from gradtoken.metrics.fitting_maps import check_maps
from gradtoken.metrics.in_chunks import logits_in_chunks
from gradtoken.metrics.pixel_replacement import (
    Images,
    Maps,
    Predict,
    activation_of,
    probabilities,
    ranks,
)
from gradtoken.targets.activation import Activation

SIZES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
DROP = 0.1
"""The share of the pixels that fine-tuning deletes, which is the cap of what is removed."""


@dataclass(frozen=True)
class FFidelity:
    """Mean drops when part of an explanation, or of what lies outside of it, is removed.

    Args:
        sizes: of the explanation, as a share of the pixels.
        plus: of the class's probability without part of the explanation; more is better.
        minus: of the class's probability without part of the rest; less is better.
        plus_label: the same of whether the class is the top class, as the authors report.
        minus_label: the same without part of the rest.
    """

    sizes: tuple[float, ...]
    plus: Float[Tensor, "batch sizes"]
    minus: Float[Tensor, "batch sizes"]
    plus_label: Float[Tensor, "batch sizes"]
    minus_label: Float[Tensor, "batch sizes"]


def f_fidelity(
    predict: Predict,
    images: Images,
    maps: Maps,
    classes: Int[Tensor, " batch"],
    *,
    sizes: Sequence[float] = SIZES,
    alpha: float = 0.5,
    cap: float = DROP,
    samples: int = 50,
    seed: int = 0,
    activation: Activation | None = None,
) -> FFidelity:
    """Remove random parts of an explanation, and of its complement, and watch the drops.

    The explanation of size s is the s most relevant share of the pixels. Each of its pixels is
    deleted with probability min(alpha, cap / s); each pixel outside of it with probability
    min(alpha, cap / (1 - s)). So no more is removed, in the mean, than the model saw in
    fine-tuning, and images without these pixels are in its domain.

    Args:
        predict: logits of preprocessed images, (B, C, H, W) to (B, classes); a model that was
            fine-tuned with a share `cap` of the pixels deleted at random
            (`tools/finetune_in_domain.py --deletion pixels`). The maps are those of the model
            before.
        images: preprocessed, (B, C, H, W); deleted pixels become 0 in this space.
        maps: relevance of the class on the images' pixels, (B, H, W).
        classes: the class of each image, (B,).
        sizes: of the explanation, each above 0 and below 1.
        alpha: the largest probability of a deletion.
        cap: the largest share of the image that is removed.
        samples: how many deletions are drawn for each size.
        seed: of the deletions, which are the same for every map.
        activation: how logits become probabilities; None is that of a `Model`, and softmax for
            another function. With "none" the logit itself is followed.

    Raises:
        MethodError: numbers out of range, maps that do not fit the images, or NaN or infinite
            relevance.
    """
    if not sizes or not all(0 < s < 1 for s in sizes):
        raise MethodError(f"sizes={sizes!r} is not possible; each is above 0 and below 1.")
    if samples < 1 or not 0 < alpha <= 1 or not 0 < cap <= 1:
        raise MethodError(
            f"samples={samples}, alpha={alpha} and cap={cap} are not possible; use at least one "
            "sample, and shares above 0 and up to 1."
        )
    check_maps(images, maps)
    how = activation_of(predict, activation)
    changed = _changed(images, maps, sizes, (alpha, cap), samples, seed)
    logits = logits_in_chunks(predict, changed).unflatten(0, (len(images), -1))
    values = probabilities(logits, classes, how)
    hits = (logits.argmax(-1) == classes.cpu()[:, None]).double()
    drops = [_mean_drops(each, len(sizes), samples) for each in (values, hits)]
    return FFidelity(tuple(sizes), drops[0][0], drops[0][1], drops[1][0], drops[1][1])


def _changed(
    images: Images,
    maps: Maps,
    sizes: Sequence[float],
    shares: tuple[float, float],
    samples: int,
    seed: int,
) -> Iterator[Float[Tensor, "channels height width"]]:
    """Each image as it is, then for each size without parts of the explanation or of the rest."""
    alpha, cap = shares
    places = ranks(maps).view(maps.shape)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand((samples, *maps.shape[1:]), generator=generator).to(maps.device)
    for image, place in zip(images, places, strict=True):
        yield image
        for size in sizes:
            count = int(size * place.numel())
            for part, share in ((place < count, size), (place >= count, 1 - size)):
                chance = min(alpha, cap / share)
                for numbers in drawn:
                    yield image.masked_fill(part & (numbers < chance), 0)


def _mean_drops(
    values: Float[Tensor, "batch images"], sizes: int, samples: int
) -> tuple[Float[Tensor, "batch sizes"], Float[Tensor, "batch sizes"]]:
    """By how much values fall in the mean, without parts of the explanation and of the rest."""
    means = values[:, 1:].unflatten(1, (sizes, 2, samples)).mean(-1)
    drops = values[:, :1, None] - means
    return drops[..., 0], drops[..., 1]
