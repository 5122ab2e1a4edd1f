"""Sanity checks: does a map depend on what the model has learned, and on nothing else?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.errors import MethodError
from gradtoken.metrics.stages import stages
from gradtoken.models import Model

Explain: TypeAlias = Callable[
    [Model, Float[Tensor, "batch channels height width"]], Float[Tensor, "batch tokens"]
]
"""Maps of some pictures by a model, such as
`lambda model, images: explain(model, images, 3).tokens[:, 0].flatten(1)`."""

_SAME = 1e-3
_SHIFTS = (0.5, -0.25, 1.0)


@dataclass(frozen=True)
class Stage:
    """What is left of maps when part of a model is random.

    Args:
        name: what was made random last: "head", "block 11", …, "embedding".
        correlation: rank correlation with the trained model's maps, for each picture.
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
    """Make a copy of the model random from the head downwards, and compare its maps.

    Each parameter is drawn anew with its own mean and standard deviation. A map that shows what was
    learned must change; of one that does not, the correlation stays near 1. The head is all
    parameters behind the last block that the output depends on (see `stages`). Adebayo et al.,
    "Sanity Checks for Saliency Maps", NeurIPS 2018.

    Args:
        model: stays as it is.
        images: preprocessed.
        explain: makes maps of the images by a model.
        seed: of what is drawn.

    Returns:
        What is left of the maps after each stage, from the head to the embedding.

    Raises:
        MethodError: if the model has no blocks to go down through.
    """
    if not model.anatomy.blocks:
        raise MethodError(
            f"cascading randomisation goes down block by block, and {model.spec} is followed after "
            "its last one only; use a model whose blocks are followed."
        )
    before = explain(model, images)
    twin = _twin(model)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for name, parameters in stages(twin, images):
        with torch.no_grad():
            for parameter in parameters:
                drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
                spread = parameter.std() if parameter.numel() > 1 else parameter.abs()
                parameter.copy_(parameter.mean() + spread * drawn.to(parameter))
        found.append(Stage(name, rank_correlation(before, explain(twin, images))))
    return found


def input_shift(
    model: Model,
    images: Float[Tensor, "batch channels height width"],
    explain: Explain,
    shift: Sequence[float] | None = None,
) -> Float[Tensor, " batch"]:
    """How much maps change under a shift of the input that the model does not see.

    Every channel of the pictures gets a constant, and a copy of the model takes it out again in
    the bias of its first convolution, so that all activations are the same. The figure is the
    largest change relative to the largest relevance; 0 is invariant, NaN a map of zeros.
    Kindermans et al., "The (Un)reliability of Saliency Methods", 2017.

    Args:
        model: to be explained.
        images: preprocessed.
        explain: what makes the maps.
        shift: the constant of each channel; None is 0.5, -0.25, 1, and so on again.

    Raises:
        MethodError: if the model's first convolution cannot take the shift out.
    """
    if shift is None:
        shift = [_SHIFTS[channel % len(_SHIFTS)] for channel in range(images.shape[1])]
    twin = _twin(model)
    first = next((part for part in twin.module.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or any(first.padding) or first.in_channels != len(shift):
        raise MethodError(
            f"{model.spec} does not begin with a convolution without padding, whose bias could "
            "take a shift of the input out; use a model that does."
        )
    amount = torch.tensor(shift).to(first.weight)
    with torch.no_grad():
        taken = (first.weight.sum(dim=(2, 3)) * amount).sum(1)
        bias = -taken if first.bias is None else first.bias - taken
        first.bias = nn.Parameter(bias, requires_grad=False)
    moved = images.to(first.weight) + amount[:, None, None]
    outputs = model(images), twin(moved)
    gap = float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())
    if gap > _SAME:
        raise MethodError(
            f"{model.spec} sees the shift of its input (outputs change by {gap:.2g}), so it has "
            "another way to its first block than its first convolution; use another model."
        )
    before, after = explain(model, images), explain(twin, moved)
    return (after - before).abs().amax(1) / before.abs().amax(1)


def rank_correlation(
    one: Float[Tensor, "batch tokens"], other: Float[Tensor, "batch tokens"]
) -> Float[Tensor, " batch"]:
    """Spearman's correlation of every two rows; equal values share their mean rank.

    NaN where a row is constant or has NaN.
    """
    a, b = (_ranks(values) for values in (one, other))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    size = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(size > 0, (a * b).sum(1) / size, torch.nan)


def _ranks(values: Float[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens"]:
    """Places from 0 on, the lowest first; NaN for all of a row that has NaN."""
    values = values.contiguous()
    ordered = values.sort(dim=1).values
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    unknown = values.isnan().any(1, keepdim=True)
    return ((below + up_to - 1).double() / 2).masked_fill(unknown, torch.nan)


def _twin(model: Model) -> Model:
    """A copy of the model, to be changed; a text side and its prompts stay the model's own."""
    backbones = [model, *model.others]
    module, anatomies = copy.deepcopy((model.module, [one.anatomy for one in backbones]))
    module.requires_grad_(True)
    first, *others = (
        replace(one, module=module, anatomy=anatomy, others=(), reading=None)
        for one, anatomy in zip(backbones, anatomies, strict=True)
    )
    return replace(first, others=tuple(others))
