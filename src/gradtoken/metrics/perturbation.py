"""Positive and negative perturbation, as Chefer et al. (CVPR 2021) code it, and its variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradtoken.errors import MethodError
from gradtoken.metrics.fills import Fill, filled
from gradtoken.metrics.replacing import (
    Images,
    Maps,
    Predict,
    Probability,
    probabilities,
    ranks,
    replaced_logits,
    softmax,
)

Variant: TypeAlias = Literal["attcat", "libragrad"]
"""Whose sign of AOPC and log-odds: AttCAT's notebooks or LibraGrad's code."""

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Perturbed:
    """A model's answers while pixels are taken away.

    Args:
        fractions: of the pixels, first 0.
        hits: whether the first class is the picture's label.
        probability: of the class explained.
    """

    fractions: tuple[float, ...]
    hits: Bool[Tensor, "batch fractions"]
    probability: Float[Tensor, "batch fractions"]

    def accuracy(self) -> Float[Tensor, " fractions"]:
        """The set's curve: of all pictures, the part that is hit at each fraction. In 0 to 1."""
        return self.hits.double().mean(0)

    def auc(self, *, clean: bool = False) -> Float[Tensor, " batch"]:
        """Area under each picture's hits by the trapezoid rule, times 100; their mean is a set's.

        Over fractions 0.1 to 0.9, so that 80 is perfect; with `clean`, from 0 on (90 is perfect),
        which is how the authors say their published numbers are made.
        """
        start = 0 if clean else 1
        values = self.hits[:, start:].double()
        fractions = torch.tensor(self.fractions[start:], dtype=torch.float64)
        return 100 * torch.trapezoid(values, fractions, dim=1)


def perturb(
    predict: Predict,
    images: Images,
    maps: Maps,
    classes: Int[Tensor, " batch"],
    labels: Int[Tensor, " batch"] | None,
    direction: Literal["positive", "negative"],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    fill: Fill = "black",
    fractions: Sequence[float] = FRACTIONS,
    probability: Probability = softmax,
) -> Perturbed:
    """Take pixels away, the most relevant first ("positive") or the least ("negative").

    At each fraction k, floor(k * pixels) of them become the fill.

    Args:
        predict: logits of preprocessed pictures.
        images: preprocessed, with the `mean` and `std` they were normalised with.
        maps: relevance of the class explained on the images' pixels.
        classes: the class explained, whose probability is followed.
        labels: what counts as a hit; None is the model's own first class on the whole picture.
        direction: which pixels go first.
        mean: per channel, what the images were shifted by in preprocessing.
        std: per channel, what they were divided by.
        fill: what takes their place, see `filled`.
        fractions: of the pixels, each above 0 and up to 1.
        probability: makes probabilities of logits.

    Raises:
        MethodError: a direction or fraction that is none, maps that do not fit the images, or NaN
            or infinite relevance.
    """
    if direction not in ("positive", "negative"):
        raise MethodError(f"direction={direction!r} is none; use 'positive' or 'negative'.")
    if not fractions or not all(0 < k <= 1 for k in fractions):
        raise MethodError(f"fractions={fractions!r} is refused; each is above 0 and up to 1.")
    pixels = maps[0].numel()
    counts = [0, *(int(k * pixels) for k in fractions)]
    places = ranks(maps if direction == "positive" else -maps)
    logits = replaced_logits(predict, images, filled(images, fill, mean, std), places, counts)
    first = logits.argmax(-1)
    labels = first[:, 0] if labels is None else labels.cpu()
    hits, found = first == labels[:, None], probabilities(logits, classes, probability)
    return Perturbed((0.0, *fractions), hits, found)


def aopc(
    probability: Float[Tensor, "batch fractions"], *, variant: Variant = "libragrad"
) -> Float[Tensor, " batch"]:
    """Mean over fractions of p(0) - p(k) ("libragrad") or of its absolute value ("attcat").

    Over positive perturbation, more is better. Samek et al., TNNLS 2017.

    Raises:
        MethodError: another variant.
    """
    _check(variant)
    drop = probability[:, :1] - probability[:, 1:]
    return (drop.abs() if variant == "attcat" else drop).mean(1)


def log_odds(
    probability: Float[Tensor, "batch fractions"], *, variant: Variant = "attcat"
) -> Float[Tensor, " batch"]:
    """Mean over fractions of log(p(k) / p(0)) ("attcat") or of log(p(0) / p(k)) ("libragrad").

    Over positive perturbation less is better for "attcat", more for "libragrad". Shrikumar et al.,
    ICML 2017.

    Raises:
        MethodError: another variant.
    """
    _check(variant)
    gain = (probability[:, 1:].log() - probability[:, :1].log()).mean(1)
    return gain if variant == "attcat" else -gain


def abpc(
    least_first: Float[Tensor, "batch fractions"], most_first: Float[Tensor, "batch fractions"]
) -> Float[Tensor, " batch"]:
    """Area between perturbation curves: mean over fractions of p least first - p most first.

    More is better. As AGCAM codes it: 11 fractions from 0 to 1, pixels set to grey.
    """
    return (least_first - most_first).mean(1)


def _check(variant: Variant) -> None:
    if variant not in get_args(Variant):
        raise MethodError(f"no variant is named {variant!r}; use 'attcat' or 'libragrad'.")
