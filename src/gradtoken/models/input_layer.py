"""The first layer of a module: the type and number of channels that it takes."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import nn

from gradtoken.errors import ModelError
from gradtoken.images.channels import IMAGE_CHANNELS
from gradtoken.images.preprocess import Preprocess

_IMAGE_TOWERS = ("visual", "vision_model")
"""Where models that compare images with text keep their image tower."""


def image_tower(module: nn.Module) -> nn.Module:
    """The image tower of a module, or the module itself."""
    for name in _IMAGE_TOWERS:
        part = getattr(module, name, None)
        if isinstance(part, nn.Module):
            return part
    return module


def first_layer(module: nn.Module) -> nn.Conv2d | nn.Linear | None:
    """The first convolution of the image tower; without one, the projection of its patches."""
    side = image_tower(module)
    for part in side.modules():
        if isinstance(part, nn.Conv2d):
            return part
    projection = getattr(getattr(side, "embeds", None), "proj", None)
    return projection if isinstance(projection, nn.Linear) else None


def count_channels(module: Any) -> int:
    """How many channels a module of a known library takes: by its config, or its first layer."""
    config = getattr(module, "config", None)
    configured = getattr(getattr(config, "vision_config", config), "num_channels", None)
    if isinstance(configured, int):
        return configured
    layer = first_layer(module)
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels
    if isinstance(layer, nn.Linear):
        embeds: Any = image_tower(module).embeds
        size = embeds.patch_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(layer.in_features // (height * width))
    return 3


def input_dtype(layer: Any, module: nn.Module) -> torch.dtype:
    """The type of a module's input: its first layer's, also where later parts differ."""
    if layer is not None:
        dtype: torch.dtype = layer.weight.dtype
        return dtype
    return next(module.parameters(), torch.empty(0)).dtype


def with_channels(preprocess: Preprocess, module: nn.Module) -> Preprocess:
    """A user's preprocessing for a module of no known library, with the channels that it makes.

    Raises:
        ModelError: if it can be given neither an RGB image nor the channels of the module.
    """
    if preprocess.channels is not None:
        return preprocess
    layer = first_layer(module)
    takes = layer.in_channels if isinstance(layer, nn.Conv2d) else None
    try:
        channels = len(preprocess.transform(Image.new("RGB", (256, 256))))
    except Exception as error:  # it is somebody else's, for images or for tensors  # noqa: BLE001
        if takes is None or takes in IMAGE_CHANNELS:
            raise ModelError(
                f"the preprocessing fails on an RGB image ({error}); for other channels, say how "
                "many, as in Preprocess(transform, channels=12)."
            ) from None
        return preprocess.for_model(takes)
    return preprocess.for_model(1 if (channels, takes) == (3, 1) else channels)


def mixed_types(module: nn.Module) -> str:
    """Of a module whose parts are of different types, advice to go with its own error."""
    types = sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()})
    if len(types) < 2:
        return ""
    return (
        f" (its parts are of different types, {' and '.join(types)}; if they do not run together, "
        "bring it to one, as in module.float())"
    )
