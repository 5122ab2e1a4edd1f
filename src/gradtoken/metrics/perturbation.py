"""Positive and negative perturbation, as Chefer et al. (CVPR 2021) code it, and its variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradtoken.errors import MethodError
from gradtoken.images.fills import Fill, filled
from gradtoken.metrics.replacing import (
    Images,
    Maps,
    Predict,
    activation_of,
    probabilities,
    ranks,
    replaced_logits,
)
from gradtoken.targets.activation import Activation

Variant: TypeAlias = Literal["attcat", "libragrad"]
"""Whose sign of AOPC and log-odds: AttCAT's notebooks or LibraGrad's code."""

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Perturbed:
    """A model's answers while pixels are taken away.

    Args:
        fractions: of the pixels, first 0.
        hits: whether the first class is the image's label; with sigmoid probabilities, whether the
            class is decided (above ½ or not) as it should be; None where the outputs are no
            probabilities.
        probability: of the class explained; its logit where the outputs are no probabilities.
    """

    fractions: tuple[float, ...]
    hits: Bool[Tensor, "batch fractions"] | None
    probability: Float[Tensor, "batch fractions"]

    def accuracy(self) -> Float[Tensor, " fractions"]:
        """The set's curve: of all pictures, the part that is hit at each fraction. In 0 to 1."""
        return self._decided().double().mean(0)

    def auc(self, *, clean: bool = False) -> Float[Tensor, " batch"]:
        """Area under each picture's hits by the trapezoid rule, times 100; their mean is a set's.

        Over fractions 0.1 to 0.9, so that 80 is perfect; with `clean`, from 0 on (90 is perfect),
        which is how the authors say their published numbers are made.
        """
        start = 0 if clean else 1
        values = self._decided()[:, start:].double()
        fractions = torch.tensor(self.fractions[start:], dtype=torch.float64)
        return 100 * torch.trapezoid(values, fractions, dim=1)

    def _decided(self) -> Bool[Tensor, "batch fractions"]:
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
    *,
    mean: Sequence[float],
    std: Sequence[float],
    fill: Fill = "black",
    fractions: Sequence[float] = FRACTIONS,
    activation: Activation | None = None,
) -> Perturbed:
    """Take pixels away, the most relevant first ("positive") or the least ("negative").

    At each fraction k, floor(k * pixels) of them become the fill.

    Args:
        predict: logits of preprocessed images, (B, 3, H, W) to (B, C); a `Model` is one.
        images: preprocessed, (B, 3, H, W).
        maps: relevance of the class explained on the images' pixels, (B, H, W).
        classes: the class explained, whose probability is followed, (B,).
        labels: the class that is a hit, (B,); None is the model's own first class on the whole
            image. With sigmoid probabilities a hit is that the label is above ½; None is that the
            class explained is on the same side of ½ as on the whole image.
        direction: "positive" or "negative".
        mean: that the images were normalised with, one number per channel.
        std: that the images were normalised with, one number per channel.
        fill: what the pixels become.
        fractions: of the pixels, each above 0 and up to 1.
        activation: how logits become probabilities; None is that of a `Model`, and softmax for
            another function. With "none" the logit itself is followed, and there are no hits.

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
    chosen = activation_of(predict, activation)
    return Perturbed(
        (0.0, *fractions),
        _hits(logits, classes, labels, chosen),
        probabilities(logits, classes, chosen),
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
        asked = classes if labels is None else labels
        above = probabilities(logits, asked, activation) > 0.5
        return above == above[:, :1] if labels is None else above
    first = logits.argmax(-1)
    right = first[:, 0] if labels is None else labels.cpu()
    return first == right[:, None]


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
        MethodError: another variant, or values that are no probabilities.
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
