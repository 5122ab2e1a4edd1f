"""timm's evaluation preprocessing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import timm
import timm.data

from gradtoken.images.box import Box
from gradtoken.images.preprocess import Preprocess


def read_preprocess(module: Any, pretrained: Mapping[str, Any] | None = None) -> Preprocess:
    """timm's own evaluation preprocessing for a module.

    Args:
        module: of timm.
        pretrained: how its weights were trained; None is its own `pretrained_cfg`.
    """
    config = timm.data.resolve_data_config(dict(pretrained or {}), model=module)
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if isinstance(size, tuple):
        config["input_size"] = (3, *size)
    return build_preprocess(config)


def build_preprocess(config: Mapping[str, Any]) -> Preprocess:
    """timm's evaluation preprocessing for a data config (input_size, mean, std, crop_pct, …)."""
    mode = config.get("crop_mode") or "center"
    height, width = config["input_size"][1:]
    crop = config.get("crop_pct") or timm.data.constants.DEFAULT_CROP_PCT
    centred = mode == "center" and height == width
    return Preprocess(
        transform=timm.data.create_transform(**config, is_training=False),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        geometry=partial(_centre_box, input_size=height, crop_pct=crop) if centred else None,
    )


def _centre_box(size: tuple[int, int], *, input_size: int, crop_pct: float) -> Box:
    """What resizing the short side and cropping the centre keeps of an image."""
    short = math.floor(input_size / crop_pct)
    resized = [short if side == min(size) else int(short * side / min(size)) for side in size]
    starts = [round((side - input_size) / 2.0) for side in resized]
    across, down = (got / side for got, side in zip(resized, size, strict=True))
    return Box(
        starts[0] / across,
        starts[1] / down,
        (starts[0] + input_size) / across,
        (starts[1] + input_size) / down,
    )
