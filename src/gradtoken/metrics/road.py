"""ROAD, remove and debias (Rong, Leemann, Borisov, Kasneci, Kasneci, ICML 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradtoken.errors import MethodError
from gradtoken.metrics.fitting_maps import check_maps
from gradtoken.metrics.imputation import imputed
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

Order: TypeAlias = Literal["morf", "lerf"]
"""Most relevant first, or least relevant first."""

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_NOISE = 0.01


@dataclass(frozen=True)
class Imputed:
    """A model's outputs while pixels are imputed.

    Args:
        fractions: of the pixels, first 0.
        top: whether the class explained is the top class.
        probability: of the class explained; its logit where the outputs are no probabilities.
    """

    fractions: tuple[float, ...]
    top: Bool[Tensor, "batch fractions"]
    probability: Float[Tensor, "batch fractions"]


def road(
    predict: Predict,
    images: Images,
    maps: Maps,
    classes: Int[Tensor, " batch"],
    order: Order,
    *,
    std: Sequence[float],
    fractions: Sequence[float] = FRACTIONS,
    noise: float = _NOISE,
    seed: int = 0,
    activation: Activation | None = None,
) -> Imputed:
    """Impute pixels, the most relevant first ("morf") or the least relevant first ("lerf").

    At each fraction k, floor(k * pixels) of them become what their neighbours are (`imputed`), plus
    Gaussian noise. Imputed pixels do not show where they are, unlike black ones, so that the shape
    of what was taken away tells the model little; the authors find that the two orders then rank
    methods alike, without training a model anew. Low for "morf" and high for "lerf" is good.

    Args:
        predict: logits of preprocessed images, (B, C, H, W) to (B, classes); a `Model` is one.
        images: preprocessed, (B, C, H, W).
        maps: relevance of the class on the images' pixels, (B, H, W).
        classes: the class of each image, (B,).
        order: "morf" or "lerf".
        std: that the images were normalised with, one number per channel, or one for all.
        fractions: of the pixels, each above 0 and up to 1.
        noise: its standard deviation, on a scale on which pixels are 0 to 1.
        seed: of the noise, which is the same for every image and map.
        activation: how logits become probabilities; None is that of a `Model`, and softmax for
            another function. With "none" the logit itself is followed.

    Raises:
        MethodError: an unknown order, fractions out of range, maps that do not fit the images, or
            NaN or infinite relevance.
    """
    if order not in ("morf", "lerf"):
        raise MethodError(f"order={order!r} is unknown; use 'morf' or 'lerf'.")
    if not fractions or not all(0 < k <= 1 for k in fractions):
        raise MethodError(f"fractions={fractions!r} is not possible; each is above 0 and up to 1.")
    check_maps(images, maps)
    places = ranks(maps if order == "morf" else -maps).view(maps.shape)
    counts = [0, *(int(k * maps[0].numel()) for k in fractions)]
    jitter = _jitter(images[0], std, noise, seed)
    changed = (
        _noisy(images[b], places[b] < count, jitter) for b in range(len(images)) for count in counts
    )
    logits = logits_in_chunks(predict, changed).unflatten(0, (len(images), len(counts)))
    top = logits.argmax(-1) == classes.cpu()[:, None]
    values = probabilities(logits, classes, activation_of(predict, activation))
    return Imputed((0.0, *fractions), top, values)


def _jitter(
    image: Float[Tensor, "channels height width"], std: Sequence[float], noise: float, seed: int
) -> Float[Tensor, "channels height width"]:
    """Noise for every pixel, in the normalised space."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(image.shape, generator=generator, dtype=torch.float32)
    scale = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)
    return (noise * drawn / scale).to(image)


def _noisy(
    image: Float[Tensor, "channels height width"],
    away: Bool[Tensor, "height width"],
    jitter: Float[Tensor, "channels height width"],
) -> Float[Tensor, "channels height width"]:
    return imputed(image, away) + jitter * away
