"""Insertion and deletion (Petsiuk, Das, Saenko, RISE, BMVC 2018)."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from gradtoken.errors import MethodError
from gradtoken.images.fills import Fill, filled
from gradtoken.metrics.pixel_replacement import (
    Images,
    Maps,
    Predict,
    activation_of,
    probabilities,
    ranks,
    replaced_logits,
)
from gradtoken.targets.activation import Activation


def insertion(
    predict: Predict,
    images: Images,
    maps: Maps,
    classes: Int[Tensor, " batch"],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    steps: int = 28,
    fill: Fill = "blur",
    activation: Activation | None = None,
) -> Float[Tensor, "batch points"]:
    """Probability of the class as the most relevant pixels are put into a blurred image.

    `steps` + 1 points, from none to all pixels; 28 steps are 8 rows of 224 pixels each.
    `probability` makes probabilities of logits.

    Args:
        predict: logits of preprocessed images, (B, 3, H, W) to (B, C); a `Model` is one.
        images: preprocessed, (B, 3, H, W).
        maps: relevance of the class on the images' pixels, (B, H, W).
        classes: the class of each image, (B,).
        mean: that the images were normalised with, one number per channel.
        std: that the images were normalised with, one number per channel.
        steps: how many times pixels are put in.
        fill: what the pixels are before they are put in.
        activation: how logits become probabilities; None is that of a `Model`, and softmax for
            another function. With "none" the logit itself is followed.

    Raises:
        MethodError: no step or more steps than pixels, maps that do not fit the images, or NaN or
            infinite relevance.
    """
    start = filled(images, fill, mean, std)
    return _curve(predict, start, images, maps, classes, steps, activation)


def deletion(
    predict: Predict,
    images: Images,
    maps: Maps,
    classes: Int[Tensor, " batch"],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    steps: int = 28,
    fill: Fill = "grey",
    activation: Activation | None = None,
) -> Float[Tensor, "batch points"]:
    """Probability of the class as the most relevant pixels become grey: `steps` + 1 points.

    Args:
        predict: as for `insertion`.
        images: as for `insertion`.
        maps: as for `insertion`.
        classes: as for `insertion`.
        mean: as for `insertion`.
        std: as for `insertion`.
        steps: how many times pixels are taken away.
        fill: what they become.
        activation: as for `insertion`.

    Raises:
        MethodError: as for `insertion`.
    """
    end = filled(images, fill, mean, std)
    return _curve(predict, images, end, maps, classes, steps, activation)


def area(curve: Float[Tensor, "batch points"]) -> Float[Tensor, " batch"]:
    """(sum of s - (s_0 + s_n) / 2) / n: the trapezoid rule over n steps. In 0 to 1."""
    return (curve.sum(1) - (curve[:, 0] + curve[:, -1]) / 2) / (curve.shape[1] - 1)


def _curve(
    predict: Predict,
    start: Images,
    end: Images,
    maps: Maps,
    classes: Int[Tensor, " batch"],
    steps: int,
    activation: Activation | None,
) -> Float[Tensor, "batch points"]:
    pixels = maps[0].numel()
    if not 1 <= steps <= pixels:
        raise MethodError(
            f"steps={steps} is not possible; use 1 to {pixels}, the number of pixels."
        )
    counts = [round(step * pixels / steps) for step in range(steps + 1)]
    logits = replaced_logits(predict, start, end, ranks(maps), counts)
    return probabilities(logits, classes, activation_of(predict, activation))
