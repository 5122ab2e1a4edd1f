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
    Replacement,
    activation_of,
    probabilities,
    ranks,
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
    return _curve(predict, steps_between(start, images, maps, steps), classes, activation)


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
    return _curve(predict, steps_between(images, end, maps, steps), classes, activation)


def area(curve: Float[Tensor, "batch points"]) -> Float[Tensor, " batch"]:
    """(sum of s - (s_0 + s_n) / 2) / n: the trapezoid rule over n steps. In 0 to 1."""
    return (curve.sum(1) - (curve[:, 0] + curve[:, -1]) / 2) / (curve.shape[1] - 1)


def steps_between(start: Images, end: Images, maps: Maps, steps: int) -> Replacement:
    """The images of a curve: from `start` to `end`, the most relevant pixels first.

    Args:
        start: the images before the first step, (B, C, H, W).
        end: the images after the last step, (B, C, H, W).
        maps: relevance on the images' pixels, (B, H, W).
        steps: how many times pixels are replaced.

    Raises:
        MethodError: as for `insertion`.
    """
    pixels = maps[0].numel()
    if not 1 <= steps <= pixels:
        raise MethodError(
            f"steps={steps} is not possible; use 1 to {pixels}, the number of pixels."
        )
    counts = tuple(round(step * pixels / steps) for step in range(steps + 1))
    return Replacement(start, end, ranks(maps), counts)


def _curve(
    predict: Predict,
    replacement: Replacement,
    classes: Int[Tensor, " batch"],
    activation: Activation | None,
) -> Float[Tensor, "batch points"]:
    return probabilities(replacement.logits(predict), classes, activation_of(predict, activation))
