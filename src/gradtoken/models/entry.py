"""The layer that pixels enter first: in which type, and with how many channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_IMAGE_SIDES = ("visual", "vision_model")
"""Where models that compare images with text keep the part that sees images."""


def image_side(module: nn.Module) -> nn.Module:
    """The part of a module that sees images."""
    for name in _IMAGE_SIDES:
        part = getattr(module, name, None)
        if isinstance(part, nn.Module):
            return part
    return module


def first_layer(module: nn.Module) -> nn.Conv2d | nn.Linear | None:
    """The first convolution of the image side; without one, the projection of its patches."""
    side = image_side(module)
    for part in side.modules():
        if isinstance(part, nn.Conv2d):
            return part
    projection = getattr(getattr(side, "embeds", None), "proj", None)
    return projection if isinstance(projection, nn.Linear) else None


def input_dtype(layer: Any, module: nn.Module) -> torch.dtype:
    """The type that pixels are given in: the first layer's, also where later parts differ."""
    if layer is not None:
        dtype: torch.dtype = layer.weight.dtype
        return dtype
    return next(module.parameters()).dtype


def mixed_types(module: nn.Module) -> str:
    """Of a module whose parts are of different types, advice to go with its own error."""
    types = sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()})
    if len(types) < 2:
        return ""
    return (
        f" (its parts are of different types, {' and '.join(types)}; if they do not run together, "
        "bring it to one, as in module.float())"
    )
