"""Positive and negative perturbation, as Chefer et al. (CVPR 2021) code it, and its variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradtoken.errors import MethodError
from gradtoken.images.fills import Fill, filled
from gradtoken.metrics.pixel_replacement import (
    Images,
    Maps,
    Predict,
    Replacement,
    activation_of,
    probabilities,
    ranks,
)
from gradtoken.targets.activation import Activation

Variant: TypeAlias = Literal["attcat", "libragrad"]
"""Whose sign convention of AOPC and log-odds: AttCAT's notebooks or LibraGrad's code."""

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, kw_only=True)
class PerturbationProtocol:
    """How pixels are replaced, and how logits become probabilities.

    Args:
        mean: that the images were normalised with, one number per channel.
        std: that the images were normalised with, one number per channel.
        fill: what the replaced pixels become.
        fractions: of the pixels, each above 0 and up to 1.
        activation: how logits become probabilities; None is that of a `Model`, and softmax for
            another function. With "none" the logit itself is followed, and there are no hits.
    """

    mean: Sequence[float]
    std: Sequence[float]
    fill: Fill = "black"
    fractions: Sequence[float] = FRACTIONS
    activation: Activation | None = None


@dataclass(frozen=True)
class Perturbed:
    """A model's outputs while pixels are replaced.

    Args:
        fractions: of the pixels, first 0.
        hits: whether the top class is the image's label; with sigmoid probabilities, whether the
            class is on the right side of ½; None where the outputs are no probabilities.
        probability: of the class explained; its logit where the outputs are no probabilities.
    """

    fractions: tuple[float, ...]
    hits: Bool[Tensor, "batch fractions"] | None
    probability: Float[Tensor, "batch fractions"]

    def accuracy(self) -> Float[Tensor, " fractions"]:
        """The share of images with a hit at each fraction, in 0 to 1."""
        return self._hits().double().mean(0)

    def auc(self, *, clean: bool = False) -> Float[Tensor, " batch"]:
        """Area under each image's hits by the trapezoid rule, times 100.

        The mean over images is the AUC of a data set.

        Args:
            clean: also count the whole image, fractions 0 to 0.9 (90 is perfect), which is how the
                authors say their published numbers are computed; else 0.1 to 0.9 (80 is perfect).
        """
        start = 0 if clean else 1
        values = self._hits()[:, start:].double()
        fractions = torch.tensor(self.fractions[start:], dtype=torch.float64)
        return 100 * torch.trapezoid(values, fractions, dim=1)

    def _hits(self) -> Bool[Tensor, "batch fractions"]:
        if self.hits is None:
            raise MethodError(
                "outputs that are no probabilities (activation='none') decide for no class, so "
                "there are no hits; take probability, which holds the logit."
            )
        return self.hits


def perturb(
    predict: Predict,
    images: Images,
    maps: Maps,
    classes: Int[Tensor, " batch"],
    labels: Int[Tensor, " batch"] | None,
    direction: Literal["positive", "negative"],
    protocol: PerturbationProtocol | None = None,
    **options: Any,
) -> Perturbed:
    """Replace pixels, the most relevant first ("positive") or the least relevant ("negative").

    At each fraction k, floor(k * pixels) of them become the fill.

    Args:
        predict: logits of preprocessed images, (B, 3, H, W) to (B, C); a `Model` is one.
        images: preprocessed, (B, 3, H, W).
        maps: relevance of the class explained on the images' pixels, (B, H, W).
        classes: the class explained, whose probability is followed, (B,).
        labels: the class that is a hit, (B,); None is the model's top class on the whole image.
            With sigmoid probabilities a hit is that the label is above ½; None is that the class
            explained is on the same side of ½ as on the whole image.
        direction: "positive" or "negative".
        protocol: how pixels are replaced.
        **options: fields of `PerturbationProtocol`, in place of a protocol or to change it; `mean`
            and `std` are required.

    Raises:
        MethodError: an unknown direction, fractions out of range, maps that do not fit the images,
            or NaN or infinite relevance.
    """
    how = replace(protocol, **options) if protocol else PerturbationProtocol(**options)
    logits = replacement(images, maps, direction, how).logits(predict)
    activation = activation_of(predict, how.activation)
    return perturbed(logits, how.fractions, classes, labels, activation)


def replacement(
    images: Images,
    maps: Maps,
    direction: Literal["positive", "negative"],
    protocol: PerturbationProtocol,
) -> Replacement:
    """The images whose logits `perturb` takes: untouched, then at every fraction.

    Args:
        images: as for `perturb`.
        maps: as for `perturb`.
        direction: as for `perturb`.
        protocol: how pixels are replaced.

    Raises:
        MethodError: as for `perturb`.
    """
    if direction not in ("positive", "negative"):
        raise MethodError(f"direction={direction!r} is unknown; use 'positive' or 'negative'.")
    fractions = protocol.fractions
    if not fractions or not all(0 < k <= 1 for k in fractions):
        raise MethodError(f"fractions={fractions!r} is not possible; each is above 0 and up to 1.")
    pixels = maps[0].numel()
    counts = (0, *(int(k * pixels) for k in fractions))
    places = ranks(maps if direction == "positive" else -maps)
    fill = filled(images, protocol.fill, protocol.mean, protocol.std)
    return Replacement(images, fill, places, counts)


def perturbed(
    logits: Float[Tensor, "batch fractions classes"],
    fractions: Sequence[float],
    classes: Int[Tensor, " batch"],
    labels: Int[Tensor, " batch"] | None,
    activation: Activation,
) -> Perturbed:
    """The outputs of `perturb` by the logits of its images.

    Args:
        logits: of the images of `replacement`, (B, 1 + fractions, C).
        fractions: of the pixels, without the untouched image's.
        classes: as for `perturb`.
        labels: as for `perturb`.
        activation: how logits become probabilities.
    """
    return Perturbed(
        (0.0, *fractions),
        _hits(logits, classes, labels, activation),
        probabilities(logits, classes, activation),
    )


def _hits(
    logits: Float[Tensor, "batch fractions classes"],
    classes: Int[Tensor, " batch"],
    labels: Int[Tensor, " batch"] | None,
    activation: Activation,
) -> Bool[Tensor, "batch fractions"] | None:
    if activation == "none":
        return None
    if activation == "sigmoid":
        above = probabilities(logits, classes if labels is None else labels, activation) > 0.5
        return above == above[:, :1] if labels is None else above
    top = logits.argmax(-1)
    expected = top[:, 0] if labels is None else labels.cpu()
    return top == expected[:, None]


def aopc(
    probability: Float[Tensor, "batch fractions"], *, variant: Variant = "libragrad"
) -> Float[Tensor, " batch"]:
    """Mean over fractions of p(0) - p(k) ("libragrad") or of its absolute value ("attcat").

    Over positive perturbation, more is better. Samek et al., TNNLS 2017.

    Raises:
        MethodError: an unknown variant.
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
        MethodError: an unknown variant, or values that are no probabilities.
    """
    _check(variant)
    if bool(((probability < 0) | (probability > 1)).any()):
        raise MethodError(
            "log-odds are of probabilities, and some values are not in 0 to 1; outputs that are no "
            "probabilities (activation='none') have none."
        )
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
