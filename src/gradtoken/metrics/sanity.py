"""Sanity checks: does a map depend on the model's learned parameters, and on nothing else?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.deprecation import renamed_parameters
from gradtoken.errors import MethodError
from gradtoken.metrics.stages import stages
from gradtoken.models import Model

Explain: TypeAlias = Callable[
    [Model, Float[Tensor, "batch channels height width"]], Float[Tensor, "batch tokens"]
]
"""Maps of images by a model, such as
`lambda model, images: explain(model, images, 3).tokens[:, 0].flatten(1)`."""

_SAME = 1e-3
_SHIFTS = (0.5, -0.25, 1.0)


@dataclass(frozen=True)
class Stage:
    """Similarity of maps to those of the trained model when part of a model is random.

    Args:
        name: the part that was randomised last: "head", "block 11", …, "embedding".
        correlation: rank correlation with the trained model's maps, for each image.
    """

    name: str
    correlation: Float[Tensor, " batch"]


def cascading_randomisation(
    model: Model,
    images: Float[Tensor, "batch channels height width"],
    explain: Explain,
    *,
    seed: int = 0,
) -> list[Stage]:
    """Randomise a copy of the model from the head downwards, and compare its maps.

    Each parameter is drawn anew with its own mean and standard deviation. A map that depends on the
    learned parameters must change; the correlation of a map that does not stays near 1. The head is
    all parameters behind the last block that the output depends on (see `stages`). Adebayo et al.,
    "Sanity Checks for Saliency Maps", NeurIPS 2018.

    Args:
        model: the trained model, which is not changed.
        images: preprocessed.
        explain: computes maps of the images by a model.
        seed: of the random parameters.

    Returns:
        The similarity of the maps after each stage, from the head to the embedding.

    Raises:
        MethodError: if the model's blocks are not known.
    """
    if not model.anatomy.blocks:
        raise MethodError(
            f"cascading randomisation goes down block by block, and {model.spec} is followed after "
            "its last one only; use a model whose blocks are followed."
        )
    before = explain(model, images)
    changed = _copy(model)
    generator = torch.Generator().manual_seed(seed)
    results = []
    for name, parameters in stages(changed, images):
        with torch.no_grad():
            for parameter in parameters:
                drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
                spread = parameter.std() if parameter.numel() > 1 else parameter.abs()
                parameter.copy_(parameter.mean() + spread * drawn.to(parameter))
        results.append(Stage(name, rank_correlation(before, explain(changed, images))))
    return results


def input_shift(
    model: Model,
    images: Float[Tensor, "batch channels height width"],
    explain: Explain,
    shift: Sequence[float] | None = None,
) -> Float[Tensor, " batch"]:
    """How much maps change under a shift of the input that leaves all activations the same.

    A constant is added to every channel of the images, and a copy of the model subtracts it again
    in the bias of its first convolution. The metric is the largest change relative to the largest
    relevance; 0 is invariant, NaN a map of zeros. Kindermans et al., "The (Un)reliability of
    Saliency Methods", 2017.

    Args:
        model: to be explained.
        images: preprocessed.
        explain: computes maps of the images by a model.
        shift: the constant of each channel; None is 0.5, -0.25, 1, repeated.

    Raises:
        MethodError: if the model's first convolution cannot subtract the shift.
    """
    if shift is None:
        shift = [_SHIFTS[channel % len(_SHIFTS)] for channel in range(images.shape[1])]
    if not can_shift(model, len(shift)):
        raise MethodError(
            f"{model.spec} does not begin with a convolution without padding, whose bias could "
            "take a shift of the input out; use a model that does."
        )
    changed = _copy(model)
    first = _first_convolution(changed)
    assert first is not None
    amount = torch.tensor(shift).to(first.weight)
    with torch.no_grad():
        offset = (first.weight.sum(dim=(2, 3)) * amount).sum(1)
        bias = -offset if first.bias is None else first.bias - offset
        first.bias = nn.Parameter(bias, requires_grad=False)
    shifted = images.to(first.weight) + amount[:, None, None]
    outputs = model(images), changed(shifted)
    gap = float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())
    if gap > _SAME:
        raise MethodError(
            f"{model.spec} sees the shift of its input (outputs change by {gap:.2g}), so it has "
            "another way to its first block than its first convolution; use another model."
        )
    before, after = explain(model, images), explain(changed, shifted)
    return (after - before).abs().amax(1) / before.abs().amax(1)


def can_shift(model: Model, channels: int) -> bool:
    """Whether the model's first convolution can take a shift of the input out (`input_shift`).

    Args:
        model: to be explained.
        channels: of its images.
    """
    first = _first_convolution(model)
    return first is not None and not any(first.padding) and first.in_channels == channels


def _first_convolution(model: Model) -> nn.Conv2d | None:
    return next((part for part in model.module.modules() if isinstance(part, nn.Conv2d)), None)


@renamed_parameters(one="maps", other="other_maps")
def rank_correlation(
    maps: Float[Tensor, "batch tokens"], other_maps: Float[Tensor, "batch tokens"]
) -> Float[Tensor, " batch"]:
    """Spearman's rank correlation of two maps of each image; equal values share their mean rank.

    NaN where a map is constant or has NaN.
    """
    a, b = (_ranks(values) for values in (maps, other_maps))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    size = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(size > 0, (a * b).sum(1) / size, torch.nan)


def _ranks(values: Float[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens"]:
    """Ranks from 0 on, the lowest first; NaN for a whole row that has a NaN."""
    values = values.contiguous()
    ordered = values.sort(dim=1).values
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    unknown = values.isnan().any(1, keepdim=True)
    return ((below + up_to - 1).double() / 2).masked_fill(unknown, torch.nan)


def _copy(model: Model) -> Model:
    """A copy of the model that can be changed; it shares the text side and the prompts."""
    backbones = [model, *model.others]
    module, anatomies = copy.deepcopy((model.module, [backbone.anatomy for backbone in backbones]))
    module.requires_grad_(True)
    first, *others = (
        replace(backbone, module=module, anatomy=anatomy, others=(), reading=None)
        for backbone, anatomy in zip(backbones, anatomies, strict=True)
    )
    return replace(first, others=tuple(others))
